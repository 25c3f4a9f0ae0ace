import pytest

from pipelines.command_line.options import Options, UsageError
from pipelines.stage import runner


def test_flags_of_beam_are_checked() -> None:
    made = runner.beam_pipeline_options(["--direct_num_workers=2"])
    assert made.get_all_options()["direct_num_workers"] == 2
    with pytest.raises(UsageError, match="unknown flag --runer=X after --"):
        runner.beam_pipeline_options(["--runer=X"])
    with pytest.raises(UsageError, match="direct_num_workers: invalid int value: 'x'"):
        runner.beam_pipeline_options(["--direct_num_workers=x"])


def test_an_error_of_a_step_is_raised_when_the_pipeline_runs() -> None:
    import apache_beam as beam

    with pytest.raises(Exception, match="division by zero"), runner.new_pipeline(Options()) as root:
        _ = root | beam.Create([0]) | beam.Map(lambda x: 1 / x)

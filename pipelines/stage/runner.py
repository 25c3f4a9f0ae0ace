"""Beam pipelines with the runner that the options name."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pipelines.command_line.options import Options, UsageError
from pipelines.stage import step_counters
from pipelines.store import paths

if TYPE_CHECKING:
    import apache_beam as beam

RUNNER_FLAG = "--runner"


@contextlib.contextmanager
def new_pipeline(options: Options) -> "Iterator[beam.Pipeline]":
    """A Beam pipeline with the runner of the options, run when the block ends, its steps counted.

    The local runner spills its shuffles to the local disk. It is named explicitly: the default DirectRunner tries Prism
    first, a binary that it downloads, and then chooses a runner by the graph.
    """
    import apache_beam as beam
    from apache_beam.runners.portability import fn_api_runner

    from transforms.tables import spill, step_metrics

    beam_options = beam_pipeline_options(options.beam_args)
    flags = {word.split("=")[0] for word in options.beam_args}
    runner = None if RUNNER_FLAG in flags else fn_api_runner.FnApiRunner()
    pipeline = beam.Pipeline(runner=runner, options=beam_options)
    with contextlib.ExitStack() as stack:
        # Workers in containers do not see this machine's files.
        if runner is not None and "--environment_type" not in flags:
            prefix = f"{paths.local_prefix(options.output)}shuffle-"
            stack.enter_context(spill.into(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix))))
        yield pipeline
        step_metrics.meter(pipeline)
        result = pipeline.run()
        result.wait_until_finish()
    step_counters.add(result)


def beam_pipeline_options(beam_args: Sequence[str]) -> Any:
    """Beam's own options; refuses unknown flags, which Beam itself ignores.

    Raises:
      UsageError: an unknown flag, or a value that Beam does not accept.
    """
    from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

    class Parser(_BeamArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UsageError(f"after --: {message.removeprefix('argument ')}")

    known = Parser(add_help=False)
    for cls in PipelineOptions.__subclasses__():
        cls._add_argparse_args(known)
    _, unknown = known.parse_known_args(list(beam_args))
    if unknown:
        raise UsageError(f"unknown flag {unknown[0]} after --: no flag of Beam")
    return PipelineOptions(list(beam_args))

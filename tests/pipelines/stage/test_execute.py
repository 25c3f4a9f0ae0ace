from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.command_line.options import Options, UsageError
from pipelines.stage import execute, reports
from pipelines.stage.declaration import Places, Stage
from pipelines.store import runs
from transforms.tables import counts, files, parquet

SCHEMA = pa.schema([("x", pa.int64())])


def _options(tmp_path: Path) -> Options:
    return Options(output=str(tmp_path / "out"), run_date="2026-01-31")


def _write(directory: str, *values: int) -> None:
    parquet.write_file(directory + "/part-00000.parquet", pa.RecordBatch.from_pydict({"x": list(values)}), SCHEMA)


def _run(options: Options, places: Places) -> None:
    _write(places.output("doubled"), *[2 * x for x in range(options.k)])
    _write(places.output("rejects/double"))
    _write(places.scratch("half"), 1)
    counts.write_counts({"doubled.written": options.k}, places.output("doubled"))


DOUBLE = Stage("double", reads=(), writes=("doubled", "rejects/double"), run=_run)


def test_a_stage_leaves_its_tables_and_a_report_and_nothing_else(tmp_path: Path) -> None:
    report = execute.execute(DOUBLE, _options(tmp_path))
    assert report.rows == {"doubled": 50, "rejects/double": 0}
    assert report.counts == {"doubled.written": 50}
    assert report.peak_memory_bytes > 1_000_000
    run_dir = tmp_path / "out" / "runs" / "2026-01-31"
    assert sorted(p.name for p in run_dir.iterdir()) == ["_stages", "doubled", "rejects"]
    assert files.read_json(reports.report_path(str(run_dir), "double"))["rows"]["doubled"] == 50


def test_a_stage_that_fails_leaves_what_was_there_before(tmp_path: Path) -> None:
    options = _options(tmp_path)
    execute.execute(DOUBLE, options)

    def fail(options: Options, places: Places) -> None:
        _write(places.output("doubled"), 7)
        raise RuntimeError("no space left")

    with pytest.raises(RuntimeError, match="no space left"):
        execute.execute(Stage("double", (), ("doubled",), fail), options)
    directory = files.join(runs.run_dir(options), "doubled")
    assert parquet.count_rows(directory) == 50
    assert not [p for p in Path(runs.run_dir(options)).iterdir() if p.name.startswith("_double")]


def test_done_again_a_stage_replaces_its_tables(tmp_path: Path) -> None:
    options = _options(tmp_path)
    execute.execute(DOUBLE, options)
    shorter = Options(output=options.output, run_date=options.run_date, k=3)
    execute.execute(DOUBLE, shorter)
    assert parquet.count_rows(files.join(runs.run_dir(options), "doubled")) == 3


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="posts is not there; run the stage that writes it before extract"):
        execute.execute(Stage("extract", ("posts",), (), _run), _options(tmp_path))


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="cannot be written"):
        execute.execute(DOUBLE, _options(tmp_path))

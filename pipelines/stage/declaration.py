"""Stage execution with atomic commit of its tables.

A stage writes its tables into a temporary directory beside the run's tables; only when all of it is there are they
renamed into place and the stage's report is written, last. A table without a report is not complete.
"""

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.command_line import console
from pipelines.command_line.options import Options, UsageError, parse
from pipelines.stage import peak_memory, step_counters
from pipelines.store import paths
from transforms.linalg import tensorflow_import
from transforms.tables import files

if TYPE_CHECKING:
    from pipelines.stage import fingerprint


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a stage finds the tables of earlier stages and writes its own."""

    run_dir: str
    temporary: str
    local: str

    def input(self, table: str) -> str:
        """The directory of a table that an earlier stage wrote."""
        return paths.join(self.run_dir, table)

    def output(self, table: str) -> str:
        """The directory in which this stage writes a table: temporary until the stage is complete."""
        return paths.join(self.temporary, table)

    def scratch(self, name: str) -> str:
        """A directory for what only this stage needs, gone after it; workers on other machines see it too."""
        return paths.join(self.temporary, "_scratch", name)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A verb of the pipeline.

    Attributes:
      name: the command.
      reads: tables of earlier stages, without which it cannot run.
      writes: the tables it leaves.
      run: does the work, given the options and the places; raises where it fails.
      work: the table whose rows are the stage's work, for the display of progress ("" where that is not known).
      tensorflow: whether it uses TensorFlow in this process.
      options: the flags, and groups of flags, that what it writes depends on: with others it is done again.
      files: the flags that name files which it reads.
      reads_media: whether it reads what is below --media_root.
      reads_before: tables that it reads of the run whose space this one goes on in, where there is one.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    run: Callable[[Options, Places], None]
    work: str = ""
    tensorflow: bool = True
    options: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    reads_media: bool = False
    reads_before: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Report:
    """Report that a complete stage writes beside its tables.

    Attributes:
      stage: its name.
      seconds: what it took.
      peak_memory_bytes: of the driver's process: with the local runner in one process that is all of it.
      rows: of each table.
      counts: exact ones.
      steps: what each step of its pipelines took in, gave and cost (`transforms.tables.step_metrics`), in order.
      id: of this execution, never the same twice: what later stages were made from.
      origin: a `resume.Origin` as JSON; None in reports that do not tell.
      files: the bytes of every file of each table, by its path below the table.
    """

    stage: str
    seconds: float
    peak_memory_bytes: int
    rows: dict[str, int]
    counts: dict[str, int]
    steps: step_counters.Steps = dataclasses.field(default_factory=dict)
    id: str = ""
    origin: dict[str, Any] | None = None
    files: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    def measures(self) -> dict[str, Any]:
        """Fields of the report that go into the metrics."""
        names = ("stage", "seconds", "peak_memory_bytes", "rows", "counts", "steps")
        return {name: getattr(self, name) for name in names}


def run_dir(options: Options) -> str:
    """The directory of the run that the options name."""
    if not options.output:
        raise UsageError("--output is missing: the directory in which runs/ and LATEST are written")
    return paths.join(options.output, "runs", options.run_name)


def execute(stage: Stage, options: Options, directory: str = "", origin: "fingerprint.Origin | None" = None) -> Report:
    """Runs a stage and puts its tables into place.

    Args:
      stage: the stage.
      options: the flags.
      directory: where the run is made; the run's own where not told.
      origin: what it is made from, but for the stages before it; found out where not told.

    Raises:
      UsageError: a table that it reads is not there, or the output cannot be written.
      RunError: a table that it reads is damaged, or an input file was changed while it was read.
    """
    from pipelines.stage import fingerprint
    from transforms.tables import parquet

    directory = directory or run_dir(options)
    _check_inputs(stage, directory)
    read = read_reports(directory)
    fingerprint.check_read(stage, read, directory)
    made_from = sources(stage, read, options, directory)
    origin = dataclasses.replace(origin or fingerprint.origin(stage, options), stages=made_from)
    temporary = paths.join(directory, f"_{stage.name}-{paths.new_id()}")
    paths.make(temporary)
    if stage.tensorflow:
        tensorflow_import.import_tensorflow()
    local = tempfile.mkdtemp(prefix=f"{paths.local_prefix(options.output)}{stage.name}-")
    began = time.monotonic()
    peak_memory.reset_peak()
    try:
        places = Places(directory, temporary, local)
        try:
            total = parquet.count_rows(paths.join(directory, stage.work)) if stage.work else 0
            with console.progress(stage.name, total), step_counters.gather() as counters:
                stage.run(options, places)
        except Exception:
            # Where what it read was cut off meanwhile, that says more than how it failed.
            fingerprint.check_unchanged(origin, stage.name)
            fingerprint.check_read(stage, read, directory)
            raise
        fingerprint.check_unchanged(origin, stage.name)
        report = dataclasses.replace(_describe(stage, origin, places, began), steps=counters)
        paths.delete(report_path(directory, stage.name))
        for table in stage.writes:
            paths.move(places.output(table), places.input(table))
        files.write_json(report_path(directory, stage.name), dataclasses.asdict(report))
        return report
    finally:
        with contextlib.suppress(OSError):  # must not hide why the stage failed; the next run sweeps it away
            paths.delete(temporary)
        shutil.rmtree(local, ignore_errors=True)


def _describe(stage: Stage, origin: "fingerprint.Origin", places: Places, began: float) -> Report:
    """The report of a stage that has just written its tables."""
    from transforms.tables import counts, parquet

    written = {table: places.output(table) for table in stage.writes}
    return Report(
        stage=stage.name,
        seconds=round(time.monotonic() - began, 3),
        peak_memory_bytes=peak_memory.peak_bytes(),
        rows={table: parquet.count_rows(path) for table, path in written.items() if parquet.list_files(path)},
        counts={name: number for path in written.values() for name, number in counts.read_counts(path).items()},
        id=paths.new_id(),
        origin=files.plain(dataclasses.asdict(origin)),
        files={table: files.list_sizes(path) for table, path in written.items()},
    )


def sources(stage: Stage, reports: Iterable[Report], options: Options, directory: str) -> dict[str, str]:
    """The stages whose tables a stage reads, with the id of the execution that left them.

    Args:
      stage: the stage.
      reports: of the run.
      options: the flags.
      directory: where the run is made.
    """
    from pipelines.continuity import space_lineage

    found = {report.stage: report.id for report in reports if set(report.files) & set(stage.reads)}
    return found | (space_lineage.sources(options, directory, stage.reads_before) if stage.reads_before else {})


def _check_inputs(stage: Stage, directory: str) -> None:
    missing = [table for table in stage.reads if not paths.exists(paths.join(directory, table))]
    if missing:
        raise UsageError(
            f"{paths.join(directory, missing[0])} is not there; run the stage that writes it before {stage.name}"
        )


def report_path(directory: str, stage: str) -> str:
    """Where a stage's report is; it is there if and only if the stage is complete."""
    return paths.join(directory, "_stages", f"{stage}.json")


def read_report(directory: str, stage: str) -> Report | None:
    """The report of a stage; None where it is not complete."""
    path = report_path(directory, stage)
    return Report(**files.read_json(path)) if paths.exists(path) else None


def read_reports(directory: str) -> list[Report]:
    """The reports of all stages that are complete, by name."""
    names = sorted(files.list_sizes(paths.join(directory, "_stages")))
    return [
        Report(**files.read_json(paths.join(directory, "_stages", name))) for name in names if name.endswith(".json")
    ]


def main(stage: Stage, description: str, argv: Sequence[str] | None, show: Callable[[str], str] | None = None) -> int:
    """The command of one stage: parses, runs, prints the rows of its tables and what `show` tells of the directory.

    Returns the exit code.
    """
    import sys

    def work() -> int:
        from pipelines.store import cleanup, lock

        options = parse(stage.name, description, sys.argv[1:] if argv is None else argv)
        directory = run_dir(options)
        with lock.hold(options.output):
            cleanup.sweep(options.output)
            paths.check_writable(directory)
            report = execute(stage, options)
        for table, rows in report.rows.items():
            print(f"{paths.join(directory, table)}: {rows:,} rows")
        if show is not None:
            print(show(directory))
        return 0

    return console.exit_code(f"fusefeed {stage.name}", work)

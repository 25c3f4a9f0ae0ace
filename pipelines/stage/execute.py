"""Stage execution with atomic commit of its tables.

A stage writes its tables into a temporary directory beside the run's tables; only when all of it is there are they
renamed into place and the stage's report is written, last.
"""

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Iterable

from pipelines.command_line import console
from pipelines.command_line.options import Options, UsageError
from pipelines.stage import fingerprint, peak_memory, step_counters
from pipelines.stage.declaration import Places, Stage
from pipelines.stage.reports import Report, read_reports, report_path
from pipelines.store import cleanup, lock, paths, runs
from transforms.linalg import tensorflow_import
from transforms.tables import files


def execute(stage: Stage, options: Options, directory: str = "", origin: fingerprint.Origin | None = None) -> Report:
    """Runs a stage and puts its tables into place.

    Args:
      stage: the stage.
      options: the flags.
      directory: where the run is made; the run's own by default.
      origin: what it is made from, but for the stages before it; computed by default.

    Raises:
      UsageError: a table that it reads is not there, or the output cannot be written.
      RunError: a table that it reads is damaged, or an input file was changed while it was read.
    """
    from transforms.tables import parquet

    directory = directory or runs.run_dir(options)
    _check_inputs(stage, directory)
    read = read_reports(directory)
    fingerprint.check_read(stage, read, directory)
    made_from = sources(stage, read, options, directory)
    origin = dataclasses.replace(origin or fingerprint.origin(stage, options), stages=made_from)
    temporary = files.join(directory, f"_{stage.name}-{files.new_id()}")
    paths.check_writable(temporary)
    if stage.tensorflow:
        tensorflow_import.import_tensorflow()
    local = tempfile.mkdtemp(prefix=f"{paths.local_prefix(options.output)}{stage.name}-")
    began = time.monotonic()
    peak_memory.reset_peak()
    try:
        places = Places(directory, temporary, local)
        try:
            total = parquet.count_rows(files.join(directory, stage.work)) if stage.work else 0
            with console.progress(stage.name, total), step_counters.gather() as counters:
                stage.run(options, places)
        except Exception:
            # Where what it read was cut off meanwhile, that says more than how it failed.
            fingerprint.check_unchanged(origin, stage.name)
            fingerprint.check_read(stage, read, directory)
            raise
        fingerprint.check_unchanged(origin, stage.name)
        report = dataclasses.replace(_describe(stage, origin, places, began), steps=counters)
        files.delete(report_path(directory, stage.name))
        for table in stage.writes:
            files.move(places.output(table), places.input(table))
        files.write_json(report_path(directory, stage.name), dataclasses.asdict(report))
        return report
    finally:
        with contextlib.suppress(OSError):  # must not hide why the stage failed; the next run sweeps it away
            files.delete(temporary)
        shutil.rmtree(local, ignore_errors=True)


def _describe(stage: Stage, origin: fingerprint.Origin, places: Places, began: float) -> Report:
    """The report of a stage that has just written its tables."""
    from transforms.tables import counts, parquet

    written = {table: places.output(table) for table in stage.writes}
    return Report(
        stage=stage.name,
        seconds=round(time.monotonic() - began, 3),
        peak_memory_bytes=peak_memory.peak_bytes(),
        rows={table: parquet.count_rows(path) for table, path in written.items() if parquet.list_files(path)},
        counts={name: number for path in written.values() for name, number in counts.read_counts(path).items()},
        id=files.new_id(),
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
    found = {report.stage: report.id for report in reports if set(report.files) & set(stage.reads)}
    return found | (stage.other_sources(options, directory) if stage.other_sources else {})


def _check_inputs(stage: Stage, directory: str) -> None:
    missing = [table for table in stage.reads if not files.exists(files.join(directory, table))]
    if missing:
        raise UsageError(
            f"{files.join(directory, missing[0])} is not there; run the stage that writes it before {stage.name}"
        )


def command(stage: Stage, options: Options) -> None:
    """Runs a stage by itself, as its command does: under the lock of the output; prints the rows of its tables.

    Raises: as `execute`.
    """
    directory = runs.run_dir(options)
    with lock.hold(options.output):
        cleanup.sweep(options.output)
        report = execute(stage, options)
    for table, rows in report.rows.items():
        print(f"{files.join(directory, table)}: {rows:,} rows")
    if stage.show is not None:
        print(stage.show(directory))

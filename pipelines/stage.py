"""What all stages have in common: where they read and write, how they are run, and what is left when one fails.

A stage writes its tables into a temporary directory beside the run's tables; only when all of it is there are they
renamed into place and the stage's report is written, last. A table without a report is not complete.
"""

import contextlib
import dataclasses
import hashlib
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pipelines import console, memory, step_counters
from pipelines.options import Options, UsageError, parse
from transforms import files, quiet

if TYPE_CHECKING:
    import apache_beam as beam

    from pipelines import resume

RUNNER_FLAG = "--runner"


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a stage finds the tables of earlier stages and writes its own."""

    run_dir: str
    temporary: str
    local: str

    def input(self, table: str) -> str:
        """The directory of a table that an earlier stage wrote."""
        return join(self.run_dir, table)

    def output(self, table: str) -> str:
        """The directory in which this stage writes a table: temporary until the stage is complete."""
        return join(self.temporary, table)

    def scratch(self, name: str) -> str:
        """A directory for what only this stage needs, gone after it; workers on other machines see it too."""
        return join(self.temporary, "_scratch", name)


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
    """What a complete stage leaves beside its tables.

    Attributes:
      stage: its name.
      seconds: what it took.
      peak_memory_bytes: of the driver's process: with the local runner in one process that is all of it.
      rows: of each table.
      counts: exact ones.
      steps: what each step of its pipelines took in, gave and cost (`transforms.step_metrics`), in order.
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
        """What metrics tell of the stage."""
        names = ("stage", "seconds", "peak_memory_bytes", "rows", "counts", "steps")
        return {name: getattr(self, name) for name in names}


def join(*parts: str) -> str:
    """A path below a directory of any file system."""
    return "/".join([parts[0].rstrip("/"), *parts[1:]])


def run_dir(options: Options) -> str:
    """The directory of the run that the options name."""
    if not options.output:
        raise UsageError("--output is missing: the directory in which runs/ and LATEST are written")
    return join(options.output, "runs", options.run_name)


def execute(stage: Stage, options: Options, directory: str = "", origin: "resume.Origin | None" = None) -> Report:
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
    from pipelines import resume
    from transforms import tables

    directory = directory or run_dir(options)
    _check_inputs(stage, directory)
    read = read_reports(directory)
    resume.check_read(stage, read, directory)
    made_from = sources(stage, read, options, directory)
    origin = dataclasses.replace(origin or resume.origin(stage, options), stages=made_from)
    temporary = join(directory, f"_{stage.name}-{new_id()}")
    _make(temporary)
    if stage.tensorflow:
        quiet.import_tensorflow()
    local = tempfile.mkdtemp(prefix=f"{local_prefix(options.output)}{stage.name}-")
    began = time.monotonic()
    memory.reset_peak()
    try:
        places = Places(directory, temporary, local)
        try:
            total = tables.count_rows(join(directory, stage.work)) if stage.work else 0
            with console.progress(stage.name, total), step_counters.gather() as counters:
                stage.run(options, places)
        except Exception:
            # Where what it read was cut off meanwhile, that says more than how it failed.
            resume.check_unchanged(origin, stage.name)
            resume.check_read(stage, read, directory)
            raise
        resume.check_unchanged(origin, stage.name)
        report = dataclasses.replace(_describe(stage, origin, places, began), steps=counters)
        delete(report_path(directory, stage.name))
        for table in stage.writes:
            move(places.output(table), places.input(table))
        files.write_json(report_path(directory, stage.name), dataclasses.asdict(report))
        return report
    finally:
        with contextlib.suppress(OSError):  # must not hide why the stage failed; the next run sweeps it away
            delete(temporary)
        shutil.rmtree(local, ignore_errors=True)


def _describe(stage: Stage, origin: "resume.Origin", places: Places, began: float) -> Report:
    """The report of a stage that has just written its tables."""
    from transforms import counts, tables

    directories = {table: places.output(table) for table in stage.writes}
    return Report(
        stage=stage.name,
        seconds=round(time.monotonic() - began, 3),
        peak_memory_bytes=memory.peak_bytes(),
        rows={table: tables.count_rows(path) for table, path in directories.items() if tables.list_files(path)},
        counts={name: number for path in directories.values() for name, number in counts.read_counts(path).items()},
        id=new_id(),
        origin=files.plain(dataclasses.asdict(origin)),
        files={table: files.list_sizes(path) for table, path in directories.items()},
    )


def local_prefix(output: str) -> str:
    """How the names of local scratch directories begin that belong to an output."""
    return f"fusefeed-{slug(os.path.abspath(output) if files.is_local(output) else output)}-"


def sources(stage: Stage, reports: Iterable[Report], options: Options, directory: str) -> dict[str, str]:
    """The stages whose tables a stage reads, with the id of the execution that left them.

    Args:
      stage: the stage.
      reports: of the run.
      options: the flags.
      directory: where the run is made.
    """
    from pipelines import lineage

    found = {report.stage: report.id for report in reports if set(report.files) & set(stage.reads)}
    return found | (lineage.sources(options, directory, stage.reads_before) if stage.reads_before else {})


def _check_inputs(stage: Stage, directory: str) -> None:
    missing = [table for table in stage.reads if not exists(join(directory, table))]
    if missing:
        raise UsageError(
            f"{join(directory, missing[0])} is not there; run the stage that writes it before {stage.name}"
        )


def report_path(directory: str, stage: str) -> str:
    """Where a stage's report is; it is there if and only if the stage is complete."""
    return join(directory, "_stages", f"{stage}.json")


def read_report(directory: str, stage: str) -> Report | None:
    """The report of a stage; None where it is not complete."""
    path = report_path(directory, stage)
    return Report(**files.read_json(path)) if exists(path) else None


def read_reports(directory: str) -> list[Report]:
    """The reports of all stages that are complete, by name."""
    names = sorted(files.list_sizes(join(directory, "_stages")))
    return [Report(**files.read_json(join(directory, "_stages", name))) for name in names if name.endswith(".json")]


@contextlib.contextmanager
def new_pipeline(options: Options) -> "Iterator[beam.Pipeline]":
    """A Beam pipeline with the runner of the options, run when the block ends, its steps counted.

    What the local runner shuffles lies on the local disk meanwhile. It is named explicitly: the default DirectRunner
    tries Prism first, a binary that it downloads, and which of its runners is used in the end depends on the graph.
    """
    import apache_beam as beam
    from apache_beam.runners.portability import fn_api_runner

    from transforms import spill, step_metrics

    beam_options = beam_pipeline_options(options.beam_args)
    flags = {word.split("=")[0] for word in options.beam_args}
    runner = None if RUNNER_FLAG in flags else fn_api_runner.FnApiRunner()
    pipeline = beam.Pipeline(runner=runner, options=beam_options)
    with contextlib.ExitStack() as stack:
        # Workers in containers do not see this machine's files.
        if runner is not None and "--environment_type" not in flags:
            prefix = f"{local_prefix(options.output)}shuffle-"
            stack.enter_context(spill.into(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix))))
        yield pipeline
        step_metrics.meter(pipeline)
        result = pipeline.run()
        result.wait_until_finish()
    step_counters.add(result)


def beam_pipeline_options(beam_args: Sequence[str]) -> Any:
    """Beam's own options, with flags that no part of Beam knows refused: Beam itself ignores a misspelt flag.

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


def main(stage: Stage, description: str, argv: Sequence[str] | None, show: Callable[[str], str] | None = None) -> int:
    """The command of one stage: parses, runs, prints the rows of its tables and what `show` tells of the directory.

    Returns the exit code.
    """
    import sys

    def work() -> int:
        from pipelines import leftovers, lock

        options = parse(stage.name, description, sys.argv[1:] if argv is None else argv)
        directory = run_dir(options)
        with lock.hold(options.output):
            leftovers.sweep(options.output)
            check_writable(directory)
            report = execute(stage, options)
        for table, rows in report.rows.items():
            print(f"{join(directory, table)}: {rows:,} rows")
        if show is not None:
            print(show(directory))
        return 0

    return console.exit_code(f"fusefeed {stage.name}", work)


def check_writable(directory: str) -> None:
    """Makes a directory and writes a file in it, to find out before the work whether that can be done.

    Raises:
      UsageError: it cannot.
    """
    path = join(directory, f"_{new_id()}.tmp")
    try:
        files.write_text(path, "")
        delete(path)
    except OSError as error:
        raise UsageError(f"{directory} cannot be written: {error.strerror or error}") from None


def exists(path: str) -> bool:
    """Whether there is a file or directory at a path of any file system."""
    from apache_beam.io.filesystems import FileSystems

    if FileSystems.get_scheme(path) is None:
        return FileSystems.exists(path)
    return FileSystems.exists(path) or bool(FileSystems.match([join(path, "**")], limits=[1])[0].metadata_list)


def list_names(directory: str) -> list[str]:
    """The names right in a directory of any file system, sorted; none where there is no such directory."""
    from apache_beam.io.filesystems import FileSystems

    if FileSystems.get_scheme(directory) is None:
        return sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    root = directory.rstrip("/") + "/"
    found = [each.path for match in FileSystems.match([root + "**"]) for each in match.metadata_list]
    return sorted({path[len(root) :].split("/")[0] for path in found})


def move(source: str, target: str) -> None:
    """Puts a directory in the place of another: a rename locally, object by object elsewhere."""
    from apache_beam.io.filesystems import FileSystems

    if not exists(source):
        return
    delete(target)
    if FileSystems.get_scheme(source) is None:
        _make(target.rsplit("/", 1)[0])
        FileSystems.rename([source], [target])
        return
    found = [m.path for match in FileSystems.match([join(source, "**")]) for m in match.metadata_list]
    FileSystems.rename(found, [target + path[len(source) :] for path in found])


def upload(local: str, target: str) -> None:
    """Puts a local directory to a path of any file system; where that is local too it is moved."""
    from apache_beam.io.filesystems import FileSystems

    if FileSystems.get_scheme(target) is None:
        _make(os.path.dirname(target))
        shutil.move(local, target)
        return
    for folder, _, names in os.walk(local):
        for name in names:
            path = os.path.join(folder, name)
            copy = join(target, os.path.relpath(path, local))
            with open(path, "rb") as source, FileSystems.create(copy, compression_type="uncompressed") as sink:
                shutil.copyfileobj(source, sink)


def new_id() -> str:
    """A name that nothing had before."""
    return uuid.uuid4().hex


def slug(path: str) -> str:
    """A short name made from a path, the same every time."""
    return hashlib.sha256(path.encode()).hexdigest()[:16]


def delete(path: str) -> None:
    """Deletes a file or directory where there is one."""
    from apache_beam.io.filesystems import FileSystems

    if FileSystems.get_scheme(path) is None:
        if os.path.lexists(path):
            FileSystems.delete([path])
        return
    found = [each.path for match in FileSystems.match([path, join(path, "**")]) for each in match.metadata_list]
    if found:
        FileSystems.delete(found)


def _make(directory: str) -> None:
    try:
        files.make_directory(directory)
    except OSError as error:
        raise UsageError(f"{directory} cannot be written: {error.strerror}") from None


def _worth_saying(record: logging.LogRecord) -> bool:
    # Beam says this of every transform with several named inputs or outputs, as its own style guide wants them.
    return "type hint will be ignored and not used for type-checking" not in str(record.msg)


logging.getLogger("apache_beam").setLevel(logging.ERROR)
# What fails in a step is raised as well, and told once.
logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
logging.getLogger().addFilter(_worth_saying)

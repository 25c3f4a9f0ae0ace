"""Checks for --erase: that the ids are in nothing that a run writes, and which other runs still have them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipelines.command_line.options import Options, RunError, UsageError
from pipelines.stage import runner
from pipelines.store import runs
from transforms.tables import files

if TYPE_CHECKING:
    from transforms.ingest.erasure import Erasure


def load(options: Options) -> "Erasure | None":
    """The erasure that the flag names; None where it is not given.

    Raises:
      UsageError: the file cannot be read, or has no id or too many.
    """
    if not options.erase:
        return None
    from transforms.ingest import erasure

    try:
        return erasure.find(options.erase)
    except ValueError as error:
        raise UsageError(f"--erase: {error}") from None


def find_holders(options: Options, directories: Iterable[str]) -> list[str]:
    """Those of some directories in which a table has an id of --erase; a pass over the columns with ids."""
    what = load(options)
    if what is None:  # most nights: then not even a file is listed
        return []
    import apache_beam as beam

    from transforms.ingest import erasure
    from transforms.tables import counts

    named = [(directory, path) for directory in directories for path in erasure.parquet_files(directory)]
    if not named:
        return []
    scratch = files.join(options.output, f"_erase-{files.new_id()}")
    try:
        with runner.new_pipeline(options) as root:
            found = root | "Files" >> beam.Create(named) | "FindErasedIds" >> erasure.FindErasedIds(what)
            _ = found | "WriteCounts" >> counts.WriteCounts(scratch)
        return sorted(counts.read_counts(scratch))
    finally:
        files.delete(scratch)


def other_holders(options: Options, directory: str) -> list[str]:
    """The names (in runs/) of what still has an id of --erase beside a run that has been made in a directory.

    Raises:
      RunError: the run itself has one.
    """
    everything = [runs.directory(options.output, name) for name in runs.all_directories(options.output)]
    holders = find_holders(options, everything)
    if directory in holders:
        raise RunError(f"not published: {directory} still has ids that --erase names; please report this")
    return [path.rsplit("/", 1)[1] for path in holders]


def advice(options: Options, holders: Iterable[str]) -> str:
    """Message that names the runs that still have erased ids and the command that removes them."""
    names = ", ".join(holders)
    return (
        f"runs that still have ids of --erase: {names}; "
        f"`fusefeed purge --output {options.output} --erase {options.erase}` removes them"
    )

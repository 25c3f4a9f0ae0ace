"""OUTPUT/runs: which runs there are, which of them are published, what LATEST names, and which may go.

A run is published when its manifest says so. The manifest is written when everything else is there and removed before
any of it changes: with it or without it, a reader never sees half a run.
"""

import datetime
import re

from pipelines.command_line.options import Options, UsageError
from transforms.tables import files

LATEST = "LATEST"
MANIFEST = "manifest.json"
RUNS = "runs"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def directory(output: str, name: str) -> str:
    """Where a run is."""
    return files.join(output, RUNS, name)


def names(output: str) -> list[str]:
    """The runs that there are, complete or not, oldest first."""
    return sorted({word for word in files.list_names(files.join(output, RUNS)) if _is_date(word)})


def all_directories(output: str) -> list[str]:
    """The names of all directories of runs, also of those that are being made to take another's place."""
    words = files.list_names(files.join(output, RUNS))
    return sorted(word for word in words if _is_date(word.removesuffix(NEXT)))


def _is_date(word: str) -> bool:
    try:
        return bool(_DATE.fullmatch(word) and datetime.date.fromisoformat(word))
    except ValueError:
        return False


def latest(output: str) -> str:
    """The run that LATEST names; "" where it names none."""
    path = files.join(output, LATEST)
    return files.read_text(path).strip() if files.exists(path) else ""


def is_published(output: str, name: str) -> bool:
    """True if a run is complete and passed the gate."""
    path = files.join(directory(output, name), MANIFEST)
    return files.exists(path) and bool(files.read_json(path).get("published"))


def last_before(output: str, name: str) -> str:
    """The newest published run that is older than this one; "" where there is none."""
    return next((each for each in reversed(names(output)) if each < name and is_published(output, each)), "")


def name_latest(output: str, name: str) -> str:
    """Lets LATEST name a run that has been published, unless it names a newer one. Returns what there is to say."""
    newest = latest(output)
    if newest > name and is_published(output, newest):
        return f"published, but {LATEST} still names {newest}, which is newer"
    files.write_text(files.join(output, LATEST), name + "\n")
    return ""


def withdraw(output: str, name: str) -> None:
    """Makes a run unpublished, before it changes: LATEST names the newest other run, or nothing where there is none."""
    if latest(output) == name:
        others = [each for each in names(output) if each != name and is_published(output, each)]
        if others:
            files.write_text(files.join(output, LATEST), others[-1] + "\n")
        else:
            files.delete(files.join(output, LATEST))
    for file in (MANIFEST, "metrics.json", "metrics.prom"):
        files.delete(files.join(directory(output, name), file))


def remove_old(output: str, keep: int, made: str) -> list[str]:
    """Removes what is older than the newest `keep` published runs; never the one just made, nor what LATEST names.

    Args:
      output: the output.
      keep: how many stay; 0: all.
      made: the run just made, be it ever so old.

    Returns: the names of the runs that are gone.
    """
    newest = latest(output)
    published = [name for name in names(output) if name <= newest and is_published(output, name)]
    if not keep or len(published) <= keep:
        return []
    first_kept = min(published[-keep], newest)
    gone = [name for name in names(output) if name < first_kept and name != made]
    for name in gone:
        remove(output, name)
    return gone


def remove(output: str, name: str) -> None:
    """Removes a run and its unfinished replacement."""
    for each in (name, name + NEXT):
        remove_directory(output, each)


def remove_directory(output: str, name: str) -> None:
    """Removes one directory of a run, the manifest first."""
    path = directory(output, name)
    files.delete(files.join(path, MANIFEST))
    if files.exists(path):
        doomed = files.join(output, RUNS, f"_removed-{files.new_id()}")
        files.move(path, doomed)
        files.delete(doomed)


# What is appended to the name of a published run's directory for the one in which it is made anew.
NEXT = ".next"


def run_dir(options: Options) -> str:
    """The directory of the run that the options name."""
    if not options.output:
        raise UsageError("--output is missing: the directory in which runs/ and LATEST are written")
    return files.join(options.output, "runs", options.run_name)

"""OUTPUT/runs: names of the runs, their publication, LATEST, and removal.

A run is published when its manifest says so. The manifest is written last and removed before anything of the run
changes, so a run with a manifest is complete.
"""

import datetime
import re

from pipelines.command_line.options import Options, UsageError
from transforms.tables import files

LATEST = "LATEST"
MANIFEST = "manifest.json"
RUNS = "runs"
# Suffix of the directory in which the replacement of a published run is made.
NEXT = ".next"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def directory(output: str, name: str) -> str:
    """Directory of a run."""
    return files.join(output, RUNS, name)


def names(output: str) -> list[str]:
    """Names of all runs, complete or not, oldest first."""
    return sorted({word for word in files.list_names(files.join(output, RUNS)) if _is_date(word)})


def all_directories(output: str) -> list[str]:
    """Names of all directories of runs, including replacements (`NEXT`) that are not in place yet."""
    words = files.list_names(files.join(output, RUNS))
    return sorted(word for word in words if _is_date(word.removesuffix(NEXT)))


def _is_date(word: str) -> bool:
    try:
        return bool(_DATE.fullmatch(word) and datetime.date.fromisoformat(word))
    except ValueError:
        return False


def latest(output: str) -> str:
    """Name of the run that LATEST names; "" if it names none."""
    path = files.join(output, LATEST)
    return files.read_text(path).strip() if files.exists(path) else ""


def is_published(output: str, name: str) -> bool:
    """True if a run is complete and passed the gate."""
    path = files.join(directory(output, name), MANIFEST)
    return files.exists(path) and bool(files.read_json(path).get("published"))


def last_before(output: str, name: str) -> str:
    """Name of the newest published run before this one; "" if there is none."""
    return next((each for each in reversed(names(output)) if each < name and is_published(output, each)), "")


def name_latest(output: str, name: str) -> str:
    """Lets LATEST name a published run, unless it names a newer one: then returns a message, otherwise ""."""
    newest = latest(output)
    if newest > name and is_published(output, newest):
        return f"published, but {LATEST} still names {newest}, which is newer"
    files.write_text(files.join(output, LATEST), name + "\n")
    return ""


def withdraw(output: str, name: str) -> None:
    """Unpublishes a run before it changes: LATEST names the newest other published run, or is deleted."""
    if latest(output) == name:
        others = [each for each in names(output) if each != name and is_published(output, each)]
        if others:
            files.write_text(files.join(output, LATEST), others[-1] + "\n")
        else:
            files.delete(files.join(output, LATEST))
    for file in (MANIFEST, "metrics.json", "metrics.prom"):
        files.delete(files.join(directory(output, name), file))


def remove_old(output: str, keep: int, made: str) -> list[str]:
    """Removes runs older than the newest `keep` published ones; never the run that LATEST names.

    Args:
      output: the output.
      keep: number of published runs to keep; 0: all.
      made: the run just made, which stays however old it is.

    Returns: the names of the removed runs.
    """
    newest = latest(output)
    published = [name for name in names(output) if name <= newest and is_published(output, name)]
    if not keep or len(published) <= keep:
        return []
    oldest = min(published[-keep], newest)
    old = [name for name in names(output) if name < oldest and name != made]
    for name in old:
        remove(output, name)
    return old


def remove(output: str, name: str) -> None:
    """Removes a run, and its unfinished replacement."""
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


def run_dir(options: Options) -> str:
    """Directory of the run that the options name."""
    if not options.output:
        raise UsageError("--output is missing: the directory in which runs/ and LATEST are written")
    return directory(options.output, options.run_name)

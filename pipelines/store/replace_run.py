"""A published run that is made again: beside itself, so that readers have the old tables until all new ones are there.

Locally the new run begins as a copy of the old one made of hard links (files are never changed in place, only
replaced), in runs/NAME.next; when it is published the two directories change places in one step. If it fails or is
refused, it stays there and the next run goes on with it. Object stores have neither links nor renames: there the run is
withdrawn first and made again in its own place; see `runs.withdraw`.
"""

import contextlib
import ctypes
import os
import shutil

from pipelines.store import runs
from transforms.tables import files

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def workplace(output: str, name: str) -> str:
    """The directory in which a run is made or changed, while no reader is looking there."""
    directory = runs.directory(output, name)
    if not (runs.is_published(output, name) or runs.latest(output) == name):
        runs.withdraw(output, name)
        return directory
    if not files.is_local(directory):
        runs.withdraw(output, name)
        return directory
    made = directory + runs.NEXT
    if files.exists(made):
        files.delete(files.join(made, runs.MANIFEST))
    else:
        clone(directory, made)
    return made


def clone(source: str, target: str) -> None:
    """A copy of a local run made of hard links, without its manifest; it appears whole."""
    temporary = files.join(os.path.dirname(source), f"_clone-{files.new_id()}")

    def ignore(folder: str, names: list[str]) -> list[str]:
        private = [name for name in names if name.startswith("_") and name != "_stages"]
        return [*private, runs.MANIFEST, "metrics.json", "metrics.prom"] if folder == source else []

    shutil.copytree(source, temporary, copy_function=_link, ignore=ignore)
    os.rename(temporary, target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def put_in_place(made: str, directory: str) -> None:
    """Puts a local run that was made beside the published one into its place, and removes the old one."""
    if not exchange(made, directory):
        # Without an exchange there is a moment without the run; `recover` puts it back should we be killed in it.
        doomed = files.join(os.path.dirname(directory), f"_removed-{files.new_id()}")
        os.rename(directory, doomed)
        os.rename(made, directory)
        made = doomed
    shutil.rmtree(made)


def exchange(one: str, two: str) -> bool:
    """Lets two directories change places in one step. Returns whether the system can (Linux, most file systems)."""
    with contextlib.suppress(OSError, AttributeError):
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        return rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(two), _RENAME_EXCHANGE) == 0
    return False


def recover(output: str) -> None:
    """Puts runs in place that were complete when a command was killed between two renames."""
    root = files.join(output, runs.RUNS)
    for name in files.list_names(root) if files.is_local(root) else ():
        directory = files.join(root, name.removesuffix(runs.NEXT))
        made = directory + runs.NEXT
        if name.endswith(runs.NEXT) and not os.path.exists(directory) and runs.is_published(output, name):
            os.rename(made, directory)


def discard(output: str, name: str) -> None:
    """Removes an unfinished replacement of a run."""
    if files.exists(runs.directory(output, name) + runs.NEXT):
        files.delete(runs.directory(output, name) + runs.NEXT)

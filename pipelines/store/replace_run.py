"""Replacement of a published run: the new one is made beside it, so that readers have the old tables until then.

Locally the new run starts in runs/NAME.next as a copy of the old one made of hard links (files are never changed in
place, only replaced); on publication the two directories are exchanged in one step. A replacement that fails or is
refused stays there, and the next run resumes it. Object stores have neither links nor renames: there the run is
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
    """Directory in which a run is made or changed: one that no reader uses."""
    directory = runs.directory(output, name)
    is_read = runs.is_published(output, name) or runs.latest(output) == name
    if not is_read or not files.is_local(directory):
        runs.withdraw(output, name)
        return directory
    made = directory + runs.NEXT
    if files.exists(made):
        files.delete(files.join(made, runs.MANIFEST))
    else:
        clone(directory, made)
    return made


def clone(source: str, target: str) -> None:
    """Copies a local run, by hard links, without its manifest and metrics; the copy appears whole."""
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
    """Replaces a published local run by the one made beside it, and removes the old one."""
    if not exchange(made, directory):
        # Without an exchange there is a moment without the run; `recover` puts it back should we be killed in it.
        doomed = files.join(os.path.dirname(directory), f"_removed-{files.new_id()}")
        os.rename(directory, doomed)
        os.rename(made, directory)
        made = doomed
    shutil.rmtree(made)


def exchange(one: str, two: str) -> bool:
    """Exchanges two directories in one step. Returns False if the system cannot (Linux can, on most file systems)."""
    with contextlib.suppress(OSError, AttributeError):
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        return rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(two), _RENAME_EXCHANGE) == 0
    return False


def recover(output: str) -> None:
    """Moves complete replacements into place whose command was killed between the two renames."""
    root = files.join(output, runs.RUNS)
    for name in files.list_names(root) if files.is_local(root) else ():
        directory = files.join(root, name.removesuffix(runs.NEXT))
        made = directory + runs.NEXT
        if name.endswith(runs.NEXT) and not os.path.exists(directory) and runs.is_published(output, name):
            os.rename(made, directory)


def discard(output: str, name: str) -> None:
    """Removes the replacement of a run."""
    if files.exists(runs.directory(output, name) + runs.NEXT):
        files.delete(runs.directory(output, name) + runs.NEXT)

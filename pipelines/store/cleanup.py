"""Removal of files left by killed commands, done by the next command once it has the lock of the output."""

import os
import re
import shutil
import tempfile

from pipelines.store import paths, replace_run, runs
from transforms.tables import files

_HEX = "[0-9a-f]{32}"
# Directories of stages and of removals, small files that were being written.
TEMPORARY = re.compile(rf"_[a-z]+-{_HEX}|_{_HEX}\.tmp")


def sweep(output: str) -> list[str]:
    """Removes temporary files and directories of dead commands. Returns their paths.

    The caller has the lock: nobody else is at work there.
    """
    if not files.is_local(output):
        found = [path for path in files.list_sizes(output) if any(map(TEMPORARY.fullmatch, path.split("/")))]
        for path in found:
            files.delete(files.join(output, path))
        return found + _sweep_local(output)
    replace_run.recover(output)
    root = files.join(output, runs.RUNS)
    inside = [files.join(root, name) for name in files.list_names(root) if not name.startswith("_")]
    folders = [output, root, *inside, *(files.join(run, "_stages") for run in inside)]
    found = [
        files.join(folder, name) for folder in folders for name in files.list_names(folder) if TEMPORARY.fullmatch(name)
    ]
    for path in found:
        files.delete(path)
    return found + _sweep_local(output)


def _sweep_local(output: str) -> list[str]:
    """Scratch directories on this machine."""
    root, prefix = tempfile.gettempdir(), paths.local_prefix(output)
    found = [os.path.join(root, name) for name in os.listdir(root) if name.startswith(prefix)]
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    return found

"""Removes the runs that still have ids which --erase names, published or not.

The run that LATEST names stays: make a newer one with the same --erase first (else exit code 1). Nothing is taken
out of the tables of a run: its vectors were made with what is to be forgotten, so it goes as a whole.

    fusefeed purge --output out --erase forget.txt
"""

import sys

from pipelines.command_line import console
from pipelines.command_line.options import Options, UsageError
from pipelines.continuity import erased_ids
from pipelines.store import cleanup, lock, runs


def purge(options: Options) -> int:
    """Removes every run that has an id of the erasure, but the one that LATEST names. Returns the exit code.

    Raises:
      UsageError: a flag is missing, or the file of ids cannot be read.
      RunError: another command is at work on the output.
    """
    for name in ("output", "erase"):
        if not getattr(options, name):
            raise UsageError(f"--{name} is missing")
    erased_ids.load(options)
    with lock.hold(options.output):
        cleanup.sweep(options.output)
        latest = runs.latest(options.output)
        found = {name: runs.directory(options.output, name) for name in runs.all_directories(options.output)}
        holders = set(erased_ids.find_holders(options, found.values()))
        for name, directory in found.items():
            if directory in holders and name != latest:
                runs.remove_directory(options.output, name)
                print(f"run {name} is removed")
    if latest and found.get(latest) in holders:
        print(
            f"fusefeed purge: {latest} has ids of --erase, but LATEST names it: run with --erase first", file=sys.stderr
        )
        return console.FAILED
    print("no run has an id of --erase")
    return console.DONE

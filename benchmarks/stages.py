"""Running stages and commands of fusefeed inside a benchmark, and measuring a command that is a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.process import ROOT

if TYPE_CHECKING:
    from pipelines.stage.reports import Report

COMMAND = (sys.executable, "-m", "pipelines.cli")


def execute(name: str, **flags: Any) -> "Report":
    """Runs one stage in this process, as its command does."""
    import importlib

    from pipelines.command_line.options import Options
    from pipelines.stage import execute as declaration

    return declaration.execute(importlib.import_module(f"pipelines.{name}").STAGE, Options(**flags))


def warm_up(tensorflow: bool = True) -> None:
    """Imports what every stage imports, and TensorFlow for those that use it: start-up is not what is measured."""
    import apache_beam  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    if tensorflow:
        from transforms.linalg import tensorflow_import

        tensorflow_import.import_tensorflow()


def timed(command: Sequence[str], code: int = 0) -> dict[str, Any]:
    """seconds, cpu_seconds and peak_bytes of a command (the memory without that of its children).

    Raises:
      RuntimeError: it ended with another exit code than `code`.
    """
    began = time.perf_counter()
    # To a file, not a pipe: a pipe that nobody reads would hold the command.
    with open(os.devnull, "w") as nothing:
        process = subprocess.Popen(command, stdout=nothing, stderr=subprocess.PIPE, cwd=ROOT, text=True)
        errors = process.stderr.read() if process.stderr else ""
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}, not {code}: {errors[-2000:]}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": peak}

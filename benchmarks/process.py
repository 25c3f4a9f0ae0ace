"""The processes that sides run in: started once, told to run one repetition after the other."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


class Unavailable(Exception):
    """A side cannot run here, for a reason that the message tells."""


class ChildFailed(Exception):
    """A process of the benchmark failed; the message ends with its last lines."""


def environment(threads: int) -> dict[str, str]:
    """The environment of every child: the same number of threads for all libraries, and no chatter."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "NONE"}
    return os.environ | quiet | {name: str(threads) for name in THREAD_VARIABLES} | {"PYTHONPATH": path}


class Child:
    """A process that holds one side; `run` gives what one repetition took.

    Raises:
      Unavailable: the side cannot run here.
      ChildFailed: it could not be started.
    """

    def __init__(self, benchmark: str, side: str, folder: Path, threads: int) -> None:
        self._name = f"{benchmark}, {side}"
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = _popen(("serve", benchmark, str(folder), side), threads, self._errors)
        reply = self._reply()
        if "skip" in reply:
            self.close()
            raise Unavailable(reply["skip"])

    def run(self) -> dict[str, Any]:
        """seconds, cpu_seconds, peak_bytes and facts of one repetition."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise ChildFailed(f"{self._name} failed: {_tail(self._errors)}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(30)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def call(words: Sequence[str], threads: int) -> dict[str, Any]:
    """What a child answers that does one thing and ends."""
    with tempfile.TemporaryFile() as errors:
        process = _popen(words, threads, errors)
        answer, _ = process.communicate()
        if not answer:
            raise ChildFailed(f"{' '.join(words[:2])} failed: {_tail(errors)}")
        reply: dict[str, Any] = json.loads(answer.splitlines()[-1])
        return reply


def _popen(words: Sequence[str], threads: int, errors: IO[bytes]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.child", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment(threads),
    )


def _tail(errors: IO[bytes], size: int = 3000) -> str:
    errors.seek(0)
    return errors.read()[-size:].decode(errors="replace").strip()

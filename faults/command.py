"""`fusefeed run` as a process of its own, watched by what it says, and killed at will."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 900.0


@dataclasses.dataclass(frozen=True)
class Done:
    """How a command ended: its exit code (negative: the signal), what it said, and the seconds that it took."""

    code: int
    stdout: str
    errors: tuple[str, ...]
    seconds: float

    @property
    def message(self) -> str:
        """The last thing that it said."""
        return self.errors[-1] if self.errors else ""


class Command:
    """A running `fusefeed` in a process group of its own.

    Args:
      words: what follows `fusefeed`.
      scratch: the directory for temporary files of this command alone, so that what it leaves there can be seen.
      prepare: called in the new process before fusefeed begins (to set limits).
    """

    def __init__(self, words: Sequence[str], scratch: Path, prepare: Callable[[], None] | None = None) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        environment: Mapping[str, str] = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)}
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
            preexec_fn=prepare,
        )
        self._errors: list[tuple[float, str]] = []
        self._stdout: list[str] = []
        self._readers = [threading.Thread(target=self._read_errors), threading.Thread(target=self._read_stdout)]
        for reader in self._readers:
            reader.start()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors.append((time.monotonic() - self._began, line.rstrip("\n")))

    def _read_stdout(self) -> None:
        assert self._process.stdout is not None
        self._stdout.append(self._process.stdout.read())

    def began(self) -> dict[str, float]:
        """When each stage began, in seconds since the command did, by what it says first of a stage: [3/6]."""
        return {line.split(" ")[0]: when for when, line in self._errors if line.startswith("[")}

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait_for(self, text: str) -> float:
        """Waits until it has said something with `text` in it, or has ended. Returns the seconds since it began."""
        while self.is_running() and time.monotonic() - self._began < PATIENCE:
            if any(text in line for _, line in self._errors):
                break
            time.sleep(0.005)
        return time.monotonic() - self._began

    def sleep(self, seconds: float) -> None:
        """Lets it work for so long, or until it ends."""
        until = time.monotonic() + seconds
        while self.is_running() and time.monotonic() < until:
            time.sleep(0.005)

    def kill(self) -> Done:
        """SIGKILL for it and the processes that it has started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        return self.finish()

    def finish(self) -> Done:
        """Waits for its end."""
        code = self._process.wait(PATIENCE)
        for reader in self._readers:
            reader.join()
        lines = tuple(line for _, line in self._errors)
        return Done(code, "".join(self._stdout), lines, time.monotonic() - self._began)


def run(words: Sequence[str], scratch: Path, prepare: Callable[[], None] | None = None) -> Done:
    """Runs a command to its end."""
    return Command(words, scratch, prepare).finish()

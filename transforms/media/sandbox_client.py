"""A worker's end of one decoder process: how it is started, asked, heard and ended."""

import contextlib
import dataclasses
import os
import queue
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any, NamedTuple

from transforms.media.decode import NO_MEMORY
from transforms.media.media_files import MediaLimits
from transforms.media.sandbox_protocol import BadMessageError, read_message, write_message
from transforms.media.shared_memory import SharedMedia

_PIPE_BYTES = 1 << 20
_LAST_WORDS = 1 << 16
# Of the environment, a decoder gets what Python needs to start, and no credentials.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT")
# glibc gives memory back after every picture and takes it again for the next one; kept, descriptors cost half as much.
_MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
# The names of what C++ and Python end a process with where memory runs out, as their last words tell them.
_NO_MEMORY = ((-signal.SIGABRT, b"std::bad_alloc"), (1, b"MemoryError"))

Answer = tuple[dict[str, Any], bytes]


class Asked(NamedTuple):
    """A file to be decoded: what it claims to be, and where it lies in the shared memory."""

    kind: str
    begin: int
    end: int


class DecoderChild:
    """A process that answers one file after the other. It ends with `close` and with this object.

    Its answers are taken as they come, so that it goes on while nobody waits for them, and never more than were asked
    for.

    Args:
      command: what is run.
      media: where the files lie.
      limits: what one file may cost.
      wanted: as of `decode.decode_medium`.

    Raises:
      RuntimeError: the process does not start.
    """

    def __init__(
        self, command: Sequence[str], media: SharedMedia, limits: MediaLimits, wanted: Mapping[str, bool]
    ) -> None:
        self.num_answers = 0
        self._limits, self._words = limits, b""
        self._errors, errors = os.pipe()
        os.set_blocking(self._errors, False)
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            pass_fds=(media.fd, errors),
        )
        os.close(errors)
        self.process = process
        self._answers: queue.SimpleQueue[Answer | BadMessageError | None] = queue.SimpleQueue()
        self._allowed = threading.Semaphore(0)
        self.close = weakref.finalize(self, _end, process, self._errors, self._allowed)
        assert process.stdin is not None and process.stdout is not None
        _widen(process.stdout.fileno())
        told = {"media": media.fd, "size": media.size, "errors": errors, "wanted": dict(wanted)}
        with contextlib.suppress(BrokenPipeError):
            write_message(process.stdin, {"limits": dataclasses.asdict(limits), **told})
            process.stdin.flush()
        if read_message(process.stdout, 0) is None:
            self.close()
            process.stdout.close()
            raise RuntimeError(f"the decoder process does not start (exit code {process.returncode})")
        arguments = (process.stdout, self._answers, self._allowed, _max_answer(limits, wanted))
        threading.Thread(target=_listen, args=arguments, daemon=True).start()

    def ask(self, files: Iterable[Asked]) -> None:
        """Sends it files to decode. If it has ended meanwhile, `answer` reports that."""
        process = self.process
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            for file in files:
                self._allowed.release()
                write_message(process.stdin, file._asdict())
            process.stdin.flush()
        # What libraries say about files that go well must not stand in the way of the last words.
        self._hear()

    def answer(self) -> Answer | None:
        """The next answer; None where the process has gone.

        Raises:
          BadMessageError: it makes no sense.
        """
        answer = self._answers.get()
        if isinstance(answer, BadMessageError):
            raise answer
        self.num_answers += answer is not None
        return answer

    def why_gone(self) -> tuple[str, str]:
        """The code and the message for the file that was being decoded when the process ended."""
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "decoder_crashed", "the decoder has closed its output"
        if code == -signal.SIGALRM:
            return "decoder_timeout", f"decoding takes more than {self._limits.max_decode_seconds:g} seconds"
        if code == -signal.SIGKILL:
            return "decoder_memory", "the system has ended the decoder (it does so when memory runs out)"
        self._hear()
        if any(code == ended and name in self._words for ended, name in _NO_MEMORY):
            return "decoder_memory", NO_MEMORY
        return "decoder_crashed", f"the decoder has ended with {signal.Signals(-code).name if code < 0 else code}"

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._words = (self._words + os.read(self._errors, _LAST_WORDS))[-_LAST_WORDS:]


def _listen(
    stream: IO[bytes],
    answers: "queue.SimpleQueue[Answer | BadMessageError | None]",
    allowed: threading.Semaphore,
    max_body: int,
) -> None:
    """Takes as many answers as there are files, until the process ends or says what makes no sense."""
    with stream:
        try:
            while allowed.acquire() and (answer := read_message(stream, max_body)) is not None:
                answers.put(answer)
            answers.put(None)
        except BadMessageError as error:
            answers.put(error)


def _max_answer(limits: MediaLimits, wanted: Mapping[str, bool]) -> int:
    """More bytes than the arrays of any file: descriptions, a sound of max_seconds, a picture."""
    sound = int(limits.max_seconds + 1) * 16_000 * 4 if "audio" in wanted else 0
    return (1 << 20) + sound + (16 << 20 if wanted.get("image") is False else 0)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    # Workers are processes already: no threads of numpy's.
    return kept | _MALLOC | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _widen(pipe: int) -> None:
    """Fewer turns between the two processes (Linux; a user may be denied it)."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _end(process: "subprocess.Popen[bytes]", errors: int, allowed: threading.Semaphore) -> None:
    """Ends a process, whatever it is doing, closes what leads to it and lets go of the thread that listens to it."""
    process.kill()
    process.wait()
    allowed.release()
    os.close(errors)
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()

"""Client of one decoder process: starts it, sends requests, receives responses, ends it."""

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
_MAX_STDERR = 1 << 16
# Of the environment, a decoder gets what Python needs to start, and no credentials.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT")
# glibc would return memory to the system after every picture: descriptors take twice as long then.
_MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
# Exit codes and names on standard error with which C++ and Python end a process where memory runs out.
_NO_MEMORY = ((-signal.SIGABRT, b"std::bad_alloc"), (1, b"MemoryError"))

Response = tuple[dict[str, Any], bytes]


class Request(NamedTuple):
    """A file to decode: its declared kind and its place in the shared memory."""

    kind: str
    begin: int
    end: int


class DecoderChild:
    """A process that decodes one file after the other. It ends with `close` and with this object.

    A thread reads its responses as they come, so that it never waits for the worker; at most one a request.

    Args:
      command: arguments of the process.
      media: shared memory with the files.
      limits: of one file.
      wanted: as of `decode.decode_medium`.

    Raises:
      RuntimeError: the process does not start.
    """

    def __init__(
        self, command: Sequence[str], media: SharedMedia, limits: MediaLimits, wanted: Mapping[str, bool]
    ) -> None:
        self.num_responses = 0
        self._limits, self._stderr = limits, b""
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
        self._responses: queue.SimpleQueue[Response | BadMessageError | None] = queue.SimpleQueue()
        self._allowed = threading.Semaphore(0)
        self.close = weakref.finalize(self, _end, process, self._errors, self._allowed)
        assert process.stdin is not None and process.stdout is not None
        _widen(process.stdout.fileno())
        memory = {"media": media.fd, "size": media.size, "errors": errors}
        settings = {"limits": dataclasses.asdict(limits), "wanted": dict(wanted), **memory}
        with contextlib.suppress(BrokenPipeError):
            write_message(process.stdin, settings)
            process.stdin.flush()
        if read_message(process.stdout, 0) is None:
            self.close()
            process.stdout.close()
            raise RuntimeError(f"the decoder process does not start (exit code {process.returncode})")
        arguments = (process.stdout, self._responses, self._allowed, _max_response(limits, wanted))
        threading.Thread(target=_listen, args=arguments, daemon=True).start()

    def send(self, requests: Iterable[Request]) -> None:
        """Sends requests. If the process has ended meanwhile, `receive` reports that."""
        process = self.process
        assert process.stdin is not None
        # Libraries also write to standard error about files that are decoded: only its end matters, and it needs room.
        self._read_stderr()
        with contextlib.suppress(BrokenPipeError):
            for request in requests:
                self._allowed.release()
                write_message(process.stdin, request._asdict())
            process.stdin.flush()

    def receive(self) -> Response | None:
        """The next response; None if the process has ended.

        Raises:
          BadMessageError: it is malformed.
        """
        response = self._responses.get()
        if isinstance(response, BadMessageError):
            raise response
        self.num_responses += response is not None
        return response

    def exit_reason(self) -> tuple[str, str]:
        """Reject code and message for the file that was being decoded when the process ended."""
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "decoder_crashed", "the decoder has closed its output"
        if code == -signal.SIGALRM:
            return "decoder_timeout", f"decoding takes more than {self._limits.max_decode_seconds:g} seconds"
        if code == -signal.SIGKILL:
            return "decoder_memory", "the system has ended the decoder (it does so when memory runs out)"
        self._read_stderr()
        if any(code == ended and name in self._stderr for ended, name in _NO_MEMORY):
            return "decoder_memory", NO_MEMORY
        return "decoder_crashed", f"the decoder has ended with {signal.Signals(-code).name if code < 0 else code}"

    def _read_stderr(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._stderr = (self._stderr + os.read(self._errors, _MAX_STDERR))[-_MAX_STDERR:]


def _listen(
    stream: IO[bytes],
    responses: "queue.SimpleQueue[Response | BadMessageError | None]",
    allowed: threading.Semaphore,
    max_body: int,
) -> None:
    """Reads one response a request, until the process ends or sends a malformed one."""
    with stream:
        try:
            while allowed.acquire() and (response := read_message(stream, max_body)) is not None:
                responses.put(response)
            responses.put(None)
        except BadMessageError as error:
            responses.put(error)


def _max_response(limits: MediaLimits, wanted: Mapping[str, bool]) -> int:
    """Upper bound on the bytes of one file's arrays: descriptions, a sound of max_seconds, a picture."""
    sound = int(limits.max_seconds + 1) * 16_000 * 4 if "audio" in wanted else 0
    return (1 << 20) + sound + (16 << 20 if wanted.get("image") is False else 0)


def _environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    # Workers are processes already: no threads of numpy's.
    return inherited | _MALLOC | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _widen(pipe: int) -> None:
    """Enlarges a pipe, for fewer switches between the two processes (Linux; a user may be denied it)."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _end(process: "subprocess.Popen[bytes]", errors: int, allowed: threading.Semaphore) -> None:
    """Kills a process, closes its pipes and releases the thread that reads its responses."""
    process.kill()
    process.wait()
    allowed.release()
    os.close(errors)
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()

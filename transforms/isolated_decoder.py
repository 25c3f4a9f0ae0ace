"""Decoding in a process of its own: a decoder that crashes, hangs or eats memory costs one file, not the worker."""

import collections
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from transforms.decode import Medium
from transforms.decoder_messages import BadMessageError, arrays_of, read_message, write_message
from transforms.media import MediaError, MediaLimits
from transforms.rejects import CODES

T = TypeVar("T")
Decoded = dict[str, np.ndarray]

COMMAND = (sys.executable, "-P", "-m", "transforms.decoder_process")
# A group ends with the file that makes it as long as this: few messages, and little that is held twice.
_GROUP_FILES, _GROUP_BYTES = 16, 8 << 20
# Decoders leak. A new process after so many files costs nothing to speak of (a third of a second).
_FILES_PER_PROCESS = 20_000
_PIPE_BYTES = 1 << 20
_MAX_TOLD = 200
# Of the environment, a decoder gets what Python needs to start, and no credentials.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT")

# glibc gives memory back after every picture and takes it again for the next one; kept, descriptors cost half as much.
_MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}


class _GoneError(Exception):
    """The process is gone: the code of what it was working on, and the message."""


class IsolatedDecoder:
    """Decodes media in a process that is started when it is first needed, and again whenever it ends.

    Not for several threads at once. The process ends with `close`, with this object, and with the worker's process,
    however that ends.

    Args:
      wanted: as of `decode.decode_medium`.
      limits: what one file may cost.
      command: what is run.
    """

    def __init__(self, wanted: Mapping[str, bool], limits: MediaLimits, command: Sequence[str] = COMMAND) -> None:
        self.num_started = 0
        self._wanted, self._limits, self._command = dict(wanted), limits, command
        self._process: subprocess.Popen[bytes] | None = None
        self._num_done = 0
        self._sent: collections.deque[Medium] = collections.deque()
        self._finalizer: Any = None

    def decode(self, media: Iterable[tuple[T, Medium | None]]) -> Iterator[tuple[T, Decoded | MediaError]]:
        """Each tag with the arrays of its medium or with why there are none, in their order.

        The next media are taken from the iterator (which reads files) while the process decodes. A medium that is None,
        or has no data, gives no array.

        Raises:
          RuntimeError: the process does not start.
        """
        waiting: list[tuple[T, Medium | None]] = []
        try:
            for group in _groups(media):
                # The next group is on its way before the process is done with the last one, which never waits so.
                self._send(_files(group))
                answered, waiting = waiting, group
                yield from self._finish(answered)
            answered, waiting = waiting, []
            yield from self._finish(answered)
        finally:
            if self._sent:
                # Answers are still to come that nobody will read.
                self.close()

    @property
    def pid(self) -> int | None:
        """The process's number, None where there is none."""
        process = self._process
        return process.pid if process is not None else None

    def close(self) -> None:
        """Ends the process."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._finalizer = None
        self._sent.clear()

    def _finish(self, group: Sequence[tuple[T, Medium | None]]) -> Iterator[tuple[T, Decoded | MediaError]]:
        # All answers before the first is given: whoever takes them may be long about it.
        results = iter([self._receive() for _ in _files(group)])
        for tag, medium in group:
            yield tag, next(results) if medium is not None and medium.data is not None else {}

    def _receive(self) -> Decoded | MediaError:
        """What became of the first file that has been sent and not been answered."""
        while True:
            try:
                result = self._answer()
                self._sent.popleft()
                self._num_done += 1
                if self._num_done >= _FILES_PER_PROCESS:
                    self._restart()
                return result
            except _GoneError as error:
                code, message = error.args
                is_own_fault = self._num_done == 0 or code == "decoder_timeout"
                if is_own_fault:
                    self._sent.popleft()
                # Otherwise the same file again, in a process that no earlier file has spoilt.
                self._restart()
                if is_own_fault:
                    return MediaError(code, message)

    def _answer(self) -> Decoded | MediaError:
        """The next answer.

        Raises:
          _GoneError: there is none, or not one of a process in its right mind.
        """
        process = self._process
        assert process is not None and process.stdout is not None
        try:
            message = read_message(process.stdout, _max_answer(self._limits))
            if message is None:
                raise _GoneError(*_why_gone(process, self._limits))
            head, body = message
            if "code" not in head:
                return arrays_of(head.get("arrays"), body)
        except BadMessageError as error:
            raise _GoneError("decoder_crashed", "the decoder's answer makes no sense") from error
        code, told = head["code"], str(head.get("message"))[:_MAX_TOLD]
        if code == "decoder_memory":
            raise _GoneError(code, told)
        if code not in CODES:
            raise _GoneError("decoder_crashed", "the decoder's answer makes no sense")
        return MediaError(code, told)

    def _send(self, files: Sequence[Medium]) -> None:
        self._sent.extend(files)
        self._write(files)

    def _restart(self) -> None:
        """Another process, for all that has been sent and not been answered."""
        left = tuple(self._sent)
        self.close()
        self._send(left)

    def _write(self, files: Sequence[Medium]) -> None:
        if not files:
            return
        process = self._process or self._start()
        assert process.stdin is not None
        # Where the process has gone meanwhile, reading its answer will tell.
        with contextlib.suppress(BrokenPipeError):
            for file in files:
                write_message(process.stdin, {"kind": file.kind}, file.data)
            process.stdin.flush()

    def _start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment())
        self._process, self._num_done = process, 0
        self._finalizer = weakref.finalize(self, _end, process)
        self.num_started += 1
        assert process.stdin is not None and process.stdout is not None
        for pipe in (process.stdin, process.stdout):
            _widen(pipe.fileno())
        with contextlib.suppress(BrokenPipeError):
            write_message(process.stdin, {"limits": dataclasses.asdict(self._limits), "wanted": self._wanted})
            process.stdin.flush()
        if read_message(process.stdout, 0) is None:
            self.close()
            raise RuntimeError(f"the decoder process does not start (exit code {process.returncode})")
        return process


def _groups(media: Iterable[tuple[T, Medium | None]]) -> Iterator[list[tuple[T, Medium | None]]]:
    group: list[tuple[T, Medium | None]] = []
    size = 0
    for tag, medium in media:
        group.append((tag, medium))
        size += len(medium.data) if medium is not None and medium.data is not None else 0
        if len(group) >= _GROUP_FILES or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _files(group: Iterable[tuple[Any, Medium | None]]) -> list[Medium]:
    return [medium for _, medium in group if medium is not None and medium.data is not None]


def _why_gone(process: "subprocess.Popen[bytes]", limits: MediaLimits) -> tuple[str, str]:
    """The code and the message for the file that was being decoded when the process ended."""
    try:
        code = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return "decoder_crashed", "the decoder has closed its output"
    if code == -signal.SIGALRM:
        return "decoder_timeout", f"decoding takes more than {limits.max_decode_seconds:g} seconds"
    if code == -signal.SIGKILL:
        return "decoder_memory", "the system has ended the decoder (it does so when memory runs out)"
    return "decoder_crashed", f"the decoder has ended with {signal.Signals(-code).name if code < 0 else code}"


def _max_answer(limits: MediaLimits) -> int:
    """More bytes than the arrays of any file: a sound of max_seconds, and a description or a picture."""
    return int(limits.max_seconds + 1) * 16_000 * 4 + (16 << 20)


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


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process, whatever it is doing, and closes what leads to it."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()

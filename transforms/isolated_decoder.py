"""Decoding in a process of its own: a decoder that crashes, hangs or eats memory costs one file, not the worker."""

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
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}


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
        self._finalizer: Any = None

    def decode(self, media: Iterable[tuple[T, Medium | None]]) -> Iterator[tuple[T, Decoded | MediaError]]:
        """Each tag with the arrays of its medium or with why there are none, in their order.

        The next media are taken from the iterator (which reads files) while the process decodes. A medium that is None,
        or has no data, gives no array.

        Raises:
          RuntimeError: the process does not start.
        """
        sent: list[tuple[T, Medium | None]] = []
        try:
            for group in _groups(media):
                answered, results = sent, self._receive(_files(sent))
                sent = group
                self._send(_files(sent))
                yield from _paired(answered, results)
            answered, sent = sent, []
            yield from _paired(answered, self._receive(_files(answered)))
        finally:
            if sent:
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

    def _receive(self, files: Sequence[Medium]) -> list[Decoded | MediaError]:
        """What became of files that have been sent."""
        results: list[Decoded | MediaError] = []
        while len(results) < len(files):
            try:
                results.append(self._answer())
                self._num_done += 1
            except _GoneError as error:
                code, message = error.args
                is_own_fault = self._num_done == 0 or code == "decoder_timeout"
                self.close()
                if is_own_fault:
                    results.append(MediaError(code, message))
                # Otherwise the same file again, in a process that no earlier file has spoilt.
                self._send(files[len(results) :])
        if self._num_done >= _FILES_PER_PROCESS:
            self.close()
        return results

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
        if not files:
            return
        process = self._process or self._start()
        assert process.stdin is not None
        # Where the process has gone meanwhile, reading its answer will tell.
        with contextlib.suppress(BrokenPipeError):
            write_message(process.stdin, {"files": len(files)})
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


def _paired(
    group: Sequence[tuple[T, Medium | None]], results: Sequence[Decoded | MediaError]
) -> Iterator[tuple[T, Decoded | MediaError]]:
    left = iter(results)
    for tag, medium in group:
        yield tag, next(left) if medium is not None and medium.data is not None else {}


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

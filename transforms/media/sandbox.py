"""Decoding in a process of its own: a decoder that crashes, hangs or eats memory costs one file, not the worker."""

import collections
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from transforms.media.decode import Medium
from transforms.media.media_files import MediaError, MediaLimits
from transforms.media.sandbox_client import Asked, DecoderChild
from transforms.media.sandbox_protocol import BadMessageError, arrays_of
from transforms.media.shared_memory import SharedMedia
from transforms.tables.rejects import CODES

T = TypeVar("T")
Decoded = dict[str, np.ndarray]

COMMAND = (sys.executable, "-P", "-m", f"{__package__}.sandbox_main")
# A group ends with the file that makes it as long as this: few messages, and little that is held twice.
_GROUP_FILES, _GROUP_BYTES = 16, 8 << 20
# Decoders leak. A new process after so many files costs nothing to speak of (a third of a second).
_FILES_PER_PROCESS = 20_000
_MAX_TOLD = 200


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
        self._media: SharedMedia | None = None
        self._child: DecoderChild | None = None
        self._sent: collections.deque[Asked] = collections.deque()

    def decode(self, media: Iterable[tuple[T, Medium | None]]) -> Iterator[tuple[T, Decoded | MediaError]]:
        """Each tag with the arrays of its medium or with why there are none, in their order.

        The next media are taken from the iterator (which reads files) while the process decodes. None gives no array.

        Raises:
          RuntimeError: the process does not start.
        """
        waiting: list[tuple[T, bool]] = []
        try:
            for group in _groups(media):
                # The next group is on its way before the process is done with the last one, which never waits so.
                self._send([medium for _, medium in group if medium is not None])
                answered, waiting = waiting, [(tag, medium is not None) for tag, medium in group]
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
        return self._child.process.pid if self._child is not None else None

    def close(self) -> None:
        """Ends the process."""
        self._end()
        if self._media is not None:
            self._media.close()
        self._media = None
        self._sent.clear()

    def _finish(self, group: Sequence[tuple[T, bool]]) -> Iterator[tuple[T, Decoded | MediaError]]:
        # All answers before the first is given: whoever takes them may be long about it.
        results = iter([self._receive() for _, is_sent in group if is_sent])
        for tag, is_sent in group:
            yield tag, next(results) if is_sent else {}

    def _receive(self) -> Decoded | MediaError:
        """Result for the first file sent and not yet answered."""
        while True:
            child = self._child
            assert child is not None
            num_done = child.num_answers
            try:
                result = self._answer(child)
                self._sent.popleft()
                if child.num_answers >= _FILES_PER_PROCESS:
                    self._restart()
                return result
            except _GoneError as error:
                code, message = error.args
                is_own_fault = num_done == 0 or code == "decoder_timeout"
                if is_own_fault:
                    self._sent.popleft()
                # Otherwise the same file again, in a process that no earlier file has spoilt.
                self._restart()
                if is_own_fault:
                    return MediaError(code, message)

    def _answer(self, child: DecoderChild) -> Decoded | MediaError:
        """The next answer.

        Raises:
          _GoneError: there is none, or not one of a process in its right mind.
        """
        try:
            answer = child.answer()
            if answer is None:
                raise _GoneError(*child.why_gone())
            head, body = answer
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
        if self._media is None:
            self._media = SharedMedia(_GROUP_BYTES + self._limits.max_bytes)
        places = self._media.put([file.data for file in files])
        asked = [Asked(file.kind, *place) for file, place in zip(files, places, strict=True)]
        self._sent.extend(asked)
        self._ask(asked)

    def _restart(self) -> None:
        """Another process, for all that has been sent and not been answered."""
        self._end()
        self._ask(tuple(self._sent))

    def _ask(self, files: Sequence[Asked]) -> None:
        if not files:
            return
        if self._child is None:
            assert self._media is not None
            self._child = DecoderChild(self._command, self._media, self._limits, self._wanted)
            self.num_started += 1
        self._child.ask(files)

    def _end(self) -> None:
        if self._child is not None:
            self._child.close()
        self._child = None


def _groups(media: Iterable[tuple[T, Medium | None]]) -> Iterator[list[tuple[T, Medium | None]]]:
    group: list[tuple[T, Medium | None]] = []
    size = 0
    for tag, medium in media:
        group.append((tag, medium))
        size += len(medium.data) if medium is not None else 0
        if len(group) >= _GROUP_FILES or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group

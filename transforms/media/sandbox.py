"""Decoding in a process of its own: a decoder that crashes, hangs or eats memory costs one file, not the worker."""

import collections
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from transforms.media.decode import Medium
from transforms.media.media_files import MediaError, MediaLimits
from transforms.media.sandbox_client import DecoderChild, Request
from transforms.media.sandbox_protocol import BadMessageError, arrays_of
from transforms.media.shared_memory import SharedMedia
from transforms.tables.rejects import CODES

T = TypeVar("T")
Decoded = dict[str, np.ndarray]

COMMAND = (sys.executable, "-P", "-m", f"{__package__}.sandbox_main")
# A group ends with the file that makes it this long: few messages, and few bytes held twice.
_GROUP_FILES, _GROUP_BYTES = 16, 8 << 20
# Decoders leak memory; a new process takes a third of a second.
_FILES_PER_PROCESS = 20_000
_MAX_MESSAGE = 200


class _GoneError(Exception):
    """The process has ended: reject code and message for the file that it was decoding."""


class IsolatedDecoder:
    """Decodes media in a process that is started when it is first needed, and again whenever it ends.

    Not for several threads at once. The process ends with `close`, with this object, and with the worker's process,
    however that ends.

    Args:
      wanted: as of `decode.decode_medium`.
      limits: of one file.
      command: arguments of the process.

    Example:
        decoder = IsolatedDecoder({"image": True}, MediaLimits())
        for name, result in decoder.decode([("a.jpg", Medium("image", data))]):
            vector = None if isinstance(result, MediaError) else result["image"]
    """

    def __init__(self, wanted: Mapping[str, bool], limits: MediaLimits, command: Sequence[str] = COMMAND) -> None:
        self.num_started = 0
        self._wanted, self._limits, self._command = dict(wanted), limits, command
        self._media: SharedMedia | None = None
        self._child: DecoderChild | None = None
        self._sent: collections.deque[Request] = collections.deque()

    def decode(self, media: Iterable[tuple[T, Medium | None]]) -> Iterator[tuple[T, Decoded | MediaError]]:
        """Each tag with the arrays of its medium or the error of decoding it, in their order.

        The next media are taken from the iterator (which reads files) while the process decodes. None gives no array.

        Raises:
          RuntimeError: the process does not start.
        """
        waiting: list[tuple[T, bool]] = []
        try:
            for group in _groups(media):
                # The next group is sent before the process is done with the last one, so that it never waits.
                self._send([medium for _, medium in group if medium is not None])
                answered, waiting = waiting, [(tag, medium is not None) for tag, medium in group]
                yield from self._finish(answered)
            answered, waiting = waiting, []
            yield from self._finish(answered)
        finally:
            if self._sent:
                # The caller has stopped early: these responses must not be taken for those of later files.
                self.close()

    @property
    def pid(self) -> int | None:
        """The id of the process, None if none is running."""
        return self._child.process.pid if self._child is not None else None

    def close(self) -> None:
        """Ends the process."""
        self._end()
        if self._media is not None:
            self._media.close()
        self._media = None
        self._sent.clear()

    def _finish(self, group: Sequence[tuple[T, bool]]) -> Iterator[tuple[T, Decoded | MediaError]]:
        # All are received before the first is given: the caller may take long over each.
        results = iter([self._receive() for _, is_sent in group if is_sent])
        for tag, is_sent in group:
            yield tag, next(results) if is_sent else {}

    def _receive(self) -> Decoded | MediaError:
        """Result of the first file that was sent and has no result yet."""
        while True:
            child = self._child
            assert child is not None
            num_done = child.num_responses
            try:
                result = self._result(child)
                self._sent.popleft()
                if child.num_responses >= _FILES_PER_PROCESS:
                    self._restart()
                return result
            except _GoneError as error:
                code, message = error.args
                # In a fresh process the file itself is to blame; else earlier ones may be, and it is tried again.
                is_own_fault = num_done == 0 or code == "decoder_timeout"
                if is_own_fault:
                    self._sent.popleft()
                self._restart()
                if is_own_fault:
                    return MediaError(code, message)

    def _result(self, child: DecoderChild) -> Decoded | MediaError:
        """The next response, checked.

        Raises:
          _GoneError: there is none, or it is malformed.
        """
        try:
            response = child.receive()
            if response is None:
                raise _GoneError(*child.exit_reason())
            head, body = response
            if "code" not in head:
                return arrays_of(head.get("arrays"), body)
        except BadMessageError as error:
            raise _GoneError("decoder_crashed", "the decoder's response is malformed") from error
        code, message = head["code"], str(head.get("message"))[:_MAX_MESSAGE]
        if code == "decoder_memory":
            raise _GoneError(code, message)
        if code not in CODES:
            raise _GoneError("decoder_crashed", "the decoder's response is malformed")
        return MediaError(code, message)

    def _send(self, files: Sequence[Medium]) -> None:
        if self._media is None:
            self._media = SharedMedia(_GROUP_BYTES + self._limits.max_bytes)
        places = self._media.put([file.data for file in files])
        requests = [Request(file.kind, *place) for file, place in zip(files, places, strict=True)]
        self._sent.extend(requests)
        self._request(requests)

    def _restart(self) -> None:
        """Starts another process for all files that have no result yet."""
        self._end()
        self._request(tuple(self._sent))

    def _request(self, requests: Sequence[Request]) -> None:
        if not requests:
            return
        if self._child is None:
            assert self._media is not None
            self._child = DecoderChild(self._command, self._media, self._limits, self._wanted)
            self.num_started += 1
        self._child.send(requests)

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

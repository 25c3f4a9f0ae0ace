"""Bytes of a split and its lines, with memory bounded by the chunk and the longest line allowed."""

import dataclasses
import itertools
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from transforms.ingest.input_files import FileSplit, count_lines
from transforms.tables.files import open_read

BOM = b"\xef\xbb\xbf"
READ_BYTES = 256 << 10
UNREADABLE = "the file is truncated or damaged here; the rest is lost"
_OPEN_QUOTE = ("row_malformed", "a quoted field does not end")
_WBITS_GZIP = 31
# Small files may have rows that are all alike.
_FREE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class LineLimits:
    """Limits on input.

    Attributes:
      max_line_bytes: longer rows are rejected.
      max_nesting: rows with objects and lists nested more deeply are rejected.
      max_gzip_ratio: where a .gz file unpacks to more than this times its size, the rest of it is rejected.
    """

    max_line_bytes: int = 8 << 20
    max_nesting: int = 64
    max_gzip_ratio: int = 200


def too_long(limits: LineLimits) -> str:
    """The message for a row beyond max_line_bytes."""
    return f"longer than {limits.max_line_bytes} bytes"


class DamagedError(Exception):
    """The rest of a file cannot be read, or is not: reject code and message."""

    def __init__(self, code: str = "file_unreadable", message: str = UNREADABLE) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A piece of a split.

    Attributes:
      data: whole lines or CSV records as bytes, or a batch of Parquet rows.
      first: the line or record (from 1) with which it begins.
      fault: reject code and message if the row at `first` cannot be read; there is no data then.
    """

    data: Any
    first: int
    fault: tuple[str, str] | None = None


def read_pieces(split: FileSplit, chunk_bytes: int, limits: LineLimits) -> Iterator[bytes]:
    """The bytes of a split of text, uncompressed and without a byte order mark, in pieces of about `chunk_bytes`.

    Raises:
      DamagedError: a gzip is cut off or damaged, or unpacks to too much; what came before has been given.
    """
    with open_read(split.file.path) as stream:
        pieces = (
            _gunzip(stream, chunk_bytes, limits.max_gzip_ratio)
            if split.file.gzipped
            else _plain(stream, split, chunk_bytes)
        )
        head = b""
        at_start = split.start == 0
        for piece in pieces:
            if at_start:
                head += piece
                if len(head) < len(BOM):
                    continue
                piece, at_start, head = head.removeprefix(BOM), False, b""
            yield piece
        if head:
            yield head


def _plain(stream: BinaryIO, split: FileSplit, chunk_bytes: int) -> Iterator[bytes]:
    stream.seek(split.start)
    left = split.end - split.start if split.end is not None else None
    while data := stream.read(chunk_bytes if left is None else min(chunk_bytes, left)):
        left = None if left is None else left - len(data)
        yield data


def _gunzip(stream: BinaryIO, chunk_bytes: int, max_ratio: int) -> Iterator[bytes]:
    """All members of a gzip, uncompressed, as long as they are at most `max_ratio` times what has been read."""
    member = zlib.decompressobj(_WBITS_GZIP)
    started = False
    allowed = _FREE_BYTES
    while data := stream.read(READ_BYTES):
        allowed += max_ratio * len(data)
        while data:
            if not started and not (data := data.lstrip(b"\0")):
                break
            started = True
            try:
                out = member.decompress(data, chunk_bytes)
            except zlib.error as error:
                raise DamagedError from error
            allowed -= len(out)
            _check_ratio(allowed, max_ratio)
            if out:
                yield out
            data = member.unconsumed_tail
            if member.eof:
                data, member, started = member.unused_data, zlib.decompressobj(_WBITS_GZIP), False
    # The rest inside the decompressor, which limits its output.
    while started and (out := member.decompress(member.unconsumed_tail, chunk_bytes)):
        allowed -= len(out)
        _check_ratio(allowed, max_ratio)
        yield out
    if started and not member.eof:
        raise DamagedError


def _check_ratio(allowed: int, max_ratio: int) -> None:
    if allowed < 0:
        raise DamagedError("gzip_ratio_exceeded", f"unpacks to more than {max_ratio} times its size; the rest is lost")


def last_line_end(data: bytes, at_end: bool) -> int:
    """Size of the whole lines at the beginning of the data; the last line of a file needs no newline."""
    return len(data) if at_end else data.rfind(b"\n") + 1


def read_chunks(
    split: FileSplit, chunk_bytes: int, limits: LineLimits, last_end: Callable[[bytes, bool], int] = last_line_end
) -> Iterator[Chunk]:
    """The lines of a split in chunks of about `chunk_bytes`, which end where `last_end` finds the end of a record.

    Where no record ends within `max_line_bytes` (row_too_long) or before the file does (row_malformed), one line is
    skipped with a fault, as is the place where a damaged file ends (file_unreadable, gzip_ratio_exceeded). Long lines
    inside a chunk are left to the parser.
    """
    line, held, skipping = split.first, b"", False
    pieces = ((piece, False) for piece in read_pieces(split, chunk_bytes, limits))
    try:
        for piece, at_end in itertools.chain(pieces, [(b"", True)]):
            if skipping:
                _, newline, piece = piece.partition(b"\n")
                line, skipping = line + len(newline), not newline
            held += piece
            while held:
                if cut := last_end(held, at_end):
                    data, held = held[:cut], held[cut:]
                    yield Chunk(data, line)
                    line += count_lines(data)
                if not held or (len(held) <= limits.max_line_bytes and not at_end):
                    break
                too_large = len(held) > limits.max_line_bytes
                yield Chunk(b"", line, ("row_too_long", too_long(limits)) if too_large else _OPEN_QUOTE)
                _, newline, held = held.partition(b"\n")
                line, skipping = line + len(newline), not newline
    except DamagedError as error:
        yield Chunk(b"", line, (error.code, error.message))


def is_utf8(data: bytes) -> bool:
    """True if the bytes are UTF-8."""
    try:
        pa.array([data], pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def line_bounds(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(first byte of each line, its newline or the end of the data): two of [num_lines] int64."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10)
    if data and data[-1:] != b"\n":
        ends = np.append(ends, len(data))
    return np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends, ends

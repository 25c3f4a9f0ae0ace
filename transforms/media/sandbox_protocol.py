"""Protocol between a worker and its decoder process: JSON of a stated length, then bytes of a stated length.

Nothing is unpickled on either side: a decoder that a broken file has taken over can send numbers, and nothing else.
"""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

_LENGTHS = struct.Struct("<IQ")
_MAX_HEAD = 1 << 16
# Types of the numbers of a sample or a description.
_TYPES = ("f4", "u1")
_MAX_AXES = 3


class BadMessageError(Exception):
    """A message is malformed."""


def write_message(stream: IO[bytes], head: Mapping[str, Any], *body: Any) -> None:
    """Writes a message (`body`: buffers, one after the other) without flushing the stream."""
    text = json.dumps(head).encode()
    parts = [memoryview(part).cast("B") for part in body if memoryview(part).nbytes]
    stream.write(_LENGTHS.pack(len(text), sum(len(part) for part in parts)) + text)
    for part in parts:
        stream.write(part)


def read_message(stream: IO[bytes], max_body: int) -> tuple[dict[str, Any], bytes] | None:
    """The next message: its head and its body of at most `max_body` bytes. None at the end of the stream.

    Raises:
      BadMessageError: it is no message, or one that is too long.
    """
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    head_size, body_size = _LENGTHS.unpack(lengths)
    if head_size > _MAX_HEAD or body_size > max_body:
        raise BadMessageError(f"a message of {head_size} and {body_size} bytes")
    text, body = stream.read(head_size), stream.read(body_size)
    if len(text) < head_size or len(body) < body_size:
        return None
    try:
        head = json.loads(text)
    except ValueError as error:
        raise BadMessageError("the head of a message is no JSON") from error
    if not isinstance(head, dict):
        raise BadMessageError("the head of a message is no object")
    return head, body


def describe_arrays(arrays: Mapping[str, np.ndarray]) -> list[list[Any]]:
    """[name, type, shape] of each array, for `arrays_of`."""
    return [[name, array.dtype.str[1:], list(array.shape)] for name, array in arrays.items()]


def arrays_of(described: Any, body: bytes) -> dict[str, np.ndarray]:
    """The arrays in a body by their description of `describe_arrays`, which need not be honest.

    Raises:
      BadMessageError: description and body do not agree.
    """
    found: dict[str, np.ndarray] = {}
    at = 0
    for name, kind, shape in _checked(described):
        size = math.prod(shape)
        if size * np.dtype(kind).itemsize > len(body) - at:
            raise BadMessageError("an array that is longer than the body")
        found[name] = np.frombuffer(body, kind, size, at).reshape(shape)
        at += found[name].nbytes
    if at != len(body):
        raise BadMessageError(f"arrays of {at} bytes in a body of {len(body)}")
    return found


def _checked(described: Any) -> Sequence[tuple[str, str, list[int]]]:
    if not isinstance(described, list):
        raise BadMessageError("no list of arrays")
    for entry in described:
        if not (isinstance(entry, list) and len(entry) == 3 and isinstance(entry[0], str) and entry[1] in _TYPES):
            raise BadMessageError("no array of a known type")
        shape = entry[2]
        if not (isinstance(shape, list) and 1 <= len(shape) <= _MAX_AXES):
            raise BadMessageError("no array of a known number of axes")
        if not all(type(length) is int and 0 < length < 1 << 32 for length in shape):
            raise BadMessageError("no array of a possible shape")
    return described

"""Lines of JSON -> rows. pyarrow parses whole chunks; only a chunk that it cannot take is read line by line."""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from transforms.ingest import json_line_reader, line_reader, timestamps
from transforms.ingest.canonical import Table
from transforms.ingest.line_reader import Chunk, LineLimits
from transforms.ingest.reader import ParsedRows, Reader
from transforms.ingest.row_errors import RowErrors
from transforms.tables import schemas

SAMPLE_LINES = 32
# pyarrow makes a column of every field name it meets, for every row of the chunk: fields that are data (ids as keys)
# would take all memory. Such chunks are read line by line.
MAX_FIELDS = 256
_LONG_LINE = 4096

_INFINITE = re.compile(rb"Inf(?:inity)?\s*[,}\]]")
_STRING, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_WORDS = {"list of str": pa.list_(_STRING), "list of int": pa.list_(_INT), "str": _STRING}
_DEFAULT = "default"
# role -> JSON type of the values -> the Arrow type in which pyarrow is asked to read them.
_TYPES: dict[str, dict[str, pa.DataType]] = {
    "key": {_DEFAULT: _STRING, "str": _STRING, "int": _INT},
    "id": {_DEFAULT: _STRING, "str": _STRING, "int": _INT},
    "time": {_DEFAULT: _STRING, "str": _STRING, "int": _INT, "float": _FLOAT},
    "text": {_DEFAULT: _STRING, "str": _STRING},
    "word": {_DEFAULT: _STRING, "str": _STRING},
    "flag": {_DEFAULT: _BOOL, "bool": _BOOL, "int": _INT, "str": _STRING},
    "number": {_DEFAULT: _FLOAT, "int": _FLOAT, "float": _FLOAT, "str": _STRING},
    "tags": {_DEFAULT: _WORDS["list of str"], **_WORDS},
    "phrases": {_DEFAULT: _WORDS["list of str"], **_WORDS},
    "ids": {_DEFAULT: _WORDS["list of str"], **_WORDS},
    "media": {
        _DEFAULT: pa.list_(schemas.MEDIA_ENTRY),
        "list of dict": pa.list_(schemas.MEDIA_ENTRY),
        "list of str": pa.list_(_STRING),
        "str": _STRING,
    },
}


class _NotPlainJsonError(Exception):
    """The chunk is not for pyarrow."""


@dataclasses.dataclass(frozen=True)
class _Lines:
    """The lines of a chunk that are not blank."""

    data: bytes
    numbers: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


class JsonReader(Reader):
    """Reads JSON lines."""

    def chunks(self, chunk_bytes: int) -> Iterator[Chunk]:
        """Whole lines."""
        return line_reader.read_chunks(self.split, chunk_bytes, self.limits)

    def parse(self, data: bytes, first: int) -> ParsedRows:
        """The rows, blank lines dropped; every line that is no row has an error."""
        utf8 = line_reader.is_utf8(data)
        try:
            return _parse_whole(self.table, _find_lines(data, first, self.limits, utf8))
        except (_NotPlainJsonError, pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
            return json_line_reader.parse(self.table, data, first, self.limits, utf8)


def _find_lines(data: bytes, first: int, limits: LineLimits, utf8: bool) -> _Lines:
    """The lines, if nothing about them is such that pyarrow takes it and JSON does not, or takes too much of it.

    Where every line begins with "{" and ends with "}" and there are as many objects as lines, each line is exactly one
    object: after a "}" the next "{" can only begin another document.
    """
    characters = np.frombuffer(data, np.uint8)
    if not utf8 or b"\0" in data or (_has_inf(characters) and _INFINITE.search(data)):
        raise _NotPlainJsonError
    starts, ends = line_reader.line_bounds(data)
    filled = ends > starts
    last = characters[ends - 1]
    returns = filled & (last == 13) & (ends - starts > 1)
    last = np.where(returns, characters[np.maximum(ends - 2, 0)], last)
    odd = np.flatnonzero(filled & ((characters[np.minimum(starts, len(data) - 1)] != ord("{")) | (last != ord("}"))))
    for line in odd:
        stripped = data[starts[line] : ends[line]].strip(json_line_reader.BLANK)
        if stripped and not (stripped.startswith(b"{") and stripped.endswith(b"}")):
            raise _NotPlainJsonError
        filled[line] = bool(stripped)
    numbers = first + np.flatnonzero(filled)
    found = _Lines(data, numbers, starts[filled], ends[filled])
    _check_sizes(found, characters, limits)
    return found


def _has_inf(characters: np.ndarray) -> bool:
    """True if "Inf" occurs anywhere; letter by letter, which takes a fraction of the time of a search in bytes."""
    places = np.flatnonzero(characters[:-2] == ord("I"))
    return bool(((characters[places + 1] == ord("n")) & (characters[places + 2] == ord("f"))).any())


def _check_sizes(found: _Lines, characters: np.ndarray, limits: LineLimits) -> None:
    lengths = found.ends - found.starts
    if (lengths > limits.max_line_bytes).any():
        raise _NotPlainJsonError
    # "[" is 0x5b and "{" is 0x7b: with bit 0x20 set, both are "{". More of them than levels allowed: look closely.
    opened = np.flatnonzero((characters | 0x20) == ord("{"))
    num_opened = np.searchsorted(opened, found.ends) - np.searchsorted(opened, found.starts)
    for line in np.flatnonzero(num_opened > limits.max_nesting):
        if json_line_reader.depth(found.data[found.starts[line] : found.ends[line]]) > limits.max_nesting:
            raise _NotPlainJsonError
    for line in np.flatnonzero(lengths > _LONG_LINE):
        if found.data.count(b'":', found.starts[line], found.ends[line]) > MAX_FIELDS:
            raise _NotPlainJsonError


def _parse_whole(table: Table, found: _Lines) -> ParsedRows:
    num_rows = len(found.numbers)
    if not num_rows:
        return ParsedRows({}, found.numbers, RowErrors(0))
    parsed = pa_json.read_json(
        pa.BufferReader(found.data),
        read_options=pa_json.ReadOptions(use_threads=False, block_size=len(found.data) + 1),
        parse_options=pa_json.ParseOptions(explicit_schema=_sniff(table, found), unexpected_field_behavior="infer"),
    )
    if parsed.num_rows != num_rows:
        raise _NotPlainJsonError
    known = {name: parsed.column(name).combine_chunks() for name in parsed.column_names if name in table.roles}
    for name, column in known.items():
        # An integer that was read as a double, because others are doubles, must not have lost digits.
        if table.roles[name] == "time" and column.type == _FLOAT:
            largest = pc.max(pc.abs(column)).as_py()
            if largest is not None and largest >= timestamps.INEXACT_FROM:
                raise _NotPlainJsonError
    unknown = [name for name in parsed.column_names if name not in table.roles]
    ignored = {name: rows for name in unknown if (rows := _num_filled(parsed.column(name)))}
    return ParsedRows(known, found.numbers, RowErrors(num_rows), ignored)


def _num_filled(column: pa.ChunkedArray) -> int:
    filled = len(column) - column.null_count
    if pa.types.is_floating(column.type):
        filled -= pc.sum(pc.is_nan(column)).as_py() or 0
    return int(filled)


def _sniff(table: Table, found: _Lines) -> pa.Schema:
    """The types in which pyarrow shall read the known fields, by some of the lines."""
    paths: set[str] = set()
    types: dict[str, set[str]] = {name: set() for name in table.roles}
    for line in np.linspace(0, len(found.numbers) - 1, min(SAMPLE_LINES, len(found.numbers))).astype(int):
        try:
            row = orjson.loads(found.data[found.starts[line] : found.ends[line]])
        except orjson.JSONDecodeError:
            raise _NotPlainJsonError from None
        _add_paths(row, "", paths)
        for name in table.roles.keys() & row.keys():
            types[name] |= _json_types(row[name])
    if len(paths) > MAX_FIELDS:
        raise _NotPlainJsonError
    return pa.schema([(name, _arrow_type(role, types[name])) for name, role in table.roles.items() if role in _TYPES])


def _arrow_type(role: str, found: set[str]) -> pa.DataType:
    choices = {_TYPES[role].get(name) for name in found or {_DEFAULT}}
    if choices == {_INT, _FLOAT}:
        choices = {_FLOAT}
    if None in choices or len(choices) > 1:
        raise _NotPlainJsonError
    return choices.pop()


def _json_types(value: object) -> set[str]:
    if value is None:
        return set()
    if isinstance(value, list):
        return {f"list of {type(item).__name__}" for item in value if item is not None}
    return {type(value).__name__}


def _add_paths(value: object, path: str, paths: set[str]) -> None:
    """Adds the names of all fields in a value, with those of the objects around them."""
    if isinstance(value, dict):
        for name, item in value.items():
            paths.add(f"{path}.{name}")
            _add_paths(item, f"{path}.{name}", paths)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict | list):
                _add_paths(item, path, paths)

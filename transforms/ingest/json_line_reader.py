"""JSON line by line, each parsed on its own: for chunks that pyarrow cannot take as a whole."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from transforms.ingest import line_reader, python_values
from transforms.ingest.canonical import Table, reject_values
from transforms.ingest.line_reader import LineLimits, too_long
from transforms.ingest.reader import ParsedRows
from transforms.ingest.row_errors import RowError, RowErrors

# White space of JSON, without the newline.
BLANK = b" \t\r"
# Possessive, and content with the end of the line in place of the quote: no byte is looked at twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_STRING_OR_NAN = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z))|\bNaN\b', re.DOTALL)


def parse(table: Table, data: bytes, first: int, limits: LineLimits, utf8: bool) -> ParsedRows:
    """The rows of whole lines, of which the first has the number `first`; `utf8`: all of them are UTF-8."""
    objects: list[dict[str, Any]] = []
    numbers: list[int] = []
    bad: list[tuple[int, str, str]] = []
    starts, ends = line_reader.line_bounds(data)
    for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True), first):
        line = data[start:end]
        if not line.strip(BLANK):
            continue
        try:
            objects.append(parse_line(line, limits, utf8))
        except RowError as error:
            bad.append((len(objects), *error.args))
            objects.append({})
        numbers.append(number)
    errors = RowErrors(len(objects))
    for row, code, message in bad:
        errors.reject_row(row, code, message)
    columns = {name: _column(table, objects, name, errors) for name in table.roles}
    return ParsedRows(columns, np.array(numbers, np.int64), errors, _count_unknown(objects, table))


def parse_line(line: bytes, limits: LineLimits, utf8: bool) -> dict[str, Any]:
    """The object in one line. NaN, which is no JSON but which Python writes, is read as null.

    Raises:
      RowError: there is none, or it is beyond the limits.
    """
    if len(line) > limits.max_line_bytes:
        raise RowError("row_too_long", too_long(limits))
    if not utf8:
        try:
            line.decode()
        except UnicodeDecodeError as error:
            raise RowError("encoding_invalid", f"byte {error.start + 1} of the line is not UTF-8") from None
    if line.count(b"[") + line.count(b"{") > limits.max_nesting and depth(line) > limits.max_nesting:
        raise RowError("row_too_deep", f"nested more than {limits.max_nesting} levels deep")
    try:
        value = _loads(line)
    except orjson.JSONDecodeError as error:
        raise RowError("row_malformed", f"no JSON: {error.msg} (character {error.pos + 1})") from None
    if not isinstance(value, dict):
        raise RowError("row_not_object", f"a JSON {type(value).__name__}, no object")
    return value


def _loads(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        if b"NaN" not in line:
            raise
        return orjson.loads(_STRING_OR_NAN.sub(lambda match: match[1] or b"null", line))


def depth(line: bytes) -> int:
    """Maximum nesting depth of objects and lists; brackets inside strings do not count."""
    bare = np.frombuffer(_STRING.sub(b"", line), np.uint8) | 0x20
    steps = (bare == ord("{")).astype(np.int64) - (bare == ord("}"))
    return int(np.cumsum(steps).max(initial=0))


def _column(table: Table, objects: Sequence[dict[str, Any]], name: str, errors: RowErrors) -> pa.Array:
    """One field of all objects in one type; rows whose value cannot be converted are rejected."""
    found = [row.get(name) for row in objects]
    convert, kind = python_values.ROLES[table.roles[name]]
    if pa.types.is_string(kind):
        try:
            return pa.array(found, kind)
        except (pa.ArrowTypeError, pa.ArrowInvalid):
            pass
    column, bad = python_values.to_array(found, convert, kind)
    reject_values(table, name, bad, errors)
    return column


def _count_unknown(objects: Sequence[dict[str, Any]], table: Table) -> dict[str, int]:
    counts: dict[str, int] = {}
    known = table.roles.keys()
    for row in objects:
        for name in row.keys() - known:
            if row[name] is not None:
                counts[name] = counts.get(name, 0) + 1
    return counts

"""Conversion of single values: for JSON lines that pyarrow cannot parse, and for JSON in cells of CSV.

Each function returns a value that the vectorized code (scalar_columns, timestamps, list_columns) reads as it reads the
original, so that a row gives the same result on every path. It raises ValueError for unusable values.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from transforms.tables import schemas

Value = Any
SEPARATORS = r"[\s,|;]+"
PHRASE_SEPARATORS = r"\s*[,|;]\s*"
MEDIA_LIST = pa.list_(schemas.MEDIA_ENTRY)
VECTORS = pa.map_(pa.string(), pa.list_(pa.float64()))
STRING_LIST = pa.list_(pa.string())


def id_text(value: Value) -> str:
    """An id as a string."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError
    if isinstance(value, float) and not (abs(value) < 2**53 and value == int(value)):
        raise ValueError
    return str(int(value))


def text(value: Value) -> str:
    """A text: a string and nothing else."""
    if not isinstance(value, str):
        raise ValueError
    return value


def number_text(value: Value) -> str:
    """A number or a string as a string that reads back as exactly that number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError
    return value if isinstance(value, str) else repr(value)


def flag_text(value: Value) -> str:
    """Yes or no as a string."""
    return str(value).lower() if isinstance(value, bool) else text(value) if isinstance(value, str) else id_text(value)


def string_list(value: Value, separators: str = SEPARATORS) -> list[str | None]:
    """A list of strings or whole numbers, a string with JSON of one, or a string of words with separators."""
    if isinstance(value, str):
        value = _json(value) if value.lstrip().startswith("[") else re.split(separators, value)
    if not isinstance(value, list):
        raise ValueError
    return [None if item is None else _whole(item) for item in value]


def phrase_list(value: Value) -> list[str | None]:
    """As `string_list`, but white space does not separate."""
    return string_list(value, PHRASE_SEPARATORS)


def _whole(value: Value) -> str:
    if isinstance(value, float):
        raise ValueError
    return id_text(value)


def media_list(value: Value) -> list[dict[str, str | None]]:
    """Media entries: a list of objects or URIs, one of them alone, or a string with JSON of that."""
    if isinstance(value, str):
        if not value.strip():
            return []
        value = _json(value) if value.lstrip()[0] in "[{" else [value]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise ValueError
    return [_entry(item) for item in value if item is not None]


def _entry(value: Value) -> dict[str, str | None]:
    if isinstance(value, str):
        return {"kind": None, "uri": value, "alt": None}
    if not isinstance(value, dict):
        raise ValueError
    entry = {name: value.get(name) for name in ("kind", "uri", "alt")}
    if any(not isinstance(item, str | None) for item in entry.values()):
        raise ValueError
    return entry


def vector_list(value: Value) -> list[tuple[str, list[float]]]:
    """Vectors by name, as pairs; null and empty ones are dropped."""
    if isinstance(value, str):
        value = _json(value) if value.strip() else {}
    if not isinstance(value, dict):
        raise ValueError
    return [(name, _vector(numbers)) for name, numbers in value.items() if numbers is not None and numbers != []]


def _vector(value: Value) -> list[float]:
    if not isinstance(value, list) or any(type(item) not in (int, float) for item in value):
        raise ValueError
    return [float(item) for item in value]


def _json(value: str) -> Value:
    return orjson.loads(value)


def to_array(
    values: Sequence[Value], convert: Callable[[Value], Value], kind: pa.DataType
) -> tuple[pa.Array, np.ndarray]:
    """Values one at a time: (array of `kind`, null where the value is bad; [n] bool: which are bad)."""
    converted: list[Value] = []
    bad = np.zeros(len(values), bool)
    for row, value in enumerate(values):
        try:
            converted.append(None if value is None else convert(value))
        except ValueError:
            converted.append(None)
            bad[row] = True
    return pa.array(converted, kind), bad


# Role of a column in canonical.TABLES -> conversion of mixed JSON values, and their Arrow type.
ROLES: Mapping[str, tuple[Callable[[Value], Value], pa.DataType]] = {
    "key": (id_text, pa.string()),
    "id": (id_text, pa.string()),
    "time": (number_text, pa.string()),
    "text": (text, pa.string()),
    "word": (text, pa.string()),
    "flag": (flag_text, pa.string()),
    "number": (number_text, pa.string()),
    "tags": (string_list, STRING_LIST),
    "phrases": (phrase_list, STRING_LIST),
    "ids": (string_list, STRING_LIST),
    "media": (media_list, MEDIA_LIST),
    "vectors": (vector_list, VECTORS),
}

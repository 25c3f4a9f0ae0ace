"""Columns of lists (hashtags, labels, ids, media, vectors) as readers find them -> canonical types.

Each function returns the column, null where a row has no entry, and a mask of the bad rows ([n] bool).
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.ingest import python_values, scalar_columns
from transforms.ingest.scalar_columns import Converted
from transforms.linalg import runs
from transforms.tables import blocks, schemas

VECTORS = pa.map_(pa.string(), pa.list_(pa.float32()))


def to_tags(column: pa.Array) -> Converted:
    """Hashtags: list<string> without "#", each once. In a string white space, "," "|" and ";" separate."""
    return _string_lists(column, python_values.SEPARATORS, strip="#")


def to_phrases(column: pa.Array) -> Converted:
    """Labels or interests: list<string>, each once. In a string "," "|" or ";" separate, white space does not."""
    return _string_lists(column, python_values.PHRASE_SEPARATORS)


def to_id_lists(column: pa.Array) -> Converted:
    """Ids: list<string>, each once; whole numbers become their digits."""
    lists, bad = _string_lists(column, python_values.SEPARATORS)
    bad_entries = scalar_columns.bad_ids(lists.values)
    if bad_entries.any():
        bad = bad | _any_entry(pc.list_parent_indices(lists), bad_entries, len(lists))
    return lists, bad


def _string_lists(column: pa.Array, separators: str, strip: str = "") -> Converted:
    num_rows = len(column)
    column, bad = _split_strings(column, separators)
    if not _is_list(column.type):
        return pa.nulls(num_rows, python_values.STRING_LIST), bad | blocks.valid(column)
    parents, entries = _entries(column)
    strings = None if pa.types.is_floating(entries.type) else scalar_columns.whole_numbers(entries)
    if strings is None:
        return pa.nulls(num_rows, python_values.STRING_LIST), bad | _any_entry(parents, blocks.valid(entries), num_rows)
    strings = pc.utf8_trim_whitespace(strings)
    if strip:
        strings = pc.utf8_trim_whitespace(pc.utf8_ltrim(strings, strip))
    filled = pc.fill_null(pc.greater(pc.binary_length(strings), 0), False).to_numpy(zero_copy_only=False)
    if not filled.all():
        parents, strings = parents[filled], strings.filter(pa.array(filled))
    return _lists(*_distinct(parents, strings), num_rows), bad


def _split_strings(column: pa.Array, separators: str) -> Converted:
    """Strings become lists; other columns stay."""
    bad = np.zeros(len(column), bool)
    if not pa.types.is_string(column.type):
        return column, bad
    if pc.any(pc.starts_with(pc.utf8_ltrim_whitespace(column), "[")).as_py():
        convert = (
            python_values.phrase_list if separators == python_values.PHRASE_SEPARATORS else python_values.string_list
        )
        return python_values.to_array(column.to_pylist(), convert, python_values.STRING_LIST)
    return pc.split_pattern_regex(column, separators), bad


def _distinct(parents: np.ndarray, strings: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """The first of equal entries of a row, in their order."""
    codes = strings.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    keys = parents * (len(strings) + 1) + codes
    if pc.count_distinct(pa.array(keys)).as_py() == len(keys):
        return parents, strings
    first = np.sort(np.unique(keys, return_index=True)[1])
    return parents[first], strings.take(pa.array(first))


def to_media(column: pa.Array) -> Converted:
    """Media: list<struct<kind, uri, alt>>, kinds in lower case. A string alone is a URI or JSON."""
    num_rows, bad = len(column), np.zeros(len(column), bool)
    if pa.types.is_string(column.type):
        column, bad = python_values.to_array(column.to_pylist(), python_values.media_list, python_values.MEDIA_LIST)
    if not _is_list(column.type):
        return pa.nulls(num_rows, python_values.MEDIA_LIST), bad | blocks.valid(column)
    parents, entries = _entries(column)
    present = blocks.valid(entries)
    if not present.all():
        parents, entries = parents[present], entries.filter(pa.array(present))
    if not (pa.types.is_struct(entries.type) or pa.types.is_string(entries.type) or not len(entries)):
        return pa.nulls(num_rows, python_values.MEDIA_LIST), bad | _any_entry(
            parents, np.ones(len(entries), bool), num_rows
        )
    fields = []
    for name in ("kind", "uri", "alt"):
        field, bad_field = scalar_columns.to_strings(_field(entries, name))
        bad = bad | _any_entry(parents, bad_field, num_rows)
        fields.append(field)
    fields[0] = pc.utf8_lower(scalar_columns.to_words(fields[0])[0])
    media = pa.StructArray.from_arrays(fields, fields=list(schemas.MEDIA_ENTRY))
    return _lists(parents, media, num_rows), bad


def _field(entries: pa.Array, name: str) -> pa.Array:
    if pa.types.is_string(entries.type):
        return entries if name == "uri" else pa.nulls(len(entries), pa.string())
    index = entries.type.get_field_index(name) if pa.types.is_struct(entries.type) else -1
    return pa.nulls(len(entries), pa.string()) if index < 0 else scalar_columns.plain(entries.field(index))


def to_vectors(column: pa.Array) -> Converted:
    """Supplied vectors: map<string, list<float32>>, names sorted. Null and empty vectors are dropped.

    A row is bad where one of its vectors has something else than finite float32 numbers.
    """
    num_rows, bad = len(column), np.zeros(len(column), bool)
    if pa.types.is_string(column.type):
        column, bad = python_values.to_array(column.to_pylist(), python_values.vector_list, python_values.VECTORS)
    if pa.types.is_struct(column.type):
        found = _vectors_of_struct(column)
    elif pa.types.is_map(column.type):
        found = _vectors_of_map(column)
    else:
        return pa.nulls(num_rows, VECTORS), bad | blocks.valid(column)
    pieces = []
    for parents, names, vectors in found:
        vectors, bad_vectors = _float_lists(vectors)
        bad = bad | _any_entry(parents, bad_vectors, num_rows)
        filled = pc.fill_null(pc.greater(pc.list_value_length(vectors), 0), False).to_numpy(zero_copy_only=False)
        pieces.append((parents[filled], names.filter(pa.array(filled)), vectors.filter(pa.array(filled))))
    return _maps(pieces, num_rows), bad


def _vectors_of_struct(column: pa.Array) -> list[tuple[np.ndarray, pa.Array, pa.Array]]:
    found = []
    for name, vectors in zip((field.name for field in column.type), column.flatten(), strict=True):
        rows = np.flatnonzero(blocks.valid(vectors))
        found.append(
            (rows, pa.array([name]).take(pa.array(np.zeros(len(rows), np.int64))), vectors.take(pa.array(rows)))
        )
    return found


def _vectors_of_map(column: pa.Array) -> list[tuple[np.ndarray, pa.Array, pa.Array]]:
    offsets = column.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = np.where(blocks.valid(column), np.diff(offsets), 0)
    parents = np.repeat(np.arange(len(column)), lengths)
    rows = pa.array(np.repeat(offsets[:-1], lengths) + runs.places_in(lengths))
    return [(parents, scalar_columns.plain(column.keys).take(rows), column.items.take(rows))]


def _float_lists(vectors: pa.Array) -> Converted:
    """list<float32> and which entries are no list of finite numbers."""
    nothing = pa.nulls(len(vectors), pa.list_(pa.float32()))
    present = blocks.valid(vectors)
    if not _is_list(vectors.type):
        return nothing, present
    parents, numbers = _entries(vectors)
    kind = numbers.type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not numeric:
        return nothing, _any_entry(parents, np.ones(len(numbers), bool), len(vectors))
    floats = numbers.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        narrow = floats.astype(np.float32)
    bad = _any_entry(parents, ~np.isfinite(narrow), len(vectors))
    return _lists(parents, pa.array(narrow), len(vectors)), bad


def _maps(pieces: Sequence[tuple[np.ndarray, pa.Array, pa.Array]], num_rows: int) -> pa.Array:
    if not pieces:
        return pa.nulls(num_rows, VECTORS)
    parents = np.concatenate([piece[0] for piece in pieces])
    names = pa.concat_arrays([piece[1] for piece in pieces])
    vectors = pa.concat_arrays([piece[2] for piece in pieces])
    encoded = names.dictionary_encode()
    ranks = np.argsort(np.argsort(encoded.dictionary.to_numpy(zero_copy_only=False).astype(str)))
    codes = ranks[encoded.indices.to_numpy(zero_copy_only=False)]
    order = np.lexsort((codes, parents))
    # A map with one name twice (Parquet allows it): the last one stands.
    keys = (parents * (len(encoded.dictionary) + 1) + codes)[order]
    order = order[np.append(keys[1:] != keys[:-1], True)] if len(keys) else order
    offsets, empty = _offsets(parents[order], num_rows)
    rows = pa.array(order)
    return pa.MapArray.from_arrays(
        pa.array(offsets, mask=np.append(empty, False)), names.take(rows), vectors.take(rows)
    )


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _entries(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """(the row of each entry [num_entries] int64, the entries of all rows one after another)."""
    parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False).astype(np.int64)
    return parents, scalar_columns.plain(pc.list_flatten(column))


def _any_entry(parents: np.ndarray | pa.Array, bad: np.ndarray, num_rows: int) -> np.ndarray:
    """Mask of the rows with a bad entry: [n] bool."""
    rows = np.zeros(num_rows, bool)
    rows[np.asarray(parents)[bad]] = True
    return rows


def _offsets(parents: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(parents, minlength=num_rows)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32), counts == 0


def _lists(parents: np.ndarray, entries: pa.Array, num_rows: int) -> pa.Array:
    """Entries with the rows they belong to (ascending) as lists, null where a row has none."""
    offsets, empty = _offsets(parents, num_rows)
    mask = pa.array(empty) if empty.any() else None
    return pa.ListArray.from_arrays(pa.array(offsets), entries, mask=mask)

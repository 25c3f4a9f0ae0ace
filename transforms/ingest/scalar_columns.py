"""Columns of single values as readers find them -> canonical types, each with a mask of the bad rows ([n] bool)."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.tables import blocks

MAX_ID_BYTES = 512

NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
Converted = tuple[pa.Array, np.ndarray]

_NO_KIND, _NO_KIND_BUT_VALUE = "view", "rating"
_TRUE, _FALSE = ("true", "1", "yes", "t"), ("false", "0", "no", "f", "")
_NULL_NUMBERS = ("", "nan", "null", "none")


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as one array without dictionaries, its strings as `string`."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column


def to_strings(column: pa.Array) -> Converted:
    """Texts: (string, what is there but no string)."""
    if pa.types.is_string(column.type):
        return column, np.zeros(len(column), bool)
    return pa.nulls(len(column), pa.string()), blocks.valid(column)


def to_words(column: pa.Array) -> Converted:
    """Short strings: as `to_strings`, with white space around them removed and "" as null."""
    strings, bad = to_strings(column)
    return none_if_empty(pc.utf8_trim_whitespace(strings)), bad


def none_if_empty(strings: pa.Array) -> pa.Array:
    """The strings with null in the place of ""."""
    empty = pc.equal(pc.binary_length(strings), 0)
    return pc.if_else(empty, None, strings) if pc.any(empty).as_py() else strings


def to_ids(column: pa.Array) -> Converted:
    """Ids: (string, what is no id). Whole numbers become their digits, exactly; "" is null.

    A float is an id if it is a whole number below 2^53 (integers with gaps become floats in pandas): beyond, floats do
    not distinguish neighbors.
    """
    strings = whole_numbers(column)
    if strings is None:
        return pa.nulls(len(column), pa.string()), blocks.valid(column)
    bad = blocks.valid(column) & ~blocks.valid(strings)
    strings = none_if_empty(strings)
    return strings, bad | bad_ids(strings)


def whole_numbers(column: pa.Array) -> pa.Array | None:
    """Strings and whole numbers as strings, null where a float is no whole number; None for other types."""
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_decimal(kind):
        column, kind = column.cast(pa.float64()), pa.float64()
    if not pa.types.is_floating(kind):
        return None
    values = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy(zero_copy_only=False)
    whole = (np.abs(values) < 2**53) & (values == np.rint(values))
    return pa.array(np.where(whole, values, 0).astype(np.int64), mask=~whole).cast(pa.string())


def bad_ids(strings: pa.Array) -> np.ndarray:
    """Mask of strings too long for an id or with control characters: [n] bool."""
    bad = pc.fill_null(pc.greater(pc.binary_length(strings), MAX_ID_BYTES), False).to_numpy(zero_copy_only=False)
    data, _ = blocks.string_buffers(strings)
    # Control characters are below space, DEL, and U+0080 to U+009F; the slow search is for who may have one.
    if len(data) and (data.min() < 0x20 or data.max() >= 0x7F):
        control = pc.match_substring_regex(strings, r"\p{Cc}")
        bad = bad | pc.fill_null(control, False).to_numpy(zero_copy_only=False)
    return bad


def to_flags(column: pa.Array) -> Converted:
    """Yes or no: (bool without nulls, what is neither). 0 and 1, "true" and "false" count, null is no."""
    kind = column.type
    if pa.types.is_boolean(kind):
        return pc.fill_null(column, False), np.zeros(len(column), bool)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        strings = whole_numbers(column)
    else:
        strings = pc.utf8_lower(pc.utf8_trim_whitespace(column)) if pa.types.is_string(kind) else None
    if strings is None:
        return pa.array(np.zeros(len(column), bool)), blocks.valid(column)
    yes = pc.is_in(strings, pa.array(_TRUE))
    known = pc.or_(yes, pc.is_in(strings, pa.array(_FALSE))).to_numpy(zero_copy_only=False)
    return yes, blocks.valid(column) & ~known


def to_numbers(column: pa.Array) -> Converted:
    """Numbers: (float64, what is no number or infinite). Numeric strings count; NaN and "" are null."""
    kind = column.type
    present = blocks.valid(column)
    bad = np.zeros(len(column), bool)
    if pa.types.is_string(kind):
        texts = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        texts = pc.if_else(pc.is_in(texts, pa.array(_NULL_NUMBERS)), None, texts)
        numeric = pc.fill_null(pc.match_substring_regex(texts, NUMBER), False)
        bad = blocks.valid(texts) & ~numeric.to_numpy(zero_copy_only=False)
        column = pc.utf8_ltrim(pc.if_else(numeric, texts, None), "+").cast(pa.float64())
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        column = column.cast(pa.float64(), safe=False)
    else:
        return pa.nulls(len(column), pa.float64()), present
    bad = bad | pc.fill_null(pc.is_inf(column), False).to_numpy(zero_copy_only=False)
    return pc.if_else(pc.is_nan(column), None, column), bad


def to_kinds(column: pa.Array, has_value: np.ndarray) -> Converted:
    """Kinds of interaction, lower case. Where it is missing: "rating" if there is a value, else "view"."""
    words, bad = to_words(column)
    missing = np.where(has_value, _NO_KIND_BUT_VALUE, _NO_KIND)
    return pc.coalesce(pc.utf8_lower(words), pa.array(missing, pa.string())), bad

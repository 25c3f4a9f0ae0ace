"""Terms of blocks of texts: `text.count_terms` of every row, with each distinct stretch between spaces read once.

`text.read_text` looks nowhere past white space, so that a text may be cut there: words that many posts have are read
once a block, and where they stand is counted by Arrow and numpy. Posts that come near a limit are read one by one.
"""

import functools
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.linalg.sparse import sorted_codes
from transforms.tables import blocks
from transforms.text import tokenizer

# What is worked on together.
MAX_ROWS = 65_536
MAX_BYTES = 16 << 20
# Distinct stretches whose terms are cached, and how long they may be for that.
_CACHED = 131_072
_CACHED_CHARACTERS = 40


def text_terms(
    texts: pa.Array, hashtags: pa.Array | None = None, alts: pa.Array | None = None
) -> tuple[pa.ListArray, pa.ListArray]:
    """The terms of posts (or of users, with `bio` as text and `interests` as hashtags).

    Args:
      texts: [n] string, nullable.
      hashtags: [n] list<string>, nullable, with or without "#"; words of an entry may be apart ("climate change").
      alts: [n] list<string>, nullable: descriptions of pictures, read like the text.

    Returns:
      text_terms: [n] list<string>, the distinct terms, sorted by code point; null where there is none.
      text_counts: [n] list<int32>, how often each occurs.
    """
    nothing = pa.nulls(len(texts), pa.list_(pa.string()))
    posts = pa.RecordBatch.from_arrays(
        [texts, nothing if hashtags is None else hashtags, nothing if alts is None else alts], list(_Posts._fields)
    )
    made = [_block_terms(_Posts(*rows.columns)) for rows in (list(_blocks(posts)) or [posts])]
    terms, counts = (pa.concat_arrays(pieces) for pieces in zip(*made, strict=True))
    return terms, counts


class _Posts(NamedTuple):
    texts: pa.StringArray
    hashtags: pa.ListArray
    alts: pa.ListArray


class _Values(NamedTuple):
    """Strings, none of them null, and the rows [m] int64 in which they stand."""

    rows: np.ndarray
    values: pa.StringArray


class _Occurrences(NamedTuple):
    """Where terms stand: [m] int64 rows and [m] int64 places in a list of terms."""

    rows: np.ndarray
    places: np.ndarray


def _blocks(posts: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Rows of at most MAX_BYTES together, if not a single one has more."""
    sizes = np.zeros(posts.num_rows, np.int64)
    for rows, values in _strings(_Posts(*posts.columns)):
        sizes += np.bincount(rows, pc.binary_length(values).to_numpy(), posts.num_rows).astype(np.int64)
    ends = np.cumsum(sizes)
    start = 0
    while start < posts.num_rows:
        fits = np.searchsorted(ends, ends[start] - sizes[start] + MAX_BYTES, "right") - start
        yield posts.slice(start, length := int(min(max(fits, 1), MAX_ROWS)))
        start += length


def _strings(posts: _Posts) -> tuple[_Values, _Values, _Values]:
    """Texts, hashtags and alts."""
    rows = np.flatnonzero(blocks.valid(posts.texts))
    return _Values(rows, posts.texts.drop_null()), _flatten(posts.hashtags), _flatten(posts.alts)


def _flatten(lists: pa.ListArray) -> _Values:
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    rows, values = np.repeat(np.arange(len(lists)), sizes), lists.flatten()
    if values.null_count:
        rows, values = rows[blocks.valid(values)], values.drop_null()
    return _Values(rows, values)


def _block_terms(posts: _Posts) -> tuple[pa.ListArray, pa.ListArray]:
    num_rows = len(posts.texts)
    strings = _strings(posts)
    alone = _characters(strings, num_rows) > tokenizer.MAX_CHARACTERS
    texts, hashtags, alts = (_without(values, alone) for values in strings)
    terms: list[str] = []
    (rows, places), doubtful = _read(_Values(*map(_join, zip(texts, alts, strict=True))), hashtags, terms)
    # Where there are more occurrences than a post may have terms, these may be too many.
    alone |= np.bincount(rows, minlength=num_rows) > tokenizer.MAX_TERMS
    alone[doubtful] = True
    counted = {
        int(row): tokenizer.count_terms(*(column[row].as_py() for column in posts)) for row in np.flatnonzero(alone)
    }
    num_read = len(terms)
    for found in counted.values():
        terms.extend(found)
    ranks, distinct = sorted_codes(pa.array(terms, pa.string()))
    kept = ~alone[rows]
    keys, counts = np.unique(rows[kept] * len(distinct) + ranks[places[kept]], return_counts=True)
    if counted:
        rows = np.repeat(np.array(list(counted)), [len(found) for found in counted.values()])
        keys = np.concatenate([keys, rows * len(distinct) + ranks[num_read:]])
        counts = np.concatenate([counts, [number for found in counted.values() for number in found.values()]])
        order = np.argsort(keys)
        keys, counts = keys[order], counts[order]
    return _as_lists(keys, counts, distinct, num_rows)


def _characters(strings: Iterable[_Values], num_rows: int) -> np.ndarray:
    """[num_rows] int64, or more than that where hashtags are longer than what is read of them."""
    sizes = np.zeros(num_rows, np.int64)
    for rows, values in strings:
        sizes += np.bincount(rows, pc.utf8_length(values).to_numpy(), num_rows).astype(np.int64)
    return sizes


def _without(strings: _Values, left_out: np.ndarray) -> _Values:
    if not left_out.any():
        return strings
    kept = ~left_out[strings.rows]
    return _Values(strings.rows[kept], strings.values.filter(pa.array(kept)))


def _join(pair: tuple[Any, Any]) -> Any:
    return np.concatenate(pair) if isinstance(pair[0], np.ndarray) else pa.concat_arrays(pair)


def _read(texts: _Values, hashtags: _Values, terms: list[str]) -> tuple[_Occurrences, np.ndarray]:
    """Every occurrence of a term (what it is is added to `terms`), and rows that have to be read alone."""
    stretches = _flatten(pc.ascii_split_whitespace(texts.values))
    encoded = stretches.values.dictionary_encode()
    codes, rows = encoded.indices.to_numpy(), texts.rows[stretches.rows]
    sizes: list[int] = []
    tags: list[tuple[str, ...]] = []
    tag_sizes: list[int] = []
    for stretch in encoded.dictionary.to_pylist():
        read = _read_short(stretch) if len(stretch) <= _CACHED_CHARACTERS else tokenizer.read_text(stretch)
        num_terms, num_tags = len(terms), len(tags)
        for one in read:
            if isinstance(one, str):
                terms.append(one)
            else:
                tags.append(one)
        sizes.append(len(terms) - num_terms)
        tag_sizes.append(len(tags) - num_tags)
    plain_occurrences = _expand(rows, codes, np.array(sizes, np.int64))
    in_texts = _expand(rows, codes, np.array(tag_sizes, np.int64))
    encoded = hashtags.values.dictionary_encode()
    in_lists = _Occurrences(hashtags.rows, encoded.indices.to_numpy() + len(tags))
    tags += [tokenizer.read_tag(tag) for tag in encoded.dictionary.to_pylist()]
    doubtful = _written_differently(in_texts, tags)
    first = _first_tags(_Occurrences(*map(_join, zip(in_texts, in_lists, strict=True))), tags)
    of_tags = _expand(first.rows, first.places, np.array([len(tag) for tag in tags], np.int64))
    of_tags = of_tags._replace(places=of_tags.places + len(terms))
    for tag in tags:
        terms += tag
    return _Occurrences(*map(_join, zip(plain_occurrences, of_tags, strict=True))), doubtful


@functools.lru_cache(_CACHED)
def _read_short(stretch: str) -> tuple[tokenizer.Read, ...]:
    return tuple(tokenizer.read_text(stretch))


def _first_tags(found: _Occurrences, tags: list[tuple[str, ...]]) -> _Occurrences:
    """The tags that say something, each once a row: the first of those whose first term is the same."""
    keys = _numbers(tag[0] if tag else "" for tag in tags)
    told = np.array([bool(tag) for tag in tags], bool)[found.places]
    rows, places = found.rows[told], found.places[told]
    _, first = np.unique(rows * len(tags) + keys[places], return_index=True)
    return _Occurrences(rows[first], places[first])


def _written_differently(found: _Occurrences, tags: list[tuple[str, ...]]) -> np.ndarray:
    """The rows that have a tag as #ClimateChange and as #climatechange: the stretches do not give their order."""
    keys, whole = _numbers(tag[0] if tag else "" for tag in tags), _numbers(tags)
    distinct = np.unique((found.rows * len(tags) + keys[found.places]) * len(tags) + whole[found.places])
    pairs = distinct // max(len(tags), 1)
    rows: np.ndarray = pairs[1:][pairs[1:] == pairs[:-1]] // max(len(tags), 1)
    return rows


def _numbers(values: Iterable[Hashable]) -> np.ndarray:
    """[n] int64, the same for the same values."""
    found: dict[Hashable, int] = {}
    return np.array([found.setdefault(value, len(found)) for value in values], np.int64)


def _expand(rows: np.ndarray, codes: np.ndarray, sizes: np.ndarray) -> _Occurrences:
    """Things [m] that stand in rows, thing `code` being `sizes[code]` ones of a list in which they stand in order."""
    starts = np.cumsum(sizes) - sizes
    number = sizes[codes]
    before = np.cumsum(number) - number
    places = np.arange(number.sum()) + np.repeat(starts[codes] - before, number)
    return _Occurrences(np.repeat(rows, number), places)


def _as_lists(
    keys: np.ndarray, counts: np.ndarray, terms: pa.StringArray, num_rows: int
) -> tuple[pa.ListArray, pa.ListArray]:
    """Both columns, of sorted keys (row * number of terms + place of the term) and counts."""
    rows, places = np.divmod(keys, max(len(terms), 1))
    offsets = np.searchsorted(rows, np.arange(num_rows + 1)).astype(np.int32)
    empty, starts = pa.array(np.diff(offsets) == 0), pa.array(offsets)
    columns = (terms.take(pa.array(places)), pa.array(counts.astype(np.int32)))
    listed, numbers = (pa.ListArray.from_arrays(starts, column, mask=empty) for column in columns)
    return listed, numbers

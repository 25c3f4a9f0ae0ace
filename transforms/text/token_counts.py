"""Terms of blocks of texts: `tokenizer.count_terms` of every row, with each distinct token between spaces read once.

No pattern of `tokenizer.read_text` matches across white space, so a text may be split there: words that occur in many
posts are read once a block, and their occurrences are counted by Arrow and numpy. Posts near a limit are read singly.
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

# Rows and bytes processed at a time.
MAX_ROWS = 65_536
MAX_BYTES = 16 << 20
# Number of distinct stretches without white space whose terms are cached, and their maximum length.
_CACHED = 131_072
_CACHED_CHARACTERS = 40


def text_terms(
    texts: pa.Array, hashtags: pa.Array | None = None, alts: pa.Array | None = None
) -> tuple[pa.ListArray, pa.ListArray]:
    """The terms of posts (or of users, with `bio` as text and `interests` as hashtags).

    Args:
      texts: [n] string, nullable.
      hashtags: [n] list<string>, nullable, with or without "#"; an entry may have several words ("climate change").
      alts: [n] list<string>, nullable: descriptions of pictures, read like the text.

    Returns:
      text_terms: [n] list<string>, the distinct terms, sorted by code point; null where there is none.
      text_counts: [n] list<int32>, the count of each.
    """
    nulls = pa.nulls(len(texts), pa.list_(pa.string()))
    posts = pa.RecordBatch.from_arrays(
        [texts, nulls if hashtags is None else hashtags, nulls if alts is None else alts], list(_Posts._fields)
    )
    made = [_block_terms(_Posts(*rows.columns)) for rows in (list(_blocks(posts)) or [posts])]
    terms, counts = (pa.concat_arrays(pieces) for pieces in zip(*made, strict=True))
    return terms, counts


class _Posts(NamedTuple):
    texts: pa.StringArray
    hashtags: pa.ListArray
    alts: pa.ListArray


class _Values(NamedTuple):
    """Non-null strings and the row [m] int64 of each."""

    rows: np.ndarray
    values: pa.StringArray


class _Occurrences(NamedTuple):
    """Occurrences of terms: [m] int64 rows and [m] int64 positions in a list of terms."""

    rows: np.ndarray
    places: np.ndarray


def _blocks(posts: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Slices of at most MAX_BYTES, or of one row."""
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
    # More occurrences than a post may have terms: possibly too many distinct ones.
    alone |= np.bincount(rows, minlength=num_rows) > tokenizer.MAX_TERMS
    alone[doubtful] = True
    counted = {
        int(row): tokenizer.count_terms(*(column[row].as_py() for column in posts)) for row in np.flatnonzero(alone)
    }
    num_read = len(terms)
    for found in counted.values():
        terms.extend(found)
    ranks, distinct = sorted_codes(pa.array(terms, pa.string()))
    together = ~alone[rows]
    keys, counts = np.unique(rows[together] * len(distinct) + ranks[places[together]], return_counts=True)
    if counted:
        rows = np.repeat(np.array(list(counted)), [len(found) for found in counted.values()])
        keys = np.concatenate([keys, rows * len(distinct) + ranks[num_read:]])
        counts = np.concatenate([counts, [number for found in counted.values() for number in found.values()]])
        order = np.argsort(keys)
        keys, counts = keys[order], counts[order]
    return _as_lists(keys, counts, distinct, num_rows)


def _characters(strings: Iterable[_Values], num_rows: int) -> np.ndarray:
    """[num_rows] int64, an upper bound: of long hashtags only the start is read."""
    sizes = np.zeros(num_rows, np.int64)
    for rows, values in strings:
        sizes += np.bincount(rows, pc.utf8_length(values).to_numpy(), num_rows).astype(np.int64)
    return sizes


def _without(strings: _Values, dropped_rows: np.ndarray) -> _Values:
    if not dropped_rows.any():
        return strings
    selected = ~dropped_rows[strings.rows]
    return _Values(strings.rows[selected], strings.values.filter(pa.array(selected)))


def _join(pair: tuple[Any, Any]) -> Any:
    return np.concatenate(pair) if isinstance(pair[0], np.ndarray) else pa.concat_arrays(pair)


def _read(texts: _Values, hashtags: _Values, terms: list[str]) -> tuple[_Occurrences, np.ndarray]:
    """Every occurrence of a term (new terms are appended to `terms`), and the rows that have to be read alone."""
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
    """Tags with terms, each once a row: the first of those with the same first term."""
    keys = _numbers(tag[0] if tag else "" for tag in tags)
    nonempty = np.array([bool(tag) for tag in tags], bool)[found.places]
    rows, places = found.rows[nonempty], found.places[nonempty]
    _, first = np.unique(rows * len(tags) + keys[places], return_index=True)
    return _Occurrences(rows[first], places[first])


def _written_differently(found: _Occurrences, tags: list[tuple[str, ...]]) -> np.ndarray:
    """Rows that have a tag both as #ClimateChange and as #climatechange: distinct stretches do not preserve order."""
    keys, whole = _numbers(tag[0] if tag else "" for tag in tags), _numbers(tags)
    distinct = np.unique((found.rows * len(tags) + keys[found.places]) * len(tags) + whole[found.places])
    pairs = distinct // max(len(tags), 1)
    rows: np.ndarray = pairs[1:][pairs[1:] == pairs[:-1]] // max(len(tags), 1)
    return rows


def _numbers(values: Iterable[Hashable]) -> np.ndarray:
    """Codes of values, equal for equal values: [n] int64."""
    found: dict[Hashable, int] = {}
    return np.array([found.setdefault(value, len(found)) for value in values], np.int64)


def _expand(rows: np.ndarray, codes: np.ndarray, sizes: np.ndarray) -> _Occurrences:
    """Occurrences of the items of groups: group `code` has the next `sizes[code]` items of a list, in order of code."""
    starts = np.cumsum(sizes) - sizes
    number = sizes[codes]
    before = np.cumsum(number) - number
    places = np.arange(number.sum()) + np.repeat(starts[codes] - before, number)
    return _Occurrences(np.repeat(rows, number), places)


def _as_lists(
    keys: np.ndarray, counts: np.ndarray, terms: pa.StringArray, num_rows: int
) -> tuple[pa.ListArray, pa.ListArray]:
    """Both columns, from sorted keys (row * number of terms + position of the term) and counts."""
    rows, places = np.divmod(keys, max(len(terms), 1))
    offsets = np.searchsorted(rows, np.arange(num_rows + 1)).astype(np.int32)
    empty, starts = pa.array(np.diff(offsets) == 0), pa.array(offsets)
    columns = (terms.take(pa.array(places)), pa.array(counts.astype(np.int32)))
    listed, numbers = (pa.ListArray.from_arrays(starts, column, mask=empty) for column in columns)
    return listed, numbers

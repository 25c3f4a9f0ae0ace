"""Exclusions: pairs of a user and a post that must not be recommended, such as seen posts."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.linalg import runs
from transforms.search.catalog import Tile
from transforms.tables import blocks


class Exclusions:
    """Pairs (query, post) and (query, author) that may not be recommended.

    Args:
      post_query: [p] int64, the query that each of `post_id` (string) is excluded for.
      author_query: [a] int64, likewise for `author_id`.
    """

    def __init__(
        self, post_query: np.ndarray, post_id: pa.Array, author_query: np.ndarray, author_id: pa.Array
    ) -> None:
        self._by_post = _PairsById(post_query, post_id)
        self._author_query, self._author_code, self._author_ids = _encode_pairs(author_query, author_id)

    @staticmethod
    def none() -> "Exclusions":
        """Nothing is excluded."""
        nothing, strings = np.empty(0, np.int64), pa.array([], pa.string())
        return Exclusions(nothing, strings, nothing, strings)

    def in_tile(self, tile: Tile) -> "TileExclusions":
        """The pairs that meet a tile."""
        author = _positions(tile.author_id, self._author_ids)
        by_author = np.argsort(author, kind="stable")
        starts = np.searchsorted(author[by_author], np.arange(len(self._author_ids) + 1))
        wrote = np.diff(starts)[self._author_code] > 0
        return TileExclusions(
            *self._by_post.met(tile.post_id),
            self._author_query[wrote],
            self._author_code[wrote],
            by_author,
            starts,
        )


@dataclasses.dataclass(frozen=True)
class TileExclusions:
    """Exclusions of one tile; both lists are sorted by query."""

    post_query: np.ndarray
    post_column: np.ndarray
    author_query: np.ndarray
    author_code: np.ndarray
    by_author: np.ndarray
    starts: np.ndarray

    def pairs(self, rows: np.ndarray, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Excluded pairs of these queries ([n] int64, ascending) and these columns of the tile.

        Returns ([m] place in `rows`, [m] column of the tile), by column.
        """
        start, stop = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
        low, high = np.searchsorted(self.post_query, [start, stop])
        query, column = self.post_query[low:high], self.post_column[low:high]
        low, high = np.searchsorted(self.author_query, [start, stop])
        codes = self.author_code[low:high]
        if len(codes):
            pair, members = _members(self.starts, codes)
            query = np.concatenate([query, self.author_query[low:high][pair]])
            column = np.concatenate([column, self.by_author[members]])
        inside = (column >= columns.start) & (column < columns.stop)
        query, column = query[inside], column[inside]
        place = np.searchsorted(rows, query)
        present = rows[place] == query
        place, column = place[present], column[present]
        order = np.argsort(column, kind="stable")
        return place[order], column[order]


class _PairsById:
    """Index of pairs (query, id) by id.

    Args:
      query: [p] int64.
      ids: [p] string; pairs with a null id are dropped.
    """

    def __init__(self, query: np.ndarray, ids: pa.Array) -> None:
        query, codes, self._ids = _encode_pairs(query, ids)
        by_code = np.argsort(codes, kind="stable")
        self._query = query[by_code]
        self._starts = np.searchsorted(codes[by_code], np.arange(len(self._ids) + 1))
        hashes = blocks.stable_hash(self._ids)
        self._code = np.argsort(hashes)
        self._hash = hashes[self._code]
        # Ids with equal hashes can be made on purpose.
        self._distinct = bool((self._hash[1:] != self._hash[:-1]).all())

    def met(self, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of these ids, each once among them: ([m] query, [m] place in `ids`), by query."""
        place, code = self._find(ids)
        found, members = _members(self._starts, code)
        query, place = self._query[members], place[found]
        order = np.argsort(query, kind="stable")
        return query[order], place[order]

    def _find(self, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Places and codes of those `ids` that have pairs: ([m] place, [m] code)."""
        if not self._distinct or not len(self._hash):
            code = _positions(ids, self._ids)
            place = np.flatnonzero(code >= 0)
            return place, code[place]
        hashes = blocks.stable_hash(ids)
        nearest = np.minimum(np.searchsorted(self._hash, hashes), len(self._hash) - 1)
        place = np.flatnonzero(self._hash[nearest] == hashes)
        code = self._code[nearest[place]]
        same = pc.equal(ids.take(pa.array(place)), self._ids.take(pa.array(code)))
        same = pc.fill_null(same, False).to_numpy(zero_copy_only=False)
        return place[same], code[same]


def _members(starts: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All members of some groups: ([m] place in `codes`, [m] place among the members of all groups).

    Args:
      starts: [num_groups + 1] int64, start of each group.
    """
    sizes = starts[codes + 1] - starts[codes]
    return np.repeat(np.arange(len(codes)), sizes), np.repeat(starts[codes], sizes) + runs.places_in(sizes)


def _encode_pairs(query: np.ndarray, ids: pa.Array) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """(query sorted, code of each id, the ids in the order of their codes); pairs with a null id are dropped."""
    known = blocks.valid(ids)
    encoded = ids.drop_null().dictionary_encode()
    query = np.asarray(query, np.int64)[known]
    order = np.argsort(query, kind="stable")
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return query[order], codes[order], encoded.dictionary


def _positions(ids: pa.Array, among: pa.Array) -> np.ndarray:
    """Position of each id in `among`: [n] int64, -1 if absent or null."""
    found = pc.index_in(ids, value_set=among, skip_nulls=True)
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)

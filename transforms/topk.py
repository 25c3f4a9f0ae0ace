"""Primitive 3, top-K: blocks of queries times tiles of posts, one matrix product a tile, only what can win is kept.

The tiles are streamed, so memory does not grow with the catalogue. A float32 product finds what can be among the k
best (what is nearer to the k-th score than float32 errs stays), and the survivors' scores are computed anew in float64
and rounded to float32. So neither the sizes of tiles and blocks nor the library that multiplies shows in the result.
"""

import concurrent.futures
import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from transforms import blas, blocks, pruning, selection
from transforms.kept import Kept, author_codes
from transforms.tiles import Eligibility, Exclusions, Tile, TileExclusions

TILE_ROWS = 8192
_QUERY_ROWS = 512
# The scores of so many posts at once stay in the processor's cache until they have been looked through.
_COLUMNS = 512
# Pending entries are merged when there are so many for every one that is held; the exact share hardly matters.
_MERGE_SHARE = 0.5
# Bounds from few numbers pay from so many queries on; they are chosen anew when so many times as much has been scanned.
_PRUNED_QUERIES = 1024
_CHOOSE_AGAIN = 4
# So that what is gathered for a product in float64 stays in the processor's cache.
_RESCORED_AT_ONCE = 512


@dataclasses.dataclass(frozen=True)
class Ranked:
    """The posts of every query, by query and rank.

    Attributes:
      query: [m] int64, ascending.
      rank: [m] int32, from 1 without gaps within a query.
      score: [m] float32, the inner product; as `top_k` makes it, descending within a query, ties by post_id.
      item: [m] int64, row of `items`.
      items: the posts that were ranked.
    """

    query: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    item: np.ndarray
    items: Tile

    @property
    def post_id(self) -> pa.Array:
        """The post of each entry: [m] string."""
        return self.items.post_id.take(pa.array(self.item))

    def take(self, entries: np.ndarray) -> "Ranked":
        """These entries, in their order, ranked by it; those of a query have to stand together."""
        query = self.query[entries]
        return Ranked(query, rank_by_order(query), self.score[entries], self.item[entries], self.items)


def rank_by_order(query: np.ndarray) -> np.ndarray:
    """The place of every entry among those of its query, [m] int32 from 1; equal queries stand together."""
    starts = np.flatnonzero(np.diff(query, prepend=-1))
    return (np.arange(len(query)) - np.repeat(starts, np.diff(np.append(starts, len(query)))) + 1).astype(np.int32)


def top_k(
    queries: np.ndarray,
    candidates: Iterable[pa.RecordBatch],
    k: int,
    *,
    eligibility: Eligibility,
    exclusions: Exclusions | None = None,
    max_per_author: int | None = None,
    column: str = "embedding",
    num_threads: int = 1,
) -> Ranked:
    """The k eligible candidates with the largest inner product with each query (fewer where fewer are eligible).

    Args:
      queries: [n, d] float32.
      candidates: blocks of schemas.candidates, streamed once.
      k: how many a query.
      eligibility: which candidates anybody may be shown.
      exclusions: which pairs of query and candidate are left out besides.
      max_per_author: at most so many posts of one author a query; posts without an author count as nobody's.
      column: what a query is multiplied with; "popularity" makes it a vector of one number.
      num_threads: threads that work on rows of the queries side by side.

    Raises:
      ValueError: k or max_per_author is less than 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if max_per_author is not None and max_per_author < 1:
        raise ValueError(f"max_per_author must be at least 1, got {max_per_author}")
    search = _Search(queries, k, exclusions or Exclusions.none(), max_per_author)
    # The threads here share the work: those of BLAS would wait for each other.
    with blas.one_thread(), concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        for block in candidates:
            eligible = eligibility.mask(block)
            kept = block if eligible.all() else block.filter(pa.array(eligible))
            for piece in blocks.split_rows(kept, TILE_ROWS):
                search.scan(Tile.of(piece, column), pool)
        return search.finish(pool)


class _Search:
    """The running result of a block of queries."""

    def __init__(self, queries: np.ndarray, k: int, exclusions: Exclusions, cap: int | None) -> None:
        starts = range(0, len(queries), _QUERY_ROWS)
        self._rows = [_Rows(queries[start : start + _QUERY_ROWS], start, k, cap) for start in starts]
        self._queries, self._exclusions = queries, exclusions
        self._kept = Kept()
        self._max_norm = 0.0
        self._num_scanned = 0
        self._basis: pruning.Basis | None = None
        self._choose_at = 1 if cap is None and len(queries) >= _PRUNED_QUERIES else math.inf

    def scan(self, tile: Tile, pool: concurrent.futures.Executor) -> None:
        """Takes the best of a tile in."""
        if not len(tile.post_id):
            return
        if self._num_scanned >= self._choose_at:
            self._choose_basis(tile, pool)
        prepared = _PreparedTile(tile, self._exclusions.in_tile(tile), self._num_scanned, self._basis)
        self._max_norm = max(self._max_norm, prepared.max_norm)
        found = np.zeros(len(tile.post_id), bool)
        for columns in pool.map(lambda rows: rows.scan(prepared, self._max_norm), self._rows):
            found[columns] = True
        self._kept.add(tile, np.flatnonzero(found), self._num_scanned)
        self._num_scanned += len(tile.post_id)
        for _ in pool.map(lambda rows: rows.merge_if_due(self._kept), self._rows):
            pass
        self._kept.forget_losers(lambda: pool.map(lambda rows: self._kept.places(rows.numbers()), self._rows))

    def _choose_basis(self, tile: Tile, pool: concurrent.futures.Executor) -> None:
        """Finds out what bounds the scores of posts like these with least work, now that there are scores to beat."""
        for _ in pool.map(lambda rows: rows.merge(self._kept), self._rows):
            pass
        self._choose_at = _CHOOSE_AGAIN * self._num_scanned
        kth = np.concatenate([rows.kth for rows in self._rows])
        if np.isneginf(kth).any():
            return
        self._basis = pruning.choose(self._queries, kth, tile.vectors)
        for _ in pool.map(lambda rows: rows.use(self._basis), self._rows):
            pass

    def finish(self, pool: concurrent.futures.Executor) -> Ranked:
        """What is left when all tiles have been scanned."""
        ends = list(pool.map(lambda rows: rows.ranked(self._kept), self._rows))
        query, rank, score, place = (
            np.concatenate([end[i] for end in ends]) if ends else np.empty(0, kind)
            for i, kind in enumerate((np.int64, np.int32, np.float32, np.int64))
        )
        return Ranked(query, rank, score, place, self._kept.tile())


class _PreparedTile:
    """A tile with what all rows of queries need of it, computed once."""

    def __init__(self, tile: Tile, exclusions: TileExclusions, first: int, basis: pruning.Basis | None) -> None:
        self.first, self.exclusions, self.vectors = first, exclusions, tile.vectors
        self.num_posts, self.width = tile.vectors.shape
        self.bounded = pruning.bound_posts(tile.vectors, basis) if basis is not None else None
        multiplied = tile.vectors if self.bounded is None else self.bounded.vectors
        self.transposed = np.ascontiguousarray(multiplied.T)
        self.max_norm = float(np.linalg.norm(tile.vectors.astype(np.float64), axis=1).max())
        self.authors = author_codes(tile.author_id)


class _Rows:
    """The k best so far of some queries, and those that came after the last merge."""

    def __init__(self, queries: np.ndarray, start: int, k: int, cap: int | None) -> None:
        self._start, self._k, self._cap = start, k, cap
        self._queries = np.ascontiguousarray(queries, np.float32)
        self._exact = self._queries.astype(np.float64)
        self._norms = np.linalg.norm(self._exact, axis=1)
        self._score = np.full((len(queries), k), -np.inf, np.float32)
        self._number = np.full((len(queries), k), -1, np.int64)
        self._kth = np.full(len(queries), -np.inf, np.float32)
        self._pending: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._bounded: pruning.Bounded | None = None

    @property
    def kth(self) -> np.ndarray:
        """The k-th scores so far: [n] float32, -inf where there are fewer."""
        return self._kth

    def use(self, basis: pruning.Basis | None) -> None:
        """From now on bounds are looked at instead of scores; None for scores again."""
        self._bounded = pruning.bound_queries(self._queries, basis) if basis is not None else None

    def scan(self, tile: _PreparedTile, max_norm: float) -> np.ndarray:
        """Puts what can win in a tile on the pending list and gives its columns."""
        error = selection.score_error(tile.width, self._norms, max_norm)
        if self._bounded is not None and tile.bounded is not None:
            queries, slack = self._bounded.vectors, pruning.error(self._bounded, tile.bounded)
        else:
            queries, slack = self._queries, 2 * error
        found = list(self._survivors(tile, queries, slack, error))
        row, column, score = (np.concatenate([entry[i] for entry in found]) for i in range(3))
        if self._cap is not None and len(row) > 4 * self._k * len(self._queries):
            keep = selection.within_cap(row, tile.authors[column], score, self._cap, 2 * error)
            row, column = row[keep], column[keep]
        score = self._rescore(tile, row, column)
        wins = score >= self._kth[row]
        row, column, score = row[wins], column[wins], score[wins]
        self._pending.append((row, score, column + tile.first))
        return column

    def _survivors(
        self, tile: _PreparedTile, queries: np.ndarray, slack: np.ndarray, error: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Entries that are not clearly below the k-th score: ([m] row, [m] column, [m] float32 score or bound)."""
        bound = self._kth - slack
        unbound = np.flatnonzero(np.isneginf(self._kth))
        # Rows without a k-th score take it from the tile, so that they have to see all of it at once.
        step = tile.num_posts if len(unbound) else _COLUMNS
        excluded_row, excluded_column = tile.exclusions.pairs(self._start, self._start + len(self._queries))
        order = np.argsort(excluded_column, kind="stable")
        excluded_row, excluded_column = excluded_row[order], excluded_column[order]
        for start in range(0, tile.num_posts, step):
            scores = queries @ tile.transposed[:, start : start + step]
            low, high = np.searchsorted(excluded_column, [start, start + step])
            scores[excluded_row[low:high], excluded_column[low:high] - start] = -np.inf
            if len(unbound):
                bound[unbound] = self._bound_in_tile(scores, unbound, tile, error)
            row, column = selection.survivors(scores, _at_least_lowest(bound))
            yield row, column + start, scores[row, column]

    def _bound_in_tile(
        self, scores: np.ndarray, unbound: np.ndarray, tile: _PreparedTile, error: np.ndarray
    ) -> np.ndarray:
        """What k posts of the tile reach, less the error, for rows that have no k-th score yet: [len(unbound)]."""
        best = scores if len(unbound) == len(scores) else scores[unbound]
        if self._cap is None:
            return selection.reached_by(best, self._k) - 2 * error[unbound]
        enough = _at_least_lowest(selection.reached_by(best, min(best.shape[1], 4 * self._k)))
        row, column = selection.survivors(best, enough)
        score = best[row, column]
        group = row * (int(tile.authors.max()) + 1) + tile.authors[column]
        capped = selection.rank_in_group(group, score, column, lambda columns: pa.array(columns)) < self._cap
        (matrix,) = selection.to_matrix(row[capped], (score[capped],), len(unbound), (-np.inf,))
        return selection.kth_largest(matrix, self._k) - 2 * error[unbound]

    def _rescore(self, tile: _PreparedTile, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """The scores of entries in float64, rounded: [m] float32."""
        score = np.empty(len(row), np.float32)
        for start in range(0, len(row), _RESCORED_AT_ONCE):
            part = slice(start, start + _RESCORED_AT_ONCE)
            posts = tile.vectors.take(column[part], axis=0).astype(np.float64)
            score[part] = np.einsum("ij,ij->i", self._exact.take(row[part], axis=0), posts)
        return score

    def merge_if_due(self, kept: Kept) -> None:
        """Merges when some row has no k-th score yet or as many are pending as the rows hold."""
        num_pending = sum(len(row) for row, _, _ in self._pending)
        if num_pending >= _MERGE_SHARE * self._score.size or np.isneginf(self._kth).any():
            self.merge(kept)

    def merge(self, kept: Kept) -> None:
        """Takes the pending entries in and finds the new k-th scores."""
        if not self._pending:
            return
        row, score, number = (np.concatenate([entry[i] for entry in self._pending]) for i in range(3))
        self._pending = []
        order = np.argsort(row.astype(np.uint16), kind="stable")
        row, values = row[order], (score[order], number[order])
        new_score, new_number = selection.to_matrix(row, values, len(self._score), (-np.inf, -1))
        score = np.concatenate([self._score, new_score], axis=1)
        number = np.concatenate([self._number, new_number], axis=1)
        if self._cap is not None:
            self._drop_over_cap(score, number, kept)
        best = np.argpartition(score, score.shape[1] - self._k, axis=1)[:, -self._k :]
        self._score, self._number = np.take_along_axis(score, best, 1), np.take_along_axis(number, best, 1)
        self._kth = self._score.min(axis=1)
        self._break_ties(score, number, kept)

    def _break_ties(self, score: np.ndarray, number: np.ndarray, kept: Kept) -> None:
        """Where more than k entries reach the k-th score, takes those with the smallest ids among the tied."""
        reach = (score >= self._kth[:, None]) & (score > -np.inf)
        tied = np.flatnonzero(reach.sum(axis=1) > self._k)
        if len(tied):
            row, column = np.nonzero(reach[tied])
            entries = score[tied][row, column], number[tied][row, column]
            first = selection.rank_in_group(row, *entries, kept.ids_of) < self._k
            self._score[tied] = entries[0][first].reshape(len(tied), self._k)
            self._number[tied] = entries[1][first].reshape(len(tied), self._k)

    def _drop_over_cap(self, score: np.ndarray, number: np.ndarray, kept: Kept) -> None:
        row, column = np.nonzero(score > -np.inf)
        entries = score[row, column], number[row, column]
        authors = kept.authors_of(entries[1])
        group = row * (int(authors.max(initial=0)) + 1) + authors
        over = selection.rank_in_group(group, *entries, kept.ids_of) >= (self._cap or 1)
        score[row[over], column[over]] = -np.inf

    def ranked(self, kept: Kept) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(query, rank from 1, score, row of the kept posts), by query and rank, when there is nothing more to come."""
        self.merge(kept)
        row, column = np.nonzero(self._score > -np.inf)
        score, number = self._score[row, column], self._number[row, column]
        rank = selection.rank_in_group(row, score, number, kept.ids_of)
        order = np.lexsort((rank, row))
        return row[order] + self._start, (rank[order] + 1).astype(np.int32), score[order], kept.places(number[order])

    def numbers(self) -> np.ndarray:
        """The posts that are still in the race, some of them repeatedly."""
        return np.concatenate([self._number[self._number >= 0], *(number for _, _, number in self._pending)])


def _at_least_lowest(bound: np.ndarray) -> np.ndarray:
    """The bounds, rounded down to float32 and finite: what is excluded has -inf and is below every bound."""
    rounded = np.maximum(bound, selection.LOWEST).astype(np.float32)
    return np.nextafter(rounded, np.float32(-np.inf))

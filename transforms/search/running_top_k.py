"""Running top k of many queries, tile by tile: a product, its candidates for the top k, an occasional merge.

Rows of queries and columns of a tile are scanned in any order, by several threads: the lower bound on the k-th score
may lag behind, which costs time and does not change the result.
"""

from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from transforms.linalg import runs, selection
from transforms.search.scored_tile import Places, PreparedTile
from transforms.search.surviving_posts import SurvivingPosts

# Rows that are worked on together: what they need of a tile's scores stays in the processor's cache.
_QUERY_ROWS = 512
# Bytes of their scores in memory where all of a tile is scanned at once: less than 32 MiB, which malloc
# would request from the system each time.
_SCORE_BYTES, _ITEM_BYTES = 24 << 20, 4
# The scores of this many posts stay in the processor's cache until they have been scanned.
_COLUMNS = 512
# Pending entries are merged at this ratio to retained ones; its exact value hardly matters.
_MERGE_SHARE = 0.5
# Counts of pending entries that differ by less are treated as equal.
_FEW = 16


class _Pending(NamedTuple):
    """Pairs of query and post: row [m] int64, exact score [m] float32, number of the post [m] int64."""

    row: np.ndarray
    score: np.ndarray
    number: np.ndarray

    def take(self, entries: np.ndarray) -> "_Pending":
        return _Pending(self.row[entries], self.score[entries], self.number[entries])


class Entries(NamedTuple):
    """Pairs of query and post: row [m] int64, column of the tile [m] int64, exact score [m] float32."""

    row: np.ndarray
    column: np.ndarray
    score: np.ndarray


def in_blocks(rows: np.ndarray, num_columns: int = 1) -> Iterator[np.ndarray]:
    """Rows in blocks of a suitable size for scoring that many columns at once."""
    size = _QUERY_ROWS
    while size > 1 and size * num_columns * _ITEM_BYTES > _SCORE_BYTES:
        size //= 2
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


class RunningTopK:
    """Running top k of some queries, and the entries pending since the last merge."""

    def __init__(self, num_queries: int, k: int, cap: int | None) -> None:
        self._k, self._cap = k, cap
        self._score = np.full((num_queries, k), -np.inf, np.float32)
        self._number = np.full((num_queries, k), -1, np.int64)
        # Lower bound on the k-th best score: at least the k-th score of the last merge.
        self._lower_bound = np.full(num_queries, -np.inf, np.float32)
        self._pending: list[_Pending] = []

    def set_lower_bound(self, lower_bound: np.ndarray) -> None:
        """Sets the lower bound on the k-th score, [n] float32; k posts of each query must follow at or above it."""
        self._lower_bound = lower_bound

    @property
    def lower_bound(self) -> np.ndarray:
        """Lower bound on each query's k-th best score: [n] float32, -inf where fewer posts are known."""
        return self._lower_bound

    def scan(self, tile: PreparedTile, rows: np.ndarray, columns: slice) -> Entries:
        """Candidates for the top k among these columns of a tile, for these query rows ([m] int64, ascending)."""
        place, column = self._surviving(tile, rows, columns)
        score = tile.exact(rows, place, column)
        entries = np.flatnonzero(score >= self._lower_bound[rows][place])
        return Entries(rows[place[entries]], column[entries], score[entries])

    def _surviving(self, tile: PreparedTile, rows: np.ndarray, columns: slice) -> Places:
        """Candidates for the top k by a float32 product or bound: [m] place in `rows`, [m] column."""
        found = list(self._survivors(tile, rows, columns))
        place, column, score = (np.concatenate([entry[i] for entry in found]) for i in range(3))
        if self._cap is not None and len(place) > 4 * self._k * len(rows):
            slack = 2 * tile.error[rows]
            keep = selection.within_cap(place, tile.authors[column], score, self._cap, slack)
            place, column = place[keep], column[keep]
        return place, column

    def _survivors(
        self, tile: PreparedTile, rows: np.ndarray, columns: slice
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Entries that are not clearly below the k-th score: ([m] place in `rows`, [m] column, [m] score or bound)."""
        bound = self._lower_bound[rows] - tile.slack[rows]
        unbound = np.flatnonzero(np.isneginf(bound))
        # Rows without a k-th score take it from the tile, so all of it is scanned at once.
        step = columns.stop - columns.start if len(unbound) else _COLUMNS
        for start, scores in tile.products(rows, columns, step):
            if len(unbound):
                kth = self._kth_lower_bound(scores, unbound, tile, rows[unbound], start)
                self._lower_bound[rows[unbound]] = kth
                bound[unbound] = kth
            place, column = selection.survivors(scores, _at_least_lowest(bound))
            yield place, column + start, scores[place, column]

    def _kth_lower_bound(
        self, scores: np.ndarray, unbound: np.ndarray, tile: PreparedTile, rows: np.ndarray, start: int
    ) -> np.ndarray:
        """Lower bound on the tile's k-th best score, for rows without a k-th score yet: [len(unbound)] float32."""
        best = scores if len(unbound) == len(scores) else scores[unbound]
        if self._cap is None:
            kth = selection.reached_by(best, self._k)
        else:
            enough = _at_least_lowest(selection.reached_by(best, min(best.shape[1], 4 * self._k)))
            row, column = selection.survivors(best, enough)
            score = best[row, column]
            capped = selection.within_cap(row, tile.authors[start + column], score, self._cap)
            (matrix,) = selection.to_matrix(row[capped], (score[capped],), len(unbound), (-np.inf,))
            kth = selection.kth_largest(matrix, self._k)
        return selection.round_down(kth - 2 * tile.error[rows])

    def add(self, entries: Entries, first: int) -> None:
        """Adds the entries that `scan` returned for a tile whose first post has the number `first`."""
        if len(entries.row):
            self._pending.append(_Pending(entries.row, entries.score, entries.column + first))

    def merge_if_due(self, surviving: SurvivingPosts, pool: futures.Executor) -> None:
        """Merges once the pending entries exceed a share of the retained ones."""
        if sum(len(row) for row, _, _ in self._pending) >= _MERGE_SHARE * self._score.size:
            self.merge(surviving, pool)

    def merge(self, surviving: SurvivingPosts, pool: futures.Executor) -> None:
        """Merges the pending entries and updates the k-th scores."""
        for _ in pool.map(lambda entries: self._merge_block(entries, surviving), self._take_blocks()):
            pass

    def _take_blocks(self) -> list[_Pending]:
        """The pending entries, in blocks with disjoint rows, sorted by row."""
        pending, self._pending = self._pending, []
        if not all(row[0] // _QUERY_ROWS == row[-1] // _QUERY_ROWS for row, _, _ in pending):
            everything = self._sorted(pending)
            cuts = np.searchsorted(everything.row, np.arange(_QUERY_ROWS, len(self._score), _QUERY_ROWS))
            pieces = zip(*(np.split(values, cuts) for values in everything), strict=True)
            return [_Pending(*piece) for piece in pieces if len(piece[0])]
        blocks: dict[int, list[_Pending]] = {}
        for entries in pending:
            blocks.setdefault(int(entries.row[0]) // _QUERY_ROWS, []).append(entries)
        return [self._sorted(block) for block in blocks.values()]

    def _sorted(self, pending: Sequence[_Pending]) -> _Pending:
        entries = _Pending(*(np.concatenate(values) for values in zip(*pending, strict=True)))
        # Numbers of 16 bits are sorted in linear time (numpy's radix sort).
        row = entries.row.astype(np.uint16) if len(self._score) <= 1 << 16 else entries.row
        return entries.take(np.argsort(row, kind="stable"))

    def _merge_block(self, entries: _Pending, surviving: SurvivingPosts) -> None:
        starts = runs.starts_of(entries.row)
        counts = runs.sizes_of(starts, len(entries.row))
        for some in _alike(counts):
            place = np.repeat(np.arange(len(some)), counts[some])
            merged = entries.take(starts[some][place] + runs.places_in(counts[some]))
            self._merge_rows(entries.row[starts[some]], place, merged.score, merged.number, surviving)

    def _merge_rows(
        self, rows: np.ndarray, place: np.ndarray, score: np.ndarray, number: np.ndarray, surviving: SurvivingPosts
    ) -> None:
        """Merges the pending entries of some rows, [r]; `place` [m] in these is ascending."""
        new_score, new_number = selection.to_matrix(place, (score, number), len(rows), (-np.inf, -1))
        score = np.concatenate([self._score[rows], new_score], axis=1)
        number = np.concatenate([self._number[rows], new_number], axis=1)
        if self._cap is not None:
            _drop_over_cap(score, number, self._cap, surviving)
        best = np.argpartition(score, score.shape[1] - self._k, axis=1)[:, -self._k :]
        best_score, best_number = np.take_along_axis(score, best, 1), np.take_along_axis(number, best, 1)
        kth = best_score.min(axis=1)
        self._break_ties(best_score, best_number, score, number, kth, surviving)
        self._score[rows], self._number[rows] = best_score, best_number
        self._lower_bound[rows] = np.maximum(self._lower_bound[rows], kth)

    def _break_ties(
        self,
        best_score: np.ndarray,
        best_number: np.ndarray,
        score: np.ndarray,
        number: np.ndarray,
        kth: np.ndarray,
        surviving: SurvivingPosts,
    ) -> None:
        """Selects the entries with the smallest ids among those tied at the k-th score, where there are more than k."""
        contends = (score >= kth[:, None]) & (score > -np.inf)
        tied = np.flatnonzero(contends.sum(axis=1) > self._k)
        if len(tied):
            row, column = np.nonzero(contends[tied])
            entries = score[tied][row, column], number[tied][row, column]
            first = selection.rank_in_group(row, *entries, surviving.ids_of) < self._k
            best_score[tied] = entries[0][first].reshape(len(tied), self._k)
            best_number[tied] = entries[1][first].reshape(len(tied), self._k)

    def ranked(
        self, surviving: SurvivingPosts, pool: futures.Executor
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(query, rank from 1, score, row of the surviving posts), by query and rank; final after the last tile."""
        self.merge(surviving, pool)
        found = list(
            pool.map(lambda rows: self._ranked_rows(rows, surviving), in_blocks(np.arange(len(self._lower_bound))))
        )
        nothing = np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int64)
        query, rank, score, place = (np.concatenate(values) for values in zip(nothing, *found, strict=True))
        return query, rank, score, place

    def _ranked_rows(
        self, rows: np.ndarray, surviving: SurvivingPosts
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        order = np.argsort(-self._score[rows], axis=1)
        score = np.take_along_axis(self._score[rows], order, 1)
        number = np.take_along_axis(self._number[rows], order, 1)
        found = score > -np.inf
        tied = np.flatnonzero(((score[:, 1:] == score[:, :-1]) & found[:, 1:]).any(axis=1))
        row, column = np.nonzero(found[tied])
        entries = tied[row], column
        rank = selection.rank_in_group(row, score[entries], number[entries], surviving.ids_of)
        number[tied[row], rank] = number[entries]
        row, column = np.nonzero(found)
        return rows[row], (column + 1).astype(np.int32), score[row, column], surviving.places(number[row, column])

    def numbers(self) -> Iterator[np.ndarray]:
        """Numbers of the posts still in some query's running top k or pending, with repetitions."""
        yield self._number[self._number >= 0]
        for _, _, number in self._pending:
            yield number


def _alike(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Groups of rows with similar numbers of entries, so that a row with many does not widen the others' matrix."""
    order = np.argsort(counts, kind="stable")
    counts = counts[order]
    start = 0
    while start < len(order):
        about = int(np.searchsorted(counts, 2 * counts[start] + _FEW, side="right"))
        stop = min(start + _QUERY_ROWS, about)
        yield order[start:stop]
        start = stop


def _drop_over_cap(score: np.ndarray, number: np.ndarray, cap: int, surviving: SurvivingPosts) -> None:
    row, column = np.nonzero(score > -np.inf)
    entries = score[row, column], number[row, column]
    authors = surviving.authors_of(entries[1])
    group = row * (int(authors.max(initial=0)) + 1) + authors
    over = selection.rank_in_group(group, *entries, surviving.ids_of) >= cap
    score[row[over], column[over]] = -np.inf


def _at_least_lowest(bound: np.ndarray) -> np.ndarray:
    """The bounds, rounded down to float32 and finite: excluded pairs have -inf and are below every bound."""
    return selection.round_down(np.maximum(bound, selection.LOWEST))

"""Primitive 3, top-K: blocks of queries times tiles of posts, one matrix product per tile with only the top k retained.

The tiles are streamed, so memory does not grow with the catalog. A float32 product selects the candidates for
the top k (with a margin of the float32 error below the k-th score), and the survivors' scores are recomputed in
float64 and rounded to float32. In a catalog divided into cells, bounds from few numbers replace most of that
product. The result depends neither on the sizes of tiles and blocks nor on the BLAS library.
"""

import concurrent.futures
import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from transforms.linalg import blas, runs
from transforms.linalg.vectors import row_norms
from transforms.search import upper_bounds
from transforms.search.catalog import Catalog, Tile
from transforms.search.eligibility import Eligibility
from transforms.search.exclusions import Exclusions
from transforms.search.lower_bounds import LowerBounds, best_of
from transforms.search.regions import Regions, Visits
from transforms.search.running_top_k import RunningTopK, in_blocks
from transforms.search.scored_tile import PreparedTile, Queries
from transforms.search.surviving_posts import SurvivingPosts
from transforms.tables import blocks, parquet, schemas, threads

TILE_ROWS = parquet.READ_OFTEN.row_group_rows
# Tiles joined into the first one: the more posts set the first lower bound, the fewer survive after it.
_FIRST_TILES = 4
# Share of all pairs in a row group from which one product of everything is less work than many of some.
_ALMOST_ALL = 0.5
_COLUMNS = [name for name in schemas.candidates(1, 1).names if name != "profile"]


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
        """These entries, in their order, ranked by it; a query's entries have to be contiguous."""
        query = self.query[entries]
        return Ranked(query, rank_by_order(query), self.score[entries], self.item[entries], self.items)


def rank_by_order(query: np.ndarray) -> np.ndarray:
    """Rank of every entry among those of its query, [m] int32 from 1; equal queries are contiguous."""
    return (runs.places_in_runs(query) + 1).astype(np.int32)


def top_k(
    queries: np.ndarray,
    candidates: Iterable[pa.RecordBatch],
    k: int,
    *,
    eligibility: Eligibility,
    exclusions: Exclusions | None = None,
    max_per_author: int | None = None,
    column: str = "embedding",
    with_vectors: bool = True,
    num_threads: int = 1,
) -> Ranked:
    """The k eligible candidates with the largest inner product with each query (fewer where fewer are eligible).

    Args:
      queries: [n, d] float32.
      candidates: blocks of schemas.candidates, streamed once.
      k: posts per query.
      eligibility: filter of the candidates, for all queries.
      exclusions: further excluded pairs of query and candidate.
      max_per_author: maximum posts of one author per query; posts without an author are not limited.
      column: candidates' column that the query is multiplied with; "popularity" makes it a vector of one number.
      with_vectors: True if `items` includes the posts' vectors, which take most of the memory.
      num_threads: threads, each of which scores some rows of the queries.

    Raises:
      ValueError: k or max_per_author is less than 1.
    """
    with _Search(queries, k, exclusions, max_per_author, with_vectors, num_threads) as search:
        for block in _in_tiles(candidates, eligibility):
            search.scan(Tile.of(block, column))
        return search.finish()


def _in_tiles(candidates: Iterable[pa.RecordBatch], eligibility: Eligibility) -> Iterator[pa.RecordBatch]:
    """Eligible candidates, in tiles large enough to be scored together."""
    held: list[pa.RecordBatch] = []
    wanted = _FIRST_TILES * TILE_ROWS
    for block in candidates:
        for piece in blocks.split_rows(_filter(block, eligibility.mask(block)), TILE_ROWS):
            held.append(piece)
            if sum(piece.num_rows for piece in held) >= wanted:
                yield blocks.concat(held)
                held, wanted = [], TILE_ROWS // 2
    if held:
        yield blocks.concat(held)


def top_k_of(
    queries: np.ndarray,
    catalog: Catalog,
    k: int,
    *,
    eligibility: Eligibility,
    exclusions: Exclusions | None = None,
    max_per_author: int | None = None,
    with_vectors: bool = True,
    num_threads: int = 1,
) -> Ranked:
    """Top k by a catalog's embeddings, as of `top_k`; if it has regions, reads only those that can contribute.

    The arguments are those of `top_k`.
    """
    regions = catalog.regions() if eligibility.needs_embedding else None
    if regions is None:
        return top_k(
            queries,
            threads.ahead(catalog.read(TILE_ROWS, without=("profile",))),
            k,
            eligibility=eligibility,
            exclusions=exclusions,
            max_per_author=max_per_author,
            with_vectors=with_vectors,
            num_threads=num_threads,
        )
    with _Search(queries, k, exclusions, max_per_author, with_vectors, num_threads, regions.max_norm) as search:
        bounded = regions.bound_queries(queries, search.pool)
        # Lower bounds from the most promising regions decide which others have to be scanned.
        search.raise_lower_bounds(regions.nearest(bounded, k, search.pool), regions, eligibility)
        search.visit(regions.within_bounds(bounded, search.lower_bound, search.pool), bounded, regions, eligibility)
        return search.finish()


# Rows of queries and the columns of a tile to score for them.
_Pair = tuple[np.ndarray, slice]
# Rows of queries, lower bounds of their best scores [m, c], and the columns of these.
_PartialScores = tuple[np.ndarray, np.ndarray, np.ndarray]


class _TileTask(NamedTuple):
    """Eligible posts of a row group, the number of its first post, and the pairs of queries and columns to score."""

    tile: Tile
    first: int
    pairs: list[_Pair]
    bounded: upper_bounds.Bounded | None


def _tile_tasks(visits: Visits, regions: Regions, eligibility: Eligibility, with_bounds: bool) -> Iterator[_TileTask]:
    """The posts and pairs to score, a row group at a time."""
    columns_read = [*_COLUMNS, "leading"] if with_bounds else _COLUMNS
    for first, block, pieces in regions.read(visits.regions, columns_read):
        eligible = eligibility.mask(block)
        place = np.append(0, np.cumsum(eligible))
        pairs_of_regions = []
        for region, rows in pieces:
            columns = slice(int(place[rows.start]), int(place[rows.stop]))
            if columns.start < columns.stop:
                pairs_of_regions.append((visits.queries(region), columns))
        if sum(len(rows) * (columns.stop - columns.start) for rows, columns in pairs_of_regions) > (
            _ALMOST_ALL * visits.num_queries * place[-1]
        ):
            pairs_of_regions = [(np.arange(visits.num_queries), slice(0, int(place[-1])))]
        if pairs_of_regions:
            pairs = [(some, columns) for rows, columns in pairs_of_regions for some in in_blocks(rows)]
            candidates = _filter(block, eligible)
            met = np.array([piece.region for piece in pieces])
            yield _TileTask(
                Tile.of(candidates), first, pairs, regions.bound_posts(candidates, met) if with_bounds else None
            )


def _filter(block: pa.RecordBatch, wanted: np.ndarray) -> pa.RecordBatch:
    return block if wanted.all() else block.filter(pa.array(wanted))


def _author_hashes(tile: Tile) -> np.ndarray:
    """Hash of each post's author, unique for posts without an author: [num_posts] uint64."""
    known = blocks.valid(tile.author_id)
    return np.where(known, blocks.stable_hash(tile.author_id), blocks.stable_hash(tile.post_id, seed=1))


class _Search:
    """The running result of a block of queries; none of the posts is longer than `max_norm`, or than those scanned.

    A context: inside, products run on the threads of `pool`.
    """

    def __init__(
        self,
        queries: np.ndarray,
        k: int,
        exclusions: Exclusions | None,
        cap: int | None,
        with_vectors: bool,
        num_threads: int,
        max_norm: float = 0.0,
    ) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if cap is not None and cap < 1:
            raise ValueError(f"max_per_author must be at least 1, got {cap}")
        self._queries, self._k, self._cap = Queries(queries, cap is not None), k, cap
        self._running = RunningTopK(len(queries), k, cap)
        self._exclusions = exclusions or Exclusions.none()
        self._surviving = SurvivingPosts(with_vectors)
        self._max_norm = max_norm
        self.pool = concurrent.futures.ThreadPoolExecutor(num_threads)
        # The threads here share the work: those of BLAS would wait for each other.
        self._one_thread = blas.one_thread()
        self._num_scanned = 0

    def __enter__(self) -> "_Search":
        self._one_thread.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.shutdown()
        self._one_thread.__exit__(None, None, None)

    def scan(self, tile: Tile) -> None:
        """Updates the top k with a tile."""
        if not len(tile.post_id):
            return
        self._max_norm = max(self._max_norm, float(row_norms(tile.vectors).max()))
        num_posts = len(tile.post_id)
        everything = slice(0, num_posts)
        pairs = [(rows, everything) for rows in in_blocks(np.arange(len(self._queries.vectors)), num_posts)]
        self._take(_TileTask(tile, self._num_scanned, pairs, None))
        self._num_scanned += len(tile.post_id)

    @property
    def lower_bound(self) -> np.ndarray:
        """Lower bound on each query's k-th best score: [n] float32, -inf where fewer posts are known."""
        return self._running.lower_bound

    def raise_lower_bounds(self, visits: Visits, regions: Regions, eligibility: Eligibility) -> None:
        """Scans regions for lower bounds on the queries' k-th best scores only."""
        bounds = LowerBounds(len(self._queries.vectors), self._k, self._cap)
        for tile, _, pairs, _ in threads.ahead(_tile_tasks(visits, regions, eligibility, with_bounds=False)):
            prepared = self._prepare(tile)
            authors = _author_hashes(tile) if self._cap is not None else np.zeros(len(tile.post_id), np.uint64)

            def partial_scores(pair: _Pair, prepared: PreparedTile = prepared) -> _PartialScores:
                rows, columns = pair
                ((start, scores),) = prepared.products(rows, columns, columns.stop - columns.start)
                best = best_of(scores, self._k)
                return rows, prepared.at_least(np.take_along_axis(scores, best, 1), rows), best + start

            for rows, scores, columns in self.pool.map(partial_scores, pairs):
                bounds.update(rows, scores, authors[columns])
        self._running.set_lower_bound(bounds.kth)

    def visit(self, visits: Visits, bounded: upper_bounds.Bounded, regions: Regions, eligibility: Eligibility) -> None:
        """Updates the top k of queries with the regions they visit, given their bounds."""
        # Bounds only pay off if all queries have a k-th score.
        pays = bool(np.isfinite(self.lower_bound).all())
        self._queries.bounded = bounded if pays else None
        for task in threads.ahead(_tile_tasks(visits, regions, eligibility, with_bounds=pays)):
            self._take(task)

    def _take(self, task: _TileTask) -> None:
        """Updates the top k with pairs of rows and columns of a tile."""
        tile, first, pairs, bounded = task
        prepared = self._prepare(tile, bounded)
        found = np.zeros(len(tile.post_id), bool)
        for entries in self.pool.map(lambda pair: self._running.scan(prepared, *pair), pairs):
            found[entries.column] = True
            self._running.add(entries, first)
        self._surviving.add(tile, np.flatnonzero(found), first)
        self._running.merge_if_due(self._surviving, self.pool)
        self._surviving.drop_outranked(lambda: map(self._surviving.places, self._running.numbers()))

    def _prepare(self, tile: Tile, bounded: upper_bounds.Bounded | None = None) -> PreparedTile:
        return PreparedTile(tile, self._exclusions.in_tile(tile), self._queries, self._max_norm, bounded)

    def finish(self) -> Ranked:
        """The final ranking, after all tiles have been scanned."""
        query, rank, score, place = self._running.ranked(self._surviving, self.pool)
        return Ranked(query, rank, score, place, self._surviving.tile())

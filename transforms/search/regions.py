"""Regions of the catalog, and the selection of those that each query has to visit for an exact top-K.

A region is a run of candidates of one cell (`transforms.search.cells`). By the Cauchy-Schwarz inequality no post
in it scores more than (query . its center) + |query| (its radius), in a basis in which that is tight; a region whose
upper bound is below the lower bound on the k-th best score is skipped (the ball bounds of Ram and Gray 2012, "Maximum
inner-product search using cone trees", for cells instead of trees).
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.linalg import selection
from transforms.linalg.vectors import row_norms
from transforms.search import cells, upper_bounds
from transforms.tables import blocks, parquet
from transforms.tables.files import join

CELLS_DIR, REGIONS_DIR = "_cells", "_regions"
# Regions that a query scans for its first lower bound, those with the best centers; more where they are small for k.
_FIRST_REGIONS = 16
_FIRST_POSTS_FOR_EACH = 4
# Queries at a time: a multiple of 8.
_ROWS_AT_ONCE = 1024
# Above the rounding error of lengths in float64.
_ROUNDED_UP = 1 + 1e-9

# Slice of queries -> the regions that they visit, [num_regions, n] bool.
_Choose = Callable[[slice], np.ndarray]


class Visits:
    """Bit matrix of the regions that each query visits: [num_regions, num_queries / 8] uint8."""

    def __init__(self, num_regions: int, num_queries: int) -> None:
        self.num_queries = num_queries
        self._bits = np.zeros((num_regions, -(-num_queries // 8)), np.uint8)

    def add(self, first: int, packed: np.ndarray) -> None:
        """Sets the bits, [num_regions, n / 8], of n queries from `first`, a multiple of 8, on."""
        self._bits[:, first // 8 : first // 8 + packed.shape[1]] |= packed

    @property
    def regions(self) -> np.ndarray:
        """The regions visited by any query: [m] int64."""
        return np.flatnonzero(self._bits.any(axis=1))

    def queries(self, region: int) -> np.ndarray:
        """The queries that visit a region: [m] int64, ascending."""
        return np.flatnonzero(np.unpackbits(self._bits[region], count=self.num_queries))


class RegionPiece(NamedTuple):
    """A region, or its part in a block: its number, and its rows of the block."""

    region: int
    rows: slice


@dataclasses.dataclass(frozen=True)
class Regions:
    """The regions of a catalog with embeddings.

    Attributes:
      paths: files of the catalog.
      first: [num_files] where each begins, counted in rows of all of them.
      file: [r] int64, place in `paths`, ascending.
      start: [r] int64, first row of the file, ascending within one.
      num_rows: [r] int64.
      bounded: [r, w + 3] centers' leading numbers, length of the others, radius, 1.
      max_norm: no embedding is longer.
    """

    paths: Sequence[str]
    first: np.ndarray
    file: np.ndarray
    start: np.ndarray
    num_rows: np.ndarray
    bounded: upper_bounds.Bounded
    max_norm: float

    def bound_queries(self, queries: np.ndarray, pool: futures.Executor) -> upper_bounds.Bounded:
        """Queries, [n, d] float32: leading numbers, norm of the others, norm of all, product with the posts' mean."""
        basis = self.bounded.basis
        vectors = np.empty((len(queries), basis.width + 3), np.float32)
        norms, original_norms = np.empty(len(queries)), np.empty(len(queries))

        def bound(first: int) -> None:
            rows = slice(first, first + _ROWS_AT_ONCE)
            exact = queries[rows].astype(np.float64)
            turned = exact @ basis.to_query
            whole, from_mean = np.linalg.norm(turned, axis=1), exact @ basis.mean
            made = np.column_stack([upper_bounds.leading(turned, basis.width), whole, from_mean])
            vectors[rows], norms[rows] = made, np.linalg.norm(made, axis=1)
            original_norms[rows] = np.linalg.norm(exact, axis=1)

        for _ in pool.map(bound, range(0, len(queries), _ROWS_AT_ONCE)):
            pass
        return upper_bounds.Bounded(vectors, norms, original_norms, basis)

    def bound_posts(self, block: pa.RecordBatch, regions: np.ndarray) -> upper_bounds.Bounded:
        """Candidates in these regions, [m] int64: leading numbers, norm of the others, 0, 1."""
        leading = blocks.vectors_to_numpy(block.column("leading"))
        vectors = np.column_stack([leading, np.zeros(len(leading), np.float32), np.ones(len(leading), np.float32)])
        norms = row_norms(vectors)
        return upper_bounds.Bounded(vectors, norms, self.bounded.original_norms[regions], self.bounded.basis)

    def nearest(self, queries: upper_bounds.Bounded, k: int, pool: futures.Executor) -> Visits:
        """The regions of each query with the highest-scoring centers."""
        enough = _FIRST_POSTS_FOR_EACH * k / self.num_rows.mean()
        count = min(len(self.file), _FIRST_REGIONS + int(enough))
        # Without the norm of the other numbers and the radius: scores of the centers, not bounds.
        width = self.bounded.basis.width
        centers = self.bounded.vectors[:, :width]

        def choose(rows: slice) -> np.ndarray:
            scores = queries.vectors[rows, :width] @ centers.T
            best = np.argpartition(scores, len(centers) - count, axis=1)[:, -count:]
            chosen = np.zeros(scores.shape[::-1], bool)
            chosen[best, np.arange(len(best))[:, None]] = True
            return chosen

        return self._visits(len(queries.vectors), choose, pool)

    def within_bounds(self, queries: upper_bounds.Bounded, lower_bound: np.ndarray, pool: futures.Executor) -> Visits:
        """The regions whose upper bound is not below `lower_bound`, [n] float32."""
        enough = selection.round_down(lower_bound - upper_bounds.error(queries, self.bounded))

        def choose(rows: slice) -> np.ndarray:
            chosen: np.ndarray = self.bounded.vectors @ queries.vectors[rows].T >= enough[rows]
            return chosen

        return self._visits(len(queries.vectors), choose, pool)

    def _visits(self, num_queries: int, choose: _Choose, pool: futures.Executor) -> Visits:
        visits = Visits(len(self.file), num_queries)

        def visits_of(first: int) -> tuple[int, np.ndarray]:
            return first, np.packbits(choose(slice(first, first + _ROWS_AT_ONCE)), axis=1)

        for first, packed in pool.map(visits_of, range(0, num_queries, _ROWS_AT_ONCE)):
            visits.add(first, packed)
        return visits

    def read(
        self, wanted: np.ndarray, columns: Sequence[str]
    ) -> Iterator[tuple[int, pa.RecordBatch, list[RegionPiece]]]:
        """The candidates in these regions, [m] int64, ascending, by row group, and some between them.

        Yields (number of the first row among those of all files, block, pieces of regions in it).
        """
        for number, path in enumerate(self.paths):
            here = wanted[self.file[wanted] == number]
            starts = self.start[here]
            stops = starts + self.num_rows[here]
            for start, block in parquet.read_row_groups(path, starts, stops, columns):
                met = np.flatnonzero((starts < start + block.num_rows) & (stops > start))
                bounds = np.clip([starts[met] - start, stops[met] - start], 0, block.num_rows).T.tolist()
                pieces = [
                    RegionPiece(int(region), slice(*bound)) for region, bound in zip(here[met], bounds, strict=True)
                ]
                yield int(self.first[number]) + start, block, pieces


def read(candidates_dir: str) -> Regions | None:
    """The regions of a catalog; None if it has none, or no embedding."""
    directory = join(candidates_dir, REGIONS_DIR)
    files = parquet.list_files(directory)
    if not files:
        return None
    found = cells.read(join(candidates_dir, CELLS_DIR))
    parts = [pa.Table.from_batches([parquet.read_file(path)]) for path in files]
    num_rows = [part["num_rows"].to_numpy().sum() for part in parts]
    # Posts without embedding are not eligible.
    parts = [part.filter(pc.less(part["cell"], len(found.centers))) for part in parts]
    rows = parquet.to_block(pa.concat_tables(parts))
    if not rows.num_rows:
        return None
    basis, spread = found.basis, rows.column("spread").to_numpy()
    return Regions(
        [join(candidates_dir, os.path.basename(path)) for path in files],
        np.cumsum(num_rows) - num_rows,
        np.repeat(np.arange(len(parts)), [part.num_rows for part in parts]),
        rows.column("start").to_numpy(),
        rows.column("num_rows").to_numpy(),
        _bound_regions(rows, basis._replace(width=cells.leading_width(len(basis.mean)) - 1)),
        _ROUNDED_UP * float(np.linalg.norm(basis.mean) + spread.max()),
    )


def _bound_regions(rows: pa.RecordBatch, basis: upper_bounds.BalancedBasis) -> upper_bounds.Bounded:
    """The centers' leading numbers, the norm of the others, the radius and 1."""
    center = blocks.vectors_to_numpy(rows.column("center")).astype(np.float64)
    radius = rows.column("radius").to_numpy()
    vectors = np.column_stack([upper_bounds.leading(center, basis.width), radius, np.ones(len(center))])
    return upper_bounds.bounded(vectors, rows.column("spread").to_numpy(), basis)

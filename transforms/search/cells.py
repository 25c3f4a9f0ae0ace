"""Cells of the catalog: similar posts are stored together, so that a search can skip the others.

The cells are those of k-means (Lloyd 1982) on a sample, in the basis in which distances bound differences of scores
well (`upper_bounds.balance`; in the plain vectors such bounds are useless). A part of the catalog is a range of
neighboring cells. `transforms.search.regions` describes the search over them.
"""

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import AsSingleton
from scipy.cluster.vq import kmeans2

from transforms.linalg import runs
from transforms.search import upper_bounds
from transforms.tables import arrays, blocks, parquet, schemas, shuffle
from transforms.tables.files import join

# A smaller catalog is scanned as a whole.
MIN_POSTS = 1 << 15
# Cells for the root of the number of posts: with fewer a query scores more posts, with more it scores more centers.
_CELLS_A_ROOT = 3
_MAX_CELLS = 1 << 14
# Numbers of a vector, in that basis, by which cells are made.
_CELL_WIDTH = 64
# Share of the numbers that bound scores. With 64 of 321, ten times k posts survive the bound; with 128, three times k.
_BOUND_SHARE = 0.4
_SAMPLED_POSTS_A_CELL = 16
# Users, and posts, by which the basis is found.
_BALANCED_BY = 1 << 14
_ROUNDS = 8
_ROWS_AT_ONCE = 8192
_FILES = ("to_query", "to_post", "mean", "centers", "shares")


def choose_num_cells(num_posts: int) -> int:
    """Number of cells of a catalog; 0 if it is too small to be divided."""
    return min(_CELLS_A_ROOT * math.isqrt(num_posts), _MAX_CELLS) if num_posts >= MIN_POSTS else 0


class Cells(NamedTuple):
    """Cell centers and the basis in which posts are assigned to them.

    Attributes:
      basis: of `upper_bounds.balance`, for users and posts.
      centers: [num_cells, w] float32, in the order of the cells on disk.
      shares: [num_cells + 1] float64, share of the catalog in each; the last is that of posts without embedding.
    """

    basis: upper_bounds.BalancedBasis
    centers: np.ndarray
    shares: np.ndarray

    def assign(self, embeddings: np.ndarray) -> np.ndarray:
        """The cell of each post, [n, d] float32: [n] int32; num_cells for posts without embedding."""
        cell = np.empty(len(embeddings), np.int32)
        for start in range(0, len(embeddings), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            cell[rows] = _nearest(_leading(embeddings[rows], self.basis, self.centers.shape[1]), self.centers)
        cell[~embeddings.any(axis=1)] = len(self.centers)
        return cell

    def parts(self, cell: np.ndarray, post_id: pa.Array, num_parts: int) -> np.ndarray:
        """The part of each post, [n] int32: a range of cells each, all about as large.

        A cell that is larger than a part goes into several, by a hash of the id.
        """
        starts = np.cumsum(self.shares) - self.shares
        spread = blocks.stable_hash(post_id).astype(np.float64) / 2.0**64
        place = starts[cell] + spread * self.shares[cell]
        return np.minimum(place * num_parts, num_parts - 1).astype(np.int32)


def fit(items_dir: str, users_dir: str, num_cells: int, directory: str) -> str:
    """Fits the cells on a sample of item_embeddings/ and user_embeddings/ and writes them; returns the directory.

    In memory are 16 posts a cell, some thousand users, and a part. The parts of both tables are made by a hash of the
    id, so that any few of them are a random sample.
    """
    sample = _some_rows(items_dir, _SAMPLED_POSTS_A_CELL * num_cells)
    known = sample.any(axis=1)
    users, posts = _some_rows(users_dir, _BALANCED_BY), _evenly(sample[known], _BALANCED_BY)
    basis = (
        upper_bounds.balance(users, posts)
        or upper_bounds.balance(posts, posts)
        or upper_bounds.unchanged(sample.shape[1])
    )
    turned = _leading(sample[known], basis, _CELL_WIDTH)
    centers = _centers(turned, num_cells)
    centers = centers[_near_each_other(centers)]
    counts = np.bincount(_nearest(turned, centers), minlength=len(centers))
    shares = np.append(counts, len(sample) - known.sum()) / max(len(sample), 1)
    for name, values in zip(_FILES, (*basis[:3], centers, shares), strict=True):
        arrays.save(join(directory, f"{name}.npy"), values)
    return directory


def read(directory: str) -> Cells:
    """The cells that `fit` wrote."""
    to_query, to_post, mean, centers, shares = (
        np.array(arrays.load(join(directory, f"{name}.npy"))) for name in _FILES
    )
    return Cells(upper_bounds.basis_of(to_query, to_post, mean), centers, shares)


def _some_rows(directory: str, num_rows: int) -> np.ndarray:
    """Embeddings of at most `num_rows` rows, evenly from as few parts as suffice."""
    found: list[np.ndarray] = []
    for path in parquet.list_files(directory):
        found.append(blocks.vectors_to_numpy(parquet.read_file(path, ["embedding"]).column("embedding")))
        if sum(map(len, found)) >= num_rows:
            break
    return _evenly(np.concatenate(found), num_rows)


def _evenly(rows: np.ndarray, num_rows: int) -> np.ndarray:
    return rows[np.linspace(0, len(rows), num_rows, endpoint=False).astype(np.int64)] if len(rows) > num_rows else rows


def _leading(embeddings: np.ndarray, basis: upper_bounds.BalancedBasis, width: int) -> np.ndarray:
    """The leading numbers of posts in the basis: [n, width] float32."""
    turned: np.ndarray = (embeddings - basis.mean.astype(np.float32)) @ basis.to_post[:, :width].astype(np.float32)
    return turned


def _centers(turned: np.ndarray, num_cells: int) -> np.ndarray:
    """Centers of k-means, [at most num_cells, w] float32; at least one."""
    if len(turned) <= num_cells:
        return turned if len(turned) else np.zeros((1, turned.shape[1]), np.float32)
    with warnings.catch_warnings():
        # The center of a cell that loses all its posts stays unchanged, which is harmless.
        warnings.simplefilter("ignore", UserWarning)
        centers: np.ndarray = kmeans2(turned, num_cells, iter=_ROUNDS, minit="points", seed=0)[0]
    return centers


def _nearest(turned: np.ndarray, centers: np.ndarray) -> np.ndarray:
    half_squares = np.einsum("ij,ij->i", centers, centers) / 2
    nearest = [
        (turned[start : start + _ROWS_AT_ONCE] @ centers.T - half_squares).argmax(axis=1)
        for start in range(0, len(turned), _ROWS_AT_ONCE)
    ]
    return np.concatenate([np.empty(0, np.int64), *nearest])


def _near_each_other(centers: np.ndarray) -> np.ndarray:
    """An order of the centers in which successive ones are near each other: [num_cells] int64.

    They are halved along the number that spreads most, again and again (a k-d tree, Bentley 1975).
    """
    ordered, waiting = [], [np.arange(len(centers))]
    while waiting:
        some = waiting.pop()
        if len(some) < 3:
            ordered.append(some)
            continue
        axis = np.ptp(centers[some], axis=0).argmax()
        some = some[np.argsort(centers[some, axis], kind="stable")]
        waiting += [some[len(some) // 2 :], some[: len(some) // 2]]
    return np.concatenate(ordered)


def leading_width(width: int) -> int:
    """Number of values that bound a post's scores: the leading ones of `width`, and the norm of the others."""
    return min(width, max(_CELL_WIDTH, 32 * round(_BOUND_SHARE * width / 32))) + 1


class Ordered(NamedTuple):
    """Outputs of `OrderByCell`.

    Attributes:
      parts: the catalog, each post with the numbers `leading`, in the basis of the cells.
      regions: a block of schemas.regions per part.
    """

    parts: beam.PCollection[tuple[int, pa.RecordBatch]]
    regions: beam.PCollection[tuple[int, pa.RecordBatch]]


@dataclasses.dataclass
class OrderByCell(beam.PTransform):
    """(part, block of schemas.candidates) -> the same posts in other parts, sorted by cell and id, and their regions.

    Example:
        fitted = root | beam.Create([items_dir]) | beam.Map(fit, users_dir, num_cells, cells_dir)
        ordered = candidates | OrderByCell(fitted, num_parts=8)
        ordered.parts | parquet.WriteParts(directory, schema)

    Attributes:
      cells: one directory, that `fit` wrote.
      num_parts: parts to come.
    """

    cells: beam.PCollection[str]
    num_parts: int

    def __post_init__(self) -> None:
        shuffle.check_num_parts(self.num_parts)

    def expand(self, parts: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Ordered:
        directory = AsSingleton(self.cells)
        described = (
            parts
            | "FindCell" >> beam.Map(_with_cell, directory, num_parts=self.num_parts)
            | "ByCell" >> shuffle.GroupBlocks("part", self.num_parts)
            | "Sort" >> beam.MapTuple(lambda part, block: (part, blocks.sort(block, "cell", "post_id")))
            | "Describe" >> beam.FlatMap(_describe, directory).with_outputs("regions", main="parts")
        )
        return Ordered(described.parts, described.regions)


def _with_cell(numbered: tuple[int, pa.RecordBatch], directory: str, num_parts: int) -> pa.RecordBatch:
    _, block = numbered
    found = read(directory)
    cell = found.assign(blocks.vectors_to_numpy(block.column("embedding")))
    part = found.parts(cell, block.column("post_id"), num_parts)
    return block.append_column("cell", pa.array(cell)).append_column("part", pa.array(part))


def _describe(numbered: tuple[int, pa.RecordBatch], directory: str) -> Iterator[Any]:
    """The part with each post's bounding numbers, and its runs of posts of one cell with their radius."""
    part, block = numbered
    basis = read(directory).basis
    cell = block.column("cell").to_numpy()
    starts = runs.starts_of(cell)
    stops = np.append(starts[1:], len(cell))
    embeddings = blocks.vectors_to_numpy(block.column("embedding"))
    width = embeddings.shape[1]
    leading = np.empty((len(cell), leading_width(width)), np.float32)
    center = np.empty((len(starts), width), np.float32)
    radius, spread = np.empty(len(starts)), np.empty(len(starts))
    for i, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        centered = embeddings[start:stop].astype(np.float64) - basis.mean
        turned = centered @ basis.to_post
        leading[start:stop] = upper_bounds.leading(turned, leading.shape[1] - 1)
        center[i] = turned.mean(axis=0)
        radius[i] = np.linalg.norm(turned - center[i], axis=1).max()
        spread[i] = np.linalg.norm(centered, axis=1).max()
    yield part, block.drop_columns(["cell", "part"]).append_column("leading", blocks.numpy_to_vectors(leading))
    columns = [pa.array(starts), pa.array(stops - starts), pa.array(cell[starts]), blocks.numpy_to_vectors(center)]
    found = pa.RecordBatch.from_arrays([*columns, pa.array(radius), pa.array(spread)], schema=schemas.regions(width))
    yield beam.pvalue.TaggedOutput("regions", (part, found))

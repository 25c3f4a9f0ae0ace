"""Right singular vectors of a sparse matrix with few columns and any number of rows, never in memory as a whole.

Every worker has the whole basis in memory, [num_columns, rank + OVERSAMPLING] float64, a few times over: 50,000 columns
at rank 128 are 58 MB. Where rows and columns both grow with the data, `transforms.linalg.subspace_iteration` has both
sides on disk instead. For a matrix of few columns that costs a tall array A X of all rows a pass, written and read.

Method: subspace iteration from a random start, X <- orth(A^T (A X)), then the Rayleigh-Ritz step (Halko, Martinsson,
Tropp 2011, "Finding structure with randomness", algorithms 4.4 and 5.1). Each pass reads the rows again.

All sums are exact, so that the result is the same bit for bit however the rows are cut into parts: A, X and A X are
rounded to multiples of a power of two so small and so large that every partial sum is a whole number of units below
2^53, which float64 adds without rounding. The rounding is random noise of 2^-17 in entries of a row of length 1 (a
million rows: 2^-16), far below the truncation error.
"""

import concurrent.futures
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import scipy.sparse as sp
from apache_beam.transforms.window import GlobalWindows

from transforms.linalg import pca
from transforms.tables import arrays, files

NUM_THREADS = min(4, os.cpu_count() or 1)
OVERSAMPLING = 16
PASSES = 4
BASIS_BITS = 24
MAX_BITS = 20

Rows = Iterable[sp.csr_array]


@dataclasses.dataclass
class RandomizedSvd(beam.PTransform):
    """Keys of row blocks -> right singular vectors of the matrix of all their rows.

    These are [num_columns, rank] float64, orthonormal columns by falling singular value, the largest entry of each
    positive; fewer columns where the matrix has a smaller rank.

    Example:
        directories | RandomizedSvd(read_rows, num_rows=1_000_000, num_columns=50_000, directory=scratch, rank=128)

    Attributes:
      rows_of: sparse rows of a key, in blocks of some thousands: [num_rows, num_columns], no row longer than 1. Called
        in every pass; has to give the same rows each time.
      num_rows: rows of the whole matrix (or more); determines the rounding unit of the entries.
      num_columns: columns of the matrix.
      directory: for arrays as large as the basis between steps; passed as elements they were copied ten times.
      rank: number of singular vectors.
      seed: of the random start.
    """

    rows_of: Callable[[Any], Rows]
    num_rows: int
    num_columns: int
    directory: str
    rank: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_rows", "num_columns", "rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def expand(self, keys: beam.PCollection[Any]) -> beam.PCollection[np.ndarray]:
        shape = (self.num_columns, min(self.rank + OVERSAMPLING, self.num_columns))
        rows = _RoundedRows(self.rows_of, entry_bits(self.num_rows))
        start = keys.pipeline | "Start" >> beam.Create([self.seed])
        basis = start | "Random" >> beam.Map(_write_random_basis, shape, self.directory)
        for number in range(1, PASSES + 1):
            products = keys | f"Multiply{number}" >> beam.ParDo(
                _Multiply(rows, self.directory, number), beam.pvalue.AsSingleton(basis)
            )
            gathered = products | f"Gather{number}" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
            basis = gathered | f"Orthonormalize{number}" >> beam.Map(_write_basis, shape, self.directory, number)
        gram = (
            keys
            | "Project" >> beam.Map(rows.gram, beam.pvalue.AsSingleton(basis))
            | "SumGram" >> beam.CombineGlobally(functools.partial(sum, start=np.zeros((shape[1], shape[1]))))
        )
        return basis | "RayleighRitz" >> beam.Map(_right_vectors, beam.pvalue.AsSingleton(gram), self.rank)


def entry_bits(num_rows: int) -> int:
    """Binary places of rounded entries with which num_rows products of two entries sum exactly in float64."""
    return min(MAX_BITS, (53 - math.ceil(math.log2(num_rows + 1))) // 2)


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """The values rounded to multiples of 2^-bits."""
    scaled = values * 2.0**bits
    np.rint(scaled, out=scaled)
    scaled *= 2.0**-bits
    return scaled


def _write_random_basis(seed: int, shape: tuple[int, int], directory: str) -> str:
    columns = np.random.default_rng(seed).standard_normal(shape)
    return _write(columns / np.linalg.norm(columns, axis=0), directory)


def _write_basis(paths: list[str], shape: tuple[int, int], directory: str, number: int) -> str:
    """Path of the orthonormal basis of the sum of the products that `_Multiply` wrote.

    All but the last basis only have to span the right space, so one round of orthonormalization is enough.
    """
    columns = np.zeros(shape)
    for path in paths:
        columns += arrays.load(path)
    for _ in range(2 if number == PASSES else 1):
        columns = columns @ pca.whiten(columns.T @ columns)[0]
    written = _write(columns, directory)
    # Those of the previous step: a retried step still finds its own.
    files.delete(_products(directory, number - 1))
    return written


def _products(directory: str, number: int) -> str:
    path: str = files.join(directory, f"products-{number}")
    return path


def _write(array: np.ndarray, directory: str) -> str:
    """Path of the array in a new file: `_pieces` caches by path."""
    path: str = files.join(directory, f"{files.new_id()}.npy")
    arrays.save(path, array)
    return path


@dataclasses.dataclass(frozen=True)
class _RoundedRows:
    """The rows of keys, with entries that are multiples of 2^-bits."""

    rows_of: Callable[[Any], Rows]
    bits: int

    def __call__(self, key: Any) -> Iterator[sp.csr_array]:
        for rows in self.rows_of(key):
            yield sp.csr_array((rounded(rows.data, self.bits), rows.indices, rows.indptr), shape=rows.shape)

    def project(self, rows: sp.csr_array, piece: np.ndarray) -> np.ndarray:
        """Rounded rows times a piece of the basis, rounded: [n, width] float64.

        In float32, which represents the factors exactly; the summation error is far below the rounding error, and a row
        is summed in the order of its columns, independently of the other rows.
        """
        product = rows.astype(np.float32) @ piece
        product *= np.float32(2.0**self.bits)
        np.rint(product, out=product)
        return np.multiply(product, 2.0**-self.bits, dtype=np.float64)

    def add_product(self, rows: sp.csr_array, piece: np.ndarray, total: np.ndarray) -> None:
        """Adds A^T (A X) of some rows, exact in units of 2^(-2 bits)."""
        # The transposed rows stay as they are, sorted by row: half the time of rows sorted by column.
        total += rows.T @ self.project(rows, piece)

    def gram(self, key: Any, basis: str) -> np.ndarray:
        """(A X)^T (A X) of the rows of one key: [width, width] float64."""
        pieces = _pieces(basis)
        width = sum(piece.shape[1] for piece in pieces)
        gram = np.zeros((width, width))
        for rows in self(key):
            projected = np.hstack(_in_threads(functools.partial(self.project, rows), pieces))
            gram += projected.T @ projected
        return gram


class _Multiply(beam.DoFn):
    """Keys -> paths of A^T (A X), one per bundle over the rows of all its keys."""

    def __init__(self, rows: _RoundedRows, directory: str, number: int) -> None:
        self.rows, self.directory, self.number = rows, directory, number

    def start_bundle(self) -> None:
        self.totals: list[np.ndarray] = []

    def process(self, key: Any, basis: str) -> None:
        pieces = _pieces(basis)
        self.totals = self.totals or [np.zeros(piece.shape) for piece in pieces]
        for rows in self.rows(key):
            _in_threads(functools.partial(self.rows.add_product, rows), pieces, self.totals)

    @beam.typehints.with_output_types(str)
    def finish_bundle(self) -> Iterator[Any]:
        if self.totals:
            path = _write(np.hstack(self.totals), _products(self.directory, self.number))
            yield GlobalWindows.windowed_value(path)
        self.start_bundle()


@functools.lru_cache(maxsize=1)
def _pieces(path: str) -> list[np.ndarray]:
    """The rounded basis split by columns, one piece per thread; the result of a column depends on no other column.

    As float32, which represents BASIS_BITS binary places of numbers up to 1.
    """
    basis = arrays.load(path)
    number = min(NUM_THREADS, basis.shape[1])
    pieces = np.array_split(basis, number, axis=1)
    return [rounded(np.ascontiguousarray(piece), BASIS_BITS).astype(np.float32) for piece in pieces]


def _in_threads(work: Callable[..., Any], *arguments: list[np.ndarray]) -> list[Any]:
    """Results of `work` over the arguments, in threads: scipy's sparse products and numpy release the GIL."""
    with concurrent.futures.ThreadPoolExecutor(len(arguments[0])) as threads:
        return list(threads.map(work, *arguments))


def _right_vectors(basis: str, projected: np.ndarray, rank: int) -> np.ndarray:
    _, directions = pca.principal_components(projected, rank)
    return fix_signs(arrays.load(basis) @ directions)


def fix_signs(components: np.ndarray) -> np.ndarray:
    """The columns, each with its largest entry positive (the first of entries that are as large but for rounding)."""
    sizes = np.abs(components)
    largest = np.argmax(sizes >= sizes.max(axis=0, initial=0) * (1 - 1e-6), axis=0)
    signs = np.sign(components[largest, np.arange(components.shape[1])])
    return components * np.where(signs == 0, 1, signs)

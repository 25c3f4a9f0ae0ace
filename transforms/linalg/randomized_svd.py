"""Primitive 2, bounded form: truncated SVD of a sparse matrix with any number of rows, never in memory as a whole.

Every worker has the whole basis in memory, [num_columns, rank + oversampling] float64, a few times over: this
form is for matrices with a bounded number of columns (a vocabulary; 50,000 columns at rank 128 are 58 MB). Where rows
and columns both grow with the data, `transforms.linalg.sparse` joins instead.

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
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import scipy.sparse as sp
from apache_beam.transforms.window import GlobalWindows

from transforms.tables import arrays
from transforms.tables.files import delete, join, new_id

NUM_THREADS = min(4, os.cpu_count() or 1)
BASIS_BITS = 24
MAX_BITS = 20
# Singular values below this share of the largest are rounding errors around zero.
RANK_TOLERANCE = 1e-4
GRAM_TOLERANCE = 1e-13


class Svd(NamedTuple):
    """Right singular vectors, singular values and total energy.

    Attributes:
      singular_values: [rank] float64, descending, none of them zero: rank may be less than requested.
      components: [num_columns, rank] float64, orthonormal columns, the largest entry of each positive.
      energy: the sum of all squared entries of the matrix; sum(singular_values^2) / energy is the share captured.
    """

    singular_values: np.ndarray
    components: np.ndarray
    energy: float


class FinalSums(NamedTuple):
    gram: np.ndarray
    energy: float


@dataclasses.dataclass
class RandomizedSvd(beam.PTransform):
    """Keys of row blocks (e.g. file names) -> one Svd of the matrix of all their rows.

    Attributes:
      rows_of: yields the sparse rows of a key, in blocks of some thousands: [num_rows, num_columns], no row longer
        than 1. Called in every pass; has to yield the same rows each time.
      num_rows: rows of the whole matrix (or more); determines the rounding unit of the entries.
      num_columns: columns of the matrix.
      directory: for arrays as large as the basis between steps; passed as elements they were copied ten times.
      rank: number of singular vectors.
      oversampling: additional directions, for accuracy.
      passes: power iterations.
      seed: of the random start.
    """

    rows_of: Callable[[Any], Iterable[sp.csr_array]]
    num_rows: int
    num_columns: int
    directory: str
    rank: int
    oversampling: int = 16
    passes: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        for name in ("num_rows", "num_columns", "rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def expand(self, keys: beam.PCollection[Any]) -> beam.PCollection[Svd]:
        shape = (self.num_columns, min(self.rank + self.oversampling, self.num_columns))
        bits = entry_bits(self.num_rows)
        start = keys.pipeline | "Start" >> beam.Create([self.seed])
        basis = start | "Random" >> beam.Map(_write_random_basis, shape, self.directory)
        for number in range(1, self.passes + 1):
            basis = (
                keys
                | f"Multiply{number}"
                >> beam.ParDo(_Multiply(self.rows_of, bits, self.directory, number), beam.pvalue.AsSingleton(basis))
                | f"Gather{number}" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
                | f"Orthonormalize{number}"
                >> beam.Map(_write_basis, shape, self.directory, number, number == self.passes)
            )
        final = (
            keys
            | "Project" >> beam.Map(_gram, beam.pvalue.AsSingleton(basis), self.rows_of, bits)
            | "SumGram" >> beam.CombineGlobally(_sum_final)
        )
        return basis | "RayleighRitz" >> beam.Map(_read_and_solve, beam.pvalue.AsSingleton(final), self.rank)


def entry_bits(num_rows: int) -> int:
    """Binary places of rounded entries with which num_rows products of two entries sum exactly in float64."""
    return min(MAX_BITS, (53 - math.ceil(math.log2(num_rows + 1))) // 2)


def _write_random_basis(seed: int, shape: tuple[int, int], directory: str) -> str:
    columns = np.random.default_rng(seed).standard_normal(shape)
    return _write(columns / np.linalg.norm(columns, axis=0), directory, "basis", 0)


def _write_basis(paths: list[str], shape: tuple[int, int], directory: str, number: int, last: bool) -> str:
    """Path of the orthonormal basis of the sum of the products that `_Multiply` wrote.

    All but the last basis only have to span the right space, so one round of `orthonormalize` is enough.
    """
    total = np.zeros(shape)
    for path in paths:
        total += arrays.load(path)
    written = _write(orthonormalize(total, 2 if last else 1), directory, "basis", number)
    # Those of the previous step: a retried step still finds its own.
    before = _directory(directory, "products", number - 1)
    delete(before)
    return written


def _write(array: np.ndarray, directory: str, kind: str, number: int) -> str:
    path: str = join(_directory(directory, kind, number), f"{new_id()}.npy")
    arrays.save(path, array)
    return path


def _directory(directory: str, kind: str, number: int) -> str:
    path: str = join(directory, f"{kind}-{number}")
    return path


def orthonormalize(columns: np.ndarray, rounds: int = 2) -> np.ndarray:
    """An orthonormal basis of the columns' span, same shape, float64; columns of zeros where it has fewer dimensions.

    Uses the Gram matrix, in two rounds (Cholesky-QR2 with eigenvectors instead of the Cholesky factor, which fails for
    linearly dependent columns): matrix products, where LAPACK's QR took 12 s instead of 2 on two busy cores.
    """
    for _ in range(rounds):
        values, vectors = np.linalg.eigh(columns.T @ columns)
        kept = values > GRAM_TOLERANCE * max(values[-1], np.finfo(float).tiny)
        columns = columns @ (vectors * np.where(kept, 1 / np.sqrt(np.where(kept, values, 1)), 0))
    return columns


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """The values rounded to multiples of 2^-bits."""
    scaled = values * 2.0**bits
    np.rint(scaled, out=scaled)
    scaled *= 2.0**-bits
    return scaled


def _rounded_rows(rows: sp.csr_array, bits: int) -> sp.csr_array:
    return sp.csr_array((rounded(rows.data, bits), rows.indices, rows.indptr), shape=rows.shape)


class _Multiply(beam.DoFn):
    """Keys -> paths of A^T (A X), one per bundle over the rows of all its keys; exact in units of 2^(-2 bits)."""

    def __init__(
        self, rows_of: Callable[[Any], Iterable[sp.csr_array]], bits: int, directory: str, number: int
    ) -> None:
        self.rows_of, self.bits, self.directory, self.number = rows_of, bits, directory, number

    def start_bundle(self) -> None:
        self.pieces: list[np.ndarray] = []
        self.totals: list[np.ndarray] = []

    def process(self, key: Any, basis: str) -> None:
        if not self.pieces:
            self.pieces = _pieces(basis)
            self.totals = [np.zeros(piece.shape) for piece in self.pieces]
        for block in self.rows_of(key):
            rows = _rounded_rows(block, self.bits)
            _in_threads(functools.partial(_add_product, rows, self.bits), self.pieces, self.totals)

    @beam.typehints.with_output_types(str)
    def finish_bundle(self) -> Iterator[Any]:
        if self.totals:
            path = _write(np.hstack(self.totals), self.directory, "products", self.number)
            yield GlobalWindows.windowed_value(path)
        self.start_bundle()


def _add_product(rows: sp.csr_array, bits: int, piece: np.ndarray, total: np.ndarray) -> None:
    # The transposed rows stay as they are, sorted by row: half the time of rows sorted by column.
    total += rows.T @ _project(rows, bits, piece)


def _gram(key: Any, basis: str, rows_of: Callable[[Any], Iterable[sp.csr_array]], bits: int) -> FinalSums:
    """(A X)^T (A X) of the rows of one key: [width, width] float64, and the sum of squares of the rows."""
    pieces = _pieces(basis)
    width = sum(piece.shape[1] for piece in pieces)
    gram = np.zeros((width, width))
    energy = 0.0
    for block in rows_of(key):
        rows = _rounded_rows(block, bits)
        projected = np.hstack(_in_threads(functools.partial(_project, rows, bits), pieces))
        gram += projected.T @ projected
        energy += float(rows.data @ rows.data)
    return FinalSums(gram, energy)


def _project(rows: sp.csr_array, bits: int, piece: np.ndarray) -> np.ndarray:
    """Rounded rows times a piece of the basis, rounded: [n, width] float64.

    In float32, which represents the factors exactly; the summation error is far below the rounding error, and a row is
    summed in the order of its columns, independently of the other rows.
    """
    product = rows.astype(np.float32) @ piece
    product *= np.float32(2.0**bits)
    np.rint(product, out=product)
    return np.multiply(product, 2.0**-bits, dtype=np.float64)


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


def _sum_final(sums: Iterable[FinalSums | None]) -> FinalSums | None:
    present = [value for value in sums if value is not None]
    if not present:
        return None
    gram = np.add.reduce([value.gram for value in present])
    return FinalSums(gram, math.fsum(value.energy for value in present))


def _read_and_solve(basis: str, final: FinalSums | None, rank: int) -> Svd:
    return rayleigh_ritz(arrays.load(basis), final, rank)


def rayleigh_ritz(basis: np.ndarray, final: FinalSums | None, rank: int) -> Svd:
    """The best singular vectors inside the span of the basis, given (A X)^T (A X)."""
    if final is None:
        return Svd(np.zeros(0), np.zeros((len(basis), 0)), 0.0)
    values, vectors = np.linalg.eigh(final.gram)
    singular = np.sqrt(np.maximum(values[::-1], 0))
    kept = min(rank, int(np.sum(singular > RANK_TOLERANCE * singular[0])))
    components = fix_signs(basis @ vectors[:, ::-1][:, :kept])
    return Svd(singular[:kept], components, final.energy)


def fix_signs(components: np.ndarray) -> np.ndarray:
    """The columns, each with its largest entry positive (the first of entries that are as large but for rounding)."""
    sizes = np.abs(components)
    largest = np.argmax(sizes >= sizes.max(axis=0, initial=0) * (1 - 1e-6), axis=0)
    signs = np.sign(components[largest, np.arange(components.shape[1])])
    return components * np.where(signs == 0, 1, signs)

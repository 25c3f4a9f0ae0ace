"""Collaborative factors of posts: the truncated SVD of the matrix of interactions, of any number of users and posts.

Method: subspace iteration from a random start (Halko, Martinsson, Tropp 2011, "Finding structure with randomness",
algorithms 4.4 and 5.1) with dynamic shifts (Feng, Yu, Xie, Tang 2024, "Algorithm 1043: Faster Randomized SVD with
Dynamic Shifts", ACM TOMS 50): Z <- (A^T A - shift) V, then V <- orth(Z), and at the end the Rayleigh-Ritz step. The
shift makes six passes as good as seven to eight of sklearn's.

The matrix lies in tiles (transforms.tiled_matrix). The tall arrays, Z by part of posts and Y = A V by part of users,
lie beside it, and a pass writes them anew; what travels between workers is the number of a part that is done, on which
the next step waits as a side input, and square matrices of width factors + oversampling. V itself is never written:
V = Z T, where T^T (Z^T Z) T = 1 (Cholesky-QR, with eigenvectors in the place of the Cholesky factor, which does not
exist where columns depend on each other).
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from transforms import arrays, blocks, interaction_matrix, schemas
from transforms.svd import GRAM_TOLERANCE, RANK_TOLERANCE
from transforms.tiled_matrix import TiledMatrix

OVERSAMPLING = 16
PASSES = 6
PASSES_ALONE = 10


class Basis(NamedTuple):
    """An orthonormal basis V = Z @ transform of the Z that the last step has written, and the shift of the next."""

    transform: np.ndarray
    shift: float


class Solution(NamedTuple):
    """The truncated SVD, in terms of the last Z.

    Attributes:
      singular_values: [F] float64, falling, none of them zero: F may be less than was asked for.
      transform: [width, F] float64, Z @ transform are the right singular vectors.
      energy: the sum of all squared entries; sum(singular_values^2) / energy is the share captured.
      step: the pass that wrote this Z.
    """

    singular_values: np.ndarray
    transform: np.ndarray
    energy: float
    step: int


class PostSums(NamedTuple):
    gram: np.ndarray
    probe: np.ndarray


class UserSums(NamedTuple):
    gram: np.ndarray
    energy: float


def max_factors(matrix: TiledMatrix, factors: int) -> int:
    """How many factors a matrix can have at most: 0 where there are fewer than two users or posts."""
    return max(0, min(factors, matrix.num_rows - 1, matrix.num_columns - 1))


def choose_passes(matrix: TiledMatrix) -> int:
    """Power iterations for a matrix: more where they cost nothing to speak of."""
    return PASSES_ALONE if is_small(matrix) else PASSES


def is_small(matrix: TiledMatrix) -> bool:
    """Whether a matrix has one part of users and one of posts, so that there is nothing to spread."""
    return len(matrix.row_parts) == len(matrix.column_parts) == 1


@dataclasses.dataclass
class FactorizeMatrix(beam.PTransform):
    """Pipeline -> one Solution of the matrix.

    The same matrix gives the same bits, however many workers there are; cut into other parts, the same but for
    rounding. The sign of a factor is such that its product with random numbers told by the posts' ids is positive (the
    largest entry would do as well where it is the only one of its size).

    Attributes:
      matrix: of users and posts, made by interaction_matrix.MakeMatrix.
      factors: singular vectors wanted, at least 1 and at most `max_factors`.
      oversampling: further directions carried along for accuracy.
      passes: power iterations; each reads the matrix twice.
      seed: of the random start, which is told by the posts' ids, not by their places.
    """

    matrix: TiledMatrix
    factors: int
    oversampling: int = OVERSAMPLING
    passes: int = PASSES
    seed: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        limit = max_factors(self.matrix, self.factors)
        if not 1 <= self.factors <= limit:
            raise ValueError(f"factors must be in [1, {limit}], got {self.factors}")
        if self.passes < 1:
            raise ValueError(f"passes must be at least 1, got {self.passes}")

    def expand(self, root: beam.Pipeline) -> beam.PCollection[Solution]:
        work = Work(self.matrix, self.width, self.seed)
        if is_small(self.matrix):
            return root | "Alone" >> beam.Create([work]) | "Solve" >> beam.Map(solve_alone, self.factors, self.passes)
        users = root | "UserParts" >> beam.Create([(part, None) for part in sorted(self.matrix.row_parts)])
        posts = root | "PostParts" >> beam.Create([(part, None) for part in sorted(self.matrix.column_parts)])
        random = posts | "SpreadStart" >> Spread() | "Start" >> beam.Map(work.start)
        basis = random | "SumStart" >> SumInOrder() | "OrthonormaliseStart" >> beam.Map(_first_basis)
        for number in range(1, self.passes + 1):
            side = beam.pvalue.AsSingleton(basis)
            done = (
                users
                | f"SpreadUsers{number}" >> Spread()
                | f"Multiply{number}" >> beam.Map(work.multiply, side, number)
            )
            grams = (
                posts
                | f"SpreadPosts{number}" >> Spread()
                | f"MultiplyBack{number}" >> beam.Map(work.multiply_back, side, beam.pvalue.AsList(done), number)
            )
            summed = grams | f"SumGram{number}" >> SumInOrder()
            basis = summed | f"Orthonormalise{number}" >> beam.Map(orthonormalise, side)
        return self._solve(users, posts, basis, work)

    @property
    def width(self) -> int:
        """Columns of the tall arrays."""
        return min(self.factors + self.oversampling, self.matrix.num_rows, self.matrix.num_columns)

    def _solve(
        self,
        users: beam.PCollection[tuple[int, None]],
        posts: beam.PCollection[tuple[int, None]],
        basis: beam.PCollection[Basis],
        work: "Work",
    ) -> beam.PCollection[Solution]:
        # Orthonormal once more, for what the condition number has left of rounding (Cholesky-QR2).
        side, last = beam.pvalue.AsSingleton(basis), self.passes
        probed = posts | "SpreadProbe" >> Spread() | "Probe" >> beam.Map(work.probe, side, last)
        again = probed | "SumProbe" >> SumInOrder() | "OrthonormaliseAgain" >> beam.Map(_refine, side)
        projected = (
            users
            | "SpreadProject" >> Spread()
            | "Project" >> beam.Map(work.project, beam.pvalue.AsSingleton(again), last)
            | "SumProject" >> SumInOrder()
        )
        return projected | "RayleighRitz" >> beam.Map(_solve, beam.pvalue.AsSingleton(again), self.factors, last)


@dataclasses.dataclass
class ReadFactors(beam.PTransform):
    """Pipeline -> (part, block of schemas.collaborative(F)): a row for each post of the matrix, sorted by id.

    Attributes:
      matrix: that was factorised.
      solution: what FactorizeMatrix gave.
    """

    matrix: TiledMatrix
    solution: Solution

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, root: beam.Pipeline) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        return (
            root
            | "PostParts" >> beam.Create(sorted(self.matrix.column_parts))
            | "Spread" >> beam.Reshuffle()
            | "FactorsOfPart" >> beam.Map(factors_of_part, self.matrix.directory, self.solution)
        )


def write_solution(solution: Solution, directory: str) -> None:
    """Writes a solution beside its matrix."""
    for name in ("singular_values", "transform"):
        arrays.save(FileSystems.join(directory, f"{name}.npy"), getattr(solution, name))
    arrays.save(FileSystems.join(directory, "scalars.npy"), np.array([solution.energy, solution.step]))


def read_solution(directory: str) -> Solution:
    """The solution that lies beside a matrix."""
    values, transform, scalars = (
        np.array(arrays.load(FileSystems.join(directory, f"{name}.npy")))
        for name in ("singular_values", "transform", "scalars")
    )
    return Solution(values, transform, float(scalars[0]), int(scalars[1]))


def factors_of_part(part: int, directory: str, solution: Solution) -> tuple[int, pa.RecordBatch]:
    """The factors of a part's posts: (part, block of schemas.collaborative)."""
    posts = interaction_matrix.read_posts(directory, part)
    factors = arrays.load(_tall(directory, "posts", part, solution.step)) @ solution.transform
    schema = schemas.collaborative(len(solution.singular_values))
    columns = [posts.column("post_id"), blocks.numpy_to_vectors(factors), posts.column("degree")]
    return part, pa.RecordBatch.from_arrays(columns, schema=schema)


@dataclasses.dataclass(frozen=True)
class Work:
    """What is done with a part: each method reads files that an earlier step has written, and writes its own."""

    matrix: TiledMatrix
    width: int
    seed: int

    def start(self, part: int) -> tuple[int, np.ndarray]:
        """Writes the random Z of a part of posts: (part, Z^T Z)."""
        posts = interaction_matrix.read_posts(self.matrix.directory, part)
        return self._write_posts(part, 0, gaussian(posts.column("post_id"), self.width, self.seed))

    def multiply(self, part: int, basis: Basis, number: int) -> int:
        """Writes Y = A V of a part of users, where V is of the pass before."""
        product = self.matrix.times(part, self._reader("posts", number - 1), self.width) @ basis.transform
        arrays.delete(self._path("users", part, number - 1))
        arrays.save(self._path("users", part, number), product)
        return part

    def multiply_back(self, part: int, basis: Basis, done: list[int], number: int) -> tuple[int, np.ndarray]:
        """Writes Z = A^T Y - shift V of a part of posts, when all of Y is there: (part, Z^T Z)."""
        del done  # waited for
        product = self.matrix.transposed_times(part, self._reader("users", number), self.width)
        if basis.shift:
            product -= basis.shift * (self._load("posts", part, number - 1) @ basis.transform)
        arrays.delete(self._path("posts", part, number - 2))
        return self._write_posts(part, number, product)

    def probe(self, part: int, basis: Basis, number: int) -> tuple[int, PostSums]:
        """(part, V^T V and the product of random numbers with V), of a part of posts."""
        vectors = self._load("posts", part, number) @ basis.transform
        posts = interaction_matrix.read_posts(self.matrix.directory, part)
        random = gaussian(posts.column("post_id"), 1, self.seed + 1)
        return part, PostSums(vectors.T @ vectors, random[:, 0] @ vectors)

    def project(self, part: int, final: "Final", number: int) -> tuple[int, UserSums]:
        """(part, (A V)^T (A V) and the squares of the entries), of a part of users."""
        product = self.matrix.times(part, self._reader("posts", number), self.width) @ final.transform
        return part, UserSums(product.T @ product, self.matrix.squares(part))

    def _write_posts(self, part: int, number: int, values: np.ndarray) -> tuple[int, np.ndarray]:
        arrays.save(self._path("posts", part, number), values)
        return part, values.T @ values

    def _reader(self, side: str, number: int) -> Callable[[int], np.ndarray]:
        return lambda part: self._load(side, part, number)

    def _load(self, side: str, part: int, number: int) -> np.ndarray:
        return arrays.load(self._path(side, part, number))

    def _path(self, side: str, part: int, number: int) -> str:
        return _tall(self.matrix.directory, side, part, number)


def solve_alone(work: Work, factors: int, passes: int) -> Solution:
    """What FactorizeMatrix does, step by step in one worker: for a matrix of one part, where spreading only costs."""
    users, posts = sorted(work.matrix.row_parts), sorted(work.matrix.column_parts)
    basis = _first_basis(sum_in_order(map(work.start, posts)))
    for number in range(1, passes + 1):
        done = [work.multiply(part, basis, number) for part in users]
        grams = [work.multiply_back(part, basis, done, number) for part in posts]
        basis = orthonormalise(sum_in_order(grams), basis)
    final = _refine(sum_in_order(work.probe(part, basis, passes) for part in posts), basis)
    return _solve(sum_in_order(work.project(part, final, passes) for part in users), final, factors, passes)


def _tall(directory: str, side: str, part: int, number: int) -> str:
    return FileSystems.join(directory, "tall", f"{side}-{part:05d}-{number}.npy")


class Spread(beam.PTransform):
    """(part, None) elements -> parts, on as many workers as there are.

    What a Reshuffle does in twice as many steps; a graph's steps are what a small matrix takes its time from.
    """

    def expand(self, parts: beam.PCollection[tuple[int, None]]) -> beam.PCollection[int]:
        return parts | "ByPart" >> beam.GroupByKey() | "Parts" >> beam.Keys()


class SumInOrder(beam.PTransform):
    """(part, array or tuple of arrays) elements -> one element, the sum, taken in the order of the parts."""

    def expand(self, numbered: beam.PCollection[tuple[int, Any]]) -> beam.PCollection[Any]:
        return (
            numbered
            | "Together" >> beam.Map(lambda element: (0, element))
            | "Gather" >> beam.GroupByKey()
            | "Sum" >> beam.Map(lambda gathered: sum_in_order(gathered[1]))
        )


def sum_in_order(numbered: Iterable[tuple[int, Any]]) -> Any:
    """The sum of arrays, or of tuples of them one by one, in the order of their numbers."""
    values = [value for _, value in sorted(numbered, key=lambda element: element[0])]
    if isinstance(values[0], tuple):
        return type(values[0])(*(sum(column[1:], column[0]) for column in zip(*values, strict=True)))
    return sum(values[1:], values[0])


def gaussian(ids: pa.Array, width: int, seed: int) -> np.ndarray:
    """Normal random numbers told by ids: [n, width] float64, the same for an id wherever it stands.

    From 64 random bits each, by the Box-Muller transform.
    """
    pairs = (width + 1) // 2
    state = blocks.splitmix(blocks.stable_hash(ids) ^ blocks.splitmix(np.array([seed], np.uint64)))
    counters = np.arange(1, pairs + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = blocks.splitmix(state[:, None] + counters)
    radius = np.sqrt(-2 * np.log(((bits >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32))
    angle = (bits & np.uint64(0xFFFFFFFF)).astype(np.float64) * (2 * np.pi * 2.0**-32)
    return np.hstack([radius * np.cos(angle), radius * np.sin(angle)])[:, :width]


def orthonormalise(gram: np.ndarray, before: Basis) -> Basis:
    """The basis for a Z of this Gram matrix, and the next shift.

    Singular values of Z are those of A^T A - shift on the subspace; the shift moves half-way up to the smallest, and
    stays below half the square of the singular value that is wanted last (Feng et al., section 3.2).
    """
    transform, values = whiten(gram)
    smallest = float(values[0])
    shift = (before.shift + smallest) / 2 if smallest > before.shift else before.shift
    return Basis(transform, shift)


def _first_basis(gram: np.ndarray) -> Basis:
    return Basis(whiten(gram)[0], 0.0)


def whiten(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T with T^T gram T = 1, [w, w]; roots of the eigenvalues rising, [w]); columns of zeros where rank is missing."""
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    kept = values > GRAM_TOLERANCE * max(values[-1], np.finfo(float).tiny)
    roots = np.sqrt(np.where(kept, values, 0))
    return vectors * np.where(kept, 1 / np.where(kept, roots, 1), 0), roots


class Final(NamedTuple):
    transform: np.ndarray
    probe: np.ndarray


def _refine(sums: PostSums, basis: Basis) -> Final:
    again, _ = whiten(sums.gram)
    return Final(basis.transform @ again, sums.probe @ again)


def _solve(sums: UserSums, final: Final, factors: int, step: int) -> Solution:
    """The best singular vectors inside the span of the basis, given (A V)^T (A V)."""
    values, vectors = np.linalg.eigh((sums.gram + sums.gram.T) / 2)
    singular = np.sqrt(np.maximum(values[::-1], 0))
    kept = min(factors, int(np.sum(singular > RANK_TOLERANCE * singular[0])))
    chosen = vectors[:, ::-1][:, :kept]
    signs = np.where(final.probe @ chosen < 0, -1.0, 1.0)
    return Solution(singular[:kept], final.transform @ chosen * signs, sums.energy, step)

"""Collaborative factors of posts: the truncated SVD of the matrix of interactions, of any number of users and posts.

The matrix lies in tiles (transforms.linalg.tiled_matrix), and the tall arrays of transforms.linalg.subspace_iteration,
which has the method, beside it, written anew in every pass.
Workers exchange only the number of a finished part, on which the
next step waits as a side input, and square matrices of width factors + oversampling. So a pass moves no entry, and
a pipeline of many passes holds no more than one part at a time.
"""

import dataclasses
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from transforms.linalg import tiled_matrix
from transforms.linalg.subspace_iteration import (
    Solution,
    SubspaceBasis,
    Work,
    first_basis,
    orthonormalize,
    rayleigh_ritz,
    refine,
    solve_alone,
    sum_in_order,
    tall_path,
)
from transforms.linalg.tiled_matrix import TiledMatrix
from transforms.tables import arrays, blocks, schemas
from transforms.tables.files import join

# Further directions carried along for accuracy.
OVERSAMPLING = 16
PASSES = 6
PASSES_ALONE = 10


def max_factors(matrix: TiledMatrix, factors: int) -> int:
    """Maximum number of factors of a matrix: 0 where there are fewer than two users or posts."""
    return max(0, min(factors, matrix.num_rows - 1, matrix.num_columns - 1))


def choose_passes(matrix: TiledMatrix) -> int:
    """Power iterations for a matrix: more where they cost nothing to speak of."""
    return PASSES_ALONE if is_small(matrix) else PASSES


def is_small(matrix: TiledMatrix) -> bool:
    """True if a matrix has one part of users and one of posts, so that there is nothing to spread."""
    return len(matrix.row_parts) == len(matrix.column_parts) == 1


@dataclasses.dataclass
class FactorizeMatrix(beam.PTransform):
    """Pipeline -> one Solution of the matrix.

    The same matrix gives the same bits, however many workers there are; cut into other parts, the same but for
    rounding. The sign of a factor is such that its product with random numbers seeded by post ids is positive (the
    largest entry would do as well where it is the only one of its size).

    Attributes:
      matrix: of users and posts, made by interaction_matrix.MakeMatrix.
      factors: singular vectors wanted, at least 1 and at most `max_factors`.
      passes: power iterations; each reads the matrix twice.
      seed: of the random start, which is derived from the posts' ids, not from their positions.
    """

    matrix: TiledMatrix
    factors: int
    passes: int = PASSES
    seed: int = 0

    def __post_init__(self) -> None:
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
        basis = random | "SumStart" >> SumInOrder() | "OrthonormalizeStart" >> beam.Map(first_basis)
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
            basis = summed | f"Orthonormalize{number}" >> beam.Map(orthonormalize, side)
        return self._solve(users, posts, basis, work)

    @property
    def width(self) -> int:
        """Columns of the tall arrays."""
        return min(self.factors + OVERSAMPLING, self.matrix.num_rows, self.matrix.num_columns)

    def _solve(
        self,
        users: beam.PCollection[tuple[int, None]],
        posts: beam.PCollection[tuple[int, None]],
        basis: beam.PCollection[SubspaceBasis],
        work: Work,
    ) -> beam.PCollection[Solution]:
        # Orthonormal once more, for what the condition number has left of rounding (Cholesky-QR2).
        side, last = beam.pvalue.AsSingleton(basis), self.passes
        probed = posts | "SpreadProbe" >> Spread() | "Probe" >> beam.Map(work.probe, side, last)
        again = probed | "SumProbe" >> SumInOrder() | "OrthonormalizeAgain" >> beam.Map(refine, side)
        projected = (
            users
            | "SpreadProject" >> Spread()
            | "Project" >> beam.Map(work.project, beam.pvalue.AsSingleton(again), last)
            | "SumProject" >> SumInOrder()
        )
        return projected | "RayleighRitz" >> beam.Map(rayleigh_ritz, beam.pvalue.AsSingleton(again), self.factors, last)


@dataclasses.dataclass
class ReadFactors(beam.PTransform):
    """Pipeline -> (part, block of schemas.collaborative(F)): a row for each post of the matrix, sorted by id.

    Attributes:
      matrix: that was factorized.
      solution: what FactorizeMatrix gave.
    """

    matrix: TiledMatrix
    solution: Solution

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
        arrays.save(join(directory, f"{name}.npy"), getattr(solution, name))
    arrays.save(join(directory, "scalars.npy"), np.array([solution.energy, solution.step]))


def read_solution(directory: str) -> Solution:
    """The solution that lies beside a matrix."""
    values, transform, scalars = (
        np.array(arrays.load(join(directory, f"{name}.npy"))) for name in ("singular_values", "transform", "scalars")
    )
    return Solution(values, transform, float(scalars[0]), int(scalars[1]))


def factors_of_part(part: int, directory: str, solution: Solution) -> tuple[int, pa.RecordBatch]:
    """The factors of a part's posts: (part, block of schemas.collaborative)."""
    posts = tiled_matrix.read_posts(directory, part)
    factors = arrays.load(tall_path(directory, "posts", part, solution.step)) @ solution.transform
    schema = schemas.collaborative(len(solution.singular_values))
    columns = [posts.column("post_id"), blocks.numpy_to_vectors(factors), posts.column("degree")]
    return part, pa.RecordBatch.from_arrays(columns, schema=schema)


class Spread(beam.PTransform):
    """(part, None) elements -> parts, on as many workers as there are.

    Replaces a Reshuffle, which takes twice as many steps; a graph's steps are what a small matrix takes its time from.
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

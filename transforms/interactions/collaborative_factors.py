"""Collaborative factors of posts: truncated SVD of the interaction matrix, for any number of users and posts.

The method is in transforms.linalg.subspace_iteration. The matrix is on disk in tiles (transforms.linalg.tiled_matrix),
and so are the tall arrays, which every pass writes again. Workers exchange only the numbers of finished parts, on which
the next step waits as a side input, and square matrices of width factors + OVERSAMPLING. So no pass shuffles entries,
and no worker holds more than one part at a time.
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
    """Maximum number of factors of a matrix: 0 if there are fewer than two users or posts."""
    return max(0, min(factors, matrix.num_rows - 1, matrix.num_columns - 1))


def choose_passes(matrix: TiledMatrix) -> int:
    """Number of power iterations: more for a small matrix, where they are cheap."""
    return PASSES_ALONE if is_small(matrix) else PASSES


def is_small(matrix: TiledMatrix) -> bool:
    """True if a matrix has one part of users and one of posts: nothing to distribute."""
    return len(matrix.row_parts) == len(matrix.column_parts) == 1


@dataclasses.dataclass
class FactorizeMatrix(beam.PTransform):
    """Pipeline -> one Solution of the matrix.

    The same matrix gives the same bits for any number of workers; split into other parts, the same up to rounding. The
    sign of a factor is such that its product with random numbers seeded by post ids is positive. (The sign of the
    largest entry would depend on rounding where several are as large.)

    Example:
        solved = root | FactorizeMatrix(matrix, factors=64, passes=choose_passes(matrix))
        solved | beam.Map(write_solution, matrix.directory)

    Attributes:
      matrix: of users and posts, written by interaction_matrix.MakeMatrix.
      factors: number of singular vectors, at least 1 and at most `max_factors`.
      passes: power iterations; each reads the matrix twice.
      seed: of the random start, which is derived from the posts' ids, not from their order.
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
        # Orthonormalized a second time, against rounding in an ill-conditioned Z (Cholesky-QR2).
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

    Example:
        found = root | ReadFactors(matrix, read_solution(matrix.directory))
        found | parquet.WriteParts("run/collaborative", schemas.collaborative(64))

    Attributes:
      matrix: input of FactorizeMatrix.
      solution: its output.
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
    """The solution written beside a matrix."""
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
    """(part, None) elements -> parts, redistributed over the workers.

    Replaces a Reshuffle, which has twice as many steps; for a small matrix the time is proportional to steps.

    Example:
        root | beam.Create([(part, None) for part in range(8)]) | Spread() | beam.Map(work.start)
    """

    def expand(self, parts: beam.PCollection[tuple[int, None]]) -> beam.PCollection[int]:
        return parts | "ByPart" >> beam.GroupByKey() | "Parts" >> beam.Keys()


class SumInOrder(beam.PTransform):
    """(part, array or tuple of arrays) elements -> one element, the sum, taken in the order of the parts.

    Example:
        parts | beam.Map(work.start) | SumInOrder() | beam.Map(first_basis)
    """

    def expand(self, numbered: beam.PCollection[tuple[int, Any]]) -> beam.PCollection[Any]:
        return (
            numbered
            | "Together" >> beam.Map(lambda element: (0, element))
            | "Gather" >> beam.GroupByKey()
            | "Sum" >> beam.Map(lambda gathered: sum_in_order(gathered[1]))
        )

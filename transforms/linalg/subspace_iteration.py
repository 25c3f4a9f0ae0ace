"""Subspace iteration on a tiled matrix: the work per part, and the reduction of the sums over all parts.

Method: from a random start (Halko, Martinsson, Tropp 2011, "Finding structure with randomness", algorithms 4.4 and
5.1) with dynamic shifts (Feng, Yu, Xie, Tang 2024, "Algorithm 1043: Faster Randomized SVD with Dynamic Shifts", ACM
TOMS 50): Z <- (A^T A - shift) V, then V <- orth(Z), and at the end the Rayleigh-Ritz step. On a million interactions,
64 factors, six passes with shifts captured what eight did without.

Tall arrays are on disk: Z by part of posts, Y = A V by part of users. V is never written: V = Z T, where
T^T (Z^T Z) T = 1 (Cholesky-QR, with eigenvectors in place of the Cholesky factor, which does not exist for
linearly dependent columns).
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from transforms.linalg import pca, tiled_matrix
from transforms.linalg.tiled_matrix import TiledMatrix
from transforms.tables import arrays, blocks
from transforms.tables.files import delete, join


class SubspaceBasis(NamedTuple):
    """Orthonormal basis V = Z @ transform of the last written Z, and the next shift."""

    transform: np.ndarray
    shift: float


class Solution(NamedTuple):
    """The truncated SVD, in terms of the last Z.

    Attributes:
      singular_values: [F] float64, descending, none of them zero: F may be less than requested.
      transform: [width, F] float64, Z @ transform are the right singular vectors.
      energy: the sum of all squared entries; sum(singular_values^2) / energy is the share captured.
      step: the pass that wrote this Z.
    """

    singular_values: np.ndarray
    transform: np.ndarray
    energy: float
    step: int


class PostSums(NamedTuple):
    """Sums over posts for a basis V: V^T V [w, w], and the product of the posts' random numbers with V [w]."""

    gram: np.ndarray
    probe: np.ndarray


class UserSums(NamedTuple):
    """Sums over users for a basis V: (A V)^T (A V) [w, w], and the sum of the squared entries of A."""

    gram: np.ndarray
    energy: float


class Final(NamedTuple):
    """The last basis, V = Z @ transform, and its probe [w], which determines signs."""

    transform: np.ndarray
    probe: np.ndarray


@dataclasses.dataclass(frozen=True)
class Work:
    """Per-part steps; each method reads files of an earlier step and writes its own."""

    matrix: TiledMatrix
    width: int
    seed: int

    def start(self, part: int) -> tuple[int, np.ndarray]:
        """Writes the random Z of a part of posts: (part, Z^T Z)."""
        posts = tiled_matrix.read_posts(self.matrix.directory, part)
        return self._write_posts(part, 0, gaussian(posts.column("post_id"), self.width, self.seed))

    def multiply(self, part: int, basis: SubspaceBasis, number: int) -> int:
        """Writes Y = A V of a part of users, where V is of the pass before."""
        product = self.matrix.times(part, self._reader("posts", number - 1), self.width) @ basis.transform
        delete(self._path("users", part, number - 1))
        arrays.save(self._path("users", part, number), product)
        return part

    def multiply_back(self, part: int, basis: SubspaceBasis, done: list[int], number: int) -> tuple[int, np.ndarray]:
        """Writes Z = A^T Y - shift V of a part of posts, when all of Y is there: (part, Z^T Z)."""
        del done  # only a dependency
        product = self.matrix.transposed_times(part, self._reader("users", number), self.width)
        if basis.shift:
            product -= basis.shift * (self._load("posts", part, number - 1) @ basis.transform)
        delete(self._path("posts", part, number - 2))
        return self._write_posts(part, number, product)

    def probe(self, part: int, basis: SubspaceBasis, number: int) -> tuple[int, PostSums]:
        """(part, V^T V and the product of random numbers with V), of a part of posts."""
        vectors = self._load("posts", part, number) @ basis.transform
        posts = tiled_matrix.read_posts(self.matrix.directory, part)
        random = gaussian(posts.column("post_id"), 1, self.seed + 1)
        return part, PostSums(vectors.T @ vectors, random[:, 0] @ vectors)

    def project(self, part: int, final: Final, number: int) -> tuple[int, UserSums]:
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
        return tall_path(self.matrix.directory, side, part, number)


def solve_alone(work: Work, factors: int, passes: int) -> Solution:
    """The SVD of FactorizeMatrix, in one worker: for a matrix of one part, where distribution is only overhead."""
    users, posts = sorted(work.matrix.row_parts), sorted(work.matrix.column_parts)
    basis = first_basis(sum_in_order(map(work.start, posts)))
    for number in range(1, passes + 1):
        done = [work.multiply(part, basis, number) for part in users]
        grams = [work.multiply_back(part, basis, done, number) for part in posts]
        basis = orthonormalize(sum_in_order(grams), basis)
    final = refine(sum_in_order(work.probe(part, basis, passes) for part in posts), basis)
    return rayleigh_ritz(sum_in_order(work.project(part, final, passes) for part in users), final, factors, passes)


def tall_path(directory: str, side: str, part: int, number: int) -> str:
    """Path of a pass's tall array for a part of "posts" or "users"."""
    return join(directory, "tall", f"{side}-{part:05d}-{number}.npy")


def sum_in_order(numbered: Iterable[tuple[int, Any]]) -> Any:
    """Sum of arrays, or elementwise of tuples of arrays, in the order of their part numbers."""
    values = [value for _, value in sorted(numbered, key=lambda element: element[0])]
    if isinstance(values[0], tuple):
        return type(values[0])(*(sum(column[1:], column[0]) for column in zip(*values, strict=True)))
    return sum(values[1:], values[0])


def gaussian(ids: pa.Array, width: int, seed: int) -> np.ndarray:
    """Normal random numbers seeded by id: [n, width] float64, the same for an id at any position.

    From 64 random bits each, by the Box-Muller transform.
    """
    pairs = (width + 1) // 2
    state = blocks.splitmix(blocks.stable_hash(ids) ^ blocks.splitmix(np.array([seed], np.uint64)))
    counters = np.arange(1, pairs + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = blocks.splitmix(state[:, None] + counters)
    radius = np.sqrt(-2 * np.log(((bits >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32))
    angle = (bits & np.uint64(0xFFFFFFFF)).astype(np.float64) * (2 * np.pi * 2.0**-32)
    return np.hstack([radius * np.cos(angle), radius * np.sin(angle)])[:, :width]


def orthonormalize(gram: np.ndarray, before: SubspaceBasis) -> SubspaceBasis:
    """The basis for a Z of this Gram matrix, and the next shift.

    Singular values of Z are those of A^T A - shift on the subspace; the shift moves half-way up to the smallest, and
    stays below half the square of the singular value that is wanted last (Feng et al., section 3.2).
    """
    transform, values = pca.whiten(gram)
    smallest = float(values[0])
    shift = (before.shift + smallest) / 2 if smallest > before.shift else before.shift
    return SubspaceBasis(transform, shift)


def first_basis(gram: np.ndarray) -> SubspaceBasis:
    """The basis for a random Z, whose singular values carry no information on the matrix: no shift yet."""
    return SubspaceBasis(pca.whiten(gram)[0], 0.0)


def refine(sums: PostSums, basis: SubspaceBasis) -> Final:
    """The basis orthonormalized once more, given the sums of `Work.probe`."""
    again, _ = pca.whiten(sums.gram)
    return Final(basis.transform @ again, sums.probe @ again)


def rayleigh_ritz(sums: UserSums, final: Final, factors: int, step: int) -> Solution:
    """The best singular vectors inside the span of the basis, given (A V)^T (A V)."""
    singular_values, directions = pca.principal_components(sums.gram, factors)
    signs = np.where(final.probe @ directions < 0, -1.0, 1.0)
    return Solution(singular_values, final.transform @ directions * signs, sums.energy, step)

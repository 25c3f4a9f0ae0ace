"""Exact collaborative factors of a matrix of interactions in memory; the distributed ones are approximate."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

from transforms.embed import formulas
from transforms.tuning.histories import Interactions

# Matrices with at most so many rows or columns are factorized by a dense SVD.
_DENSE = 256
# Singular values below this share of the largest count as zero.
_TOLERANCE = 1e-5


class ExactFactors(NamedTuple):
    """Posts' factors.

    Attributes:
      values: [num_posts, F] float32, rows of V; zeros where the degree is 0.
      singular_values: [F] float64, descending; F may be less than requested, down to 0.
      degree: [num_posts] float64, users who like the post.
    """

    values: np.ndarray
    singular_values: np.ndarray
    degree: np.ndarray

    @property
    def profile_rows(self) -> np.ndarray:
        """V * degree^-1/4: [num_posts, F] float32."""
        scale = np.maximum(self.degree, 1) ** -formulas.DEGREE_POWER
        return self.values * scale.astype(np.float32)[:, None]


def factorize(interactions: Interactions, num_factors: int, seed: int) -> ExactFactors:
    """The `num_factors` leading singular vectors of R / (user degree^1/4 * post degree^1/4), R of `matrix_entries`."""
    matrix = interactions.matrix(formulas.matrix_entries(interactions.strength)).astype(np.float64)
    degree = np.asarray(matrix.sum(axis=0)).ravel()
    user_degree = np.asarray(matrix.sum(axis=1)).ravel()
    users, posts = np.flatnonzero(user_degree), np.flatnonzero(degree)
    values = np.zeros((interactions.num_posts, 0), np.float32)
    if not len(users):
        return ExactFactors(values, np.zeros(0), degree)
    power = -formulas.DEGREE_POWER
    normalized = sp.diags_array(user_degree[users] ** power) @ matrix[users][:, posts]
    normalized = (normalized @ sp.diags_array(degree[posts] ** power)).tocsr()
    singular_values, components = _right_vectors(normalized, num_factors, seed)
    values = np.zeros((interactions.num_posts, len(singular_values)), np.float32)
    values[posts] = components
    return ExactFactors(values, singular_values, degree)


def _right_vectors(matrix: sp.csr_array, rank: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(singular values [r], right singular vectors [columns, r]), r at most `rank`."""
    smaller = min(matrix.shape)
    if smaller <= _DENSE or rank >= smaller:
        _, found, rows = np.linalg.svd(matrix.toarray(), full_matrices=False)
    else:
        start = np.random.default_rng(seed).random(smaller)
        _, found, rows = scipy.sparse.linalg.svds(matrix, k=rank, v0=start, return_singular_vectors=True)
    order = np.argsort(-found, kind="stable")[:rank]
    order = order[found[order] > _TOLERANCE * found.max()]
    return found[order], rows[order].T

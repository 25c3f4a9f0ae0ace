"""Formulas of the item and user vectors: blocks that one inner product adds up. Plain numpy, no Beam.

    item   [own | decoded * (warm_weight, or cold_weight where the degree is 0) | content | trend]
    user   [own / sigma | decoded / sigma | content / sigma * (b * cold_weight) | weight of the trend]

A user's blocks are sums of the profile vectors of the posts in the history, [factors * degree^-1/4 | the same to
another width | content]; sigma is the standard deviation of the scores that a block gives the catalog: it puts all in
one unit for every user. Widths: k (own), kd (decoded), w (content), any of them 0 where there is no block;
the last number is recent popularity (`transforms.embed.trend`).
"""

from typing import NamedTuple

import numpy as np

from transforms.embed.parameters import Mix, Own

# The interaction matrix is divided by user_degree^(1/4) * post_degree^(1/4) before it is factorized.
DEGREE_POWER = 0.25
_TINY = 1e-9


class Widths(NamedTuple):
    """Widths of the blocks, in their order in a vector."""

    own: int
    decoded: int
    content: int

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The blocks' columns."""
        first, second = self.own, self.own + self.decoded
        return slice(0, first), slice(first, second), slice(second, second + self.content)


def matrix_entries(strength: np.ndarray) -> np.ndarray:
    """Entries of the matrix that is factorized, of [n] strengths: 1 where positive, else 0. [n] float32.

    Binary on purpose: strengths and ages in the matrix make the factors worse (ml100k: recall@20 .241 -> .234 with low
    ratings at a half, -> .213 with a half-life of 30 days); they belong into the profile.
    """
    return (strength > 0).astype(np.float32)


def recency_weights(recency: np.ndarray, half_life: float | None) -> np.ndarray:
    """Recency decay of interactions in a profile, [n] like `recency` (rank from the newest / length of the history)."""
    return np.ones_like(recency) if half_life is None else np.power(0.5, recency / half_life, dtype=recency.dtype)


def own_block(factors: np.ndarray, singular_values: np.ndarray, degree: np.ndarray, own: Own) -> np.ndarray:
    """V[:, :rank] * s^2 / (s^2 + shrinkage s_rank^2) * degree^degree_power: [n, min(own.rank, F)].

    Rows of degree 0 are zeros.

    A row of V is the shorter the fewer interactions it comes from: its length is the confidence in it, which
    degree^degree_power (tuned) raises.

    Args:
      factors: [n, F] rows of the right singular vectors V.
      singular_values: [F], falling.
      degree: [n] interactions of the posts.
    """
    k = min(own.rank, len(singular_values))
    squared = np.square(singular_values[:k])
    shrink = squared / np.maximum(squared + own.shrinkage * squared[-1:], _TINY)
    scale = np.where(degree > 0, np.maximum(degree, 1) ** own.degree_power, 0)
    return factors[:, :k] * shrink.astype(factors.dtype) * scale.astype(factors.dtype)[:, None]


def decoded_block(decoded: np.ndarray, singular_values: np.ndarray, k: int, e: float) -> np.ndarray:
    """decoded[:, :k] * s^(e - 1): [n, min(k, F)]. `decoded`, [n, >= k] in units of V, is predicted from content."""
    k = min(k, len(singular_values))
    return decoded[:, :k] * (singular_values[:k] ** (e - 1)).astype(decoded.dtype)


def item_vectors(
    own: np.ndarray, decoded: np.ndarray, content: np.ndarray, degree: np.ndarray, trend: np.ndarray, mix: Mix
) -> np.ndarray:
    """Item vectors [n, k + kd + w + 1] float32.

    Args:
      own: [n, k] of `own_block`.
      decoded: [n, kd] of `decoded_block`.
      content: [n, w] unit rows or zeros.
      degree: [n].
      trend: [n], recent popularity.
    """
    weight = np.where(degree > 0, mix.warm_weight, mix.cold_weight)[:, None]
    blocks = [own, decoded * weight, content, trend[:, None]]
    return np.hstack([block.astype(np.float32) for block in blocks])


def profile_vectors(
    factors: np.ndarray, decoded: np.ndarray, content: np.ndarray, degree: np.ndarray, widths: Widths
) -> np.ndarray:
    """Profile vectors of posts, summed over a history to a user profile: [n, k + kd + w] float32.

    Args:
      factors: [n, F] rows of V, any where the degree is 0.
      decoded: [n, >= max(k, kd)] factors predicted from content, in units of V (before `decoded_block`), used
        where the degree is 0. Missing numbers are zeros.
      content: [n, w] unit rows or zeros.
      degree: [n].
    """
    wide = max(widths.own, widths.decoded)
    has = (degree > 0)[:, None]
    padded = np.zeros((len(degree), wide))
    padded[:, : decoded.shape[1]] = decoded[:, :wide]
    known = np.where(has, factors[:, :wide], padded) * np.maximum(degree, 1)[:, None] ** -DEGREE_POWER
    blocks = [known[:, : widths.own], known[:, : widths.decoded], content]
    return np.hstack([block.astype(np.float32) for block in blocks])


class VectorMoments(NamedTuple):
    """Sums over rows of a block, to be added up over parts: rows, sum [w], sum of outer products [w, w] (float64)."""

    rows: int
    total: np.ndarray
    outer: np.ndarray

    def covariance(self) -> np.ndarray:
        """[w, w] float64; zeros where there is no row."""
        count = max(self.rows, 1)
        mean = self.total / count
        return self.outer / count - np.outer(mean, mean)


def block_moments(
    own: np.ndarray, decoded: np.ndarray, content: np.ndarray, degree: np.ndarray
) -> tuple[VectorMoments, VectorMoments, VectorMoments]:
    """Moments of the blocks before mixing: the own block over posts with interactions, the others over all."""
    return _moments(own[degree > 0]), _moments(decoded), _moments(content)


def _moments(block: np.ndarray) -> VectorMoments:
    exact = block.astype(np.float64)
    return VectorMoments(len(exact), exact.sum(axis=0), exact.T @ exact)


def block_scales(profiles: np.ndarray, covariances: tuple[np.ndarray, ...]) -> np.ndarray:
    """sigma [m, blocks] float64: the standard deviation of the scores that each block of [m, Q] profiles gives."""
    scales = np.zeros((len(profiles), len(covariances)))
    start = 0
    for index, covariance in enumerate(covariances):
        block = profiles[:, start : start + len(covariance)].astype(np.float64)
        scales[:, index] = np.sqrt(np.maximum(np.einsum("ij,ij->i", block @ covariance, block), 0))
        start += len(covariance)
    return scales


def block_factors(profiles: np.ndarray, covariances: tuple[np.ndarray, ...], b: float, mix: Mix) -> np.ndarray:
    """Scale factor of each block of [m, Q] profiles in `user_vectors`: [m, blocks] float64."""
    scales = block_scales(profiles, covariances)
    factors: np.ndarray = np.array([1.0, 1.0, b * mix.cold_weight]) / np.where(scales > _TINY, scales, np.inf)
    return factors


def spread_factors(factors: np.ndarray, covariances: tuple[np.ndarray, ...]) -> np.ndarray:
    """Factors of blocks for each of their numbers: [m, blocks] -> [m, Q]."""
    return np.repeat(factors, [len(covariance) for covariance in covariances], axis=1)


def user_vectors(
    profiles: np.ndarray,
    covariances: tuple[np.ndarray, ...],
    b: float,
    mix: Mix,
    trend_weight: np.ndarray | float = 0.0,
) -> np.ndarray:
    """User vectors [m, Q + 1] float32 of [m, Q] sums of profile vectors (weighted by strength and recency).

    A block without any deviation is zeros; for a user with only such blocks the last number is zero too.

    Args:
      covariances: of the three blocks, [k, k], [kd, kd] and [w, w] (`VectorMoments.covariance`).
      b: weight of the content block, 0 where there is none.
      trend_weight: [m] or one for all, weight of recent popularity.
    """
    return scaled_profiles(profiles, block_factors(profiles, covariances, b, mix), covariances, trend_weight)


def scaled_profiles(
    profiles: np.ndarray,
    factors: np.ndarray,
    covariances: tuple[np.ndarray, ...],
    trend_weight: np.ndarray | float = 0.0,
) -> np.ndarray:
    """`user_vectors` of [m, Q] profiles whose `block_factors` [m, blocks] are known."""
    scaled = profiles * spread_factors(factors, covariances)
    known = np.any(scaled != 0, axis=1)
    return np.hstack([scaled, (known * trend_weight)[:, None]]).astype(np.float32)

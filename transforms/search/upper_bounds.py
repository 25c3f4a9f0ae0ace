"""Upper bounds of inner products from few numbers, so that an exact top-K scores few pairs exactly.

Queries and posts are written in a basis in which their leading numbers carry most of a score (their two covariances are
the same diagonal one: balanced truncation), and the rest is bounded by the product of the norms (Cauchy-Schwarz), as
one more number each. So one narrow matrix product bounds all scores of a tile from above, and posts below the k-th
score are pruned. Bounds of this kind: Teflioudi and Gemulla 2016 ("Exact and approximate maximum inner product search
with LEMP") and Li et al. 2017 ("FEXIPRO", by the singular vectors of the posts alone).
"""

from typing import NamedTuple

import numpy as np

from transforms.linalg import selection

# Relative regularization of directions with hardly any query; far above rounding errors.
_FLOOR = 1e-9


class BalancedBasis(NamedTuple):
    """A change of variables: (q @ to_query) . ((x - mean) @ to_post) is q . (x - mean) up to `residual` |q| |x - mean|.

    Attributes:
      to_query: [d, d] float64.
      to_post: [d, d] float64.
      mean: [d] float64.
      residual: norm of the difference of to_query @ to_post.T from the identity.
      width: leading numbers that are multiplied; the others enter by their norm.
    """

    to_query: np.ndarray
    to_post: np.ndarray
    mean: np.ndarray
    residual: float
    width: int


class Bounded(NamedTuple):
    """Vectors whose inner products bound scores from above.

    Attributes:
      vectors: [n, width + 2] float32.
      norms: theirs, [n] float64.
      original_norms: of the original vectors, [n] float64.
      basis: of the vectors.
    """

    vectors: np.ndarray
    norms: np.ndarray
    original_norms: np.ndarray
    basis: BalancedBasis


def bounded(vectors: np.ndarray, original_norms: np.ndarray, basis: BalancedBasis) -> Bounded:
    """Bounded vectors from [n, w] float64; `original_norms`, [n], are the norms of the original vectors."""
    return Bounded(vectors.astype(np.float32), np.linalg.norm(vectors, axis=1), original_norms, basis)


def leading(turned: np.ndarray, width: int) -> np.ndarray:
    """The leading numbers and the norm of the others: [n, width + 1]."""
    return np.column_stack([turned[:, :width], np.linalg.norm(turned[:, width:], axis=1)])


def error(queries: Bounded, posts: Bounded) -> np.ndarray:
    """Maximum rounding error of a bound below the score: [num_queries] float64."""
    # Both sides were rounded to float32 before they are multiplied.
    rounding = selection.score_error(posts.basis.width + 4, queries.norms, posts.norms.max(initial=0))
    return rounding + posts.basis.residual * queries.original_norms * posts.original_norms.max(initial=0)


def balance(queries: np.ndarray, posts: np.ndarray) -> BalancedBasis | None:
    """The basis in which both covariances are the same diagonal one, its largest entries first; no width yet.

    None if all queries are zero or the posts do not vary. Queries and posts are [n, d] and [m, d].
    """
    queries, posts = queries.astype(np.float64), posts.astype(np.float64)
    lengths = np.linalg.norm(queries, axis=1)
    if not lengths.any() or not len(posts):
        return None
    mean = posts.mean(axis=0)
    directions = queries[lengths > 0] / lengths[lengths > 0, None]
    energy, axes = np.linalg.eigh(directions.T @ directions / len(directions))
    roots = np.sqrt(energy.clip(0) + _FLOOR * energy.mean())
    post_side, query_side = axes * roots, axes / roots
    centered = (posts - mean) @ post_side
    spread, turn = np.linalg.eigh(centered.T @ centered / len(centered))
    if spread[-1] <= 0:
        return None
    spread, turn = spread[::-1], turn[:, ::-1]
    scale = spread.clip(_FLOOR * spread[0]) ** 0.25
    return basis_of(query_side @ turn * scale, post_side @ turn / scale, mean)


def basis_of(to_query: np.ndarray, to_post: np.ndarray, mean: np.ndarray) -> BalancedBasis:
    """The basis of these matrices; no width yet."""
    residual = float(np.linalg.norm(to_query @ to_post.T - np.eye(len(mean))))
    return BalancedBasis(to_query, to_post, mean, residual, 0)


def unchanged(width: int) -> BalancedBasis:
    """The identity basis."""
    return basis_of(np.eye(width), np.eye(width), np.zeros(width))

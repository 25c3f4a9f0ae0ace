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

# Candidate widths, cost of a surviving pair in numbers of a product, and maximum relative cost to use bounds.
_WIDTHS = (16, 32, 48, 64, 96, 128, 192)
PAIR_COST = 12_000
_WORTHWHILE = 0.7
# Relative regularization of directions with hardly any query; far above rounding errors.
_FLOOR = 1e-9
_SAMPLED_QUERIES, _TRIED_QUERIES, _SAMPLED_POSTS = 4096, 128, 4096


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


def bound_queries(queries: np.ndarray, basis: BalancedBasis) -> Bounded:
    """Queries, [n, d] float32, with their product with the posts' mean as the last number."""
    exact = queries.astype(np.float64)
    return _bounded(exact @ basis.to_query, exact @ basis.mean, exact, basis)


def bound_posts(posts: np.ndarray, basis: BalancedBasis) -> Bounded:
    """Posts, [n, d] float32."""
    centered = posts.astype(np.float64) - basis.mean
    return _bounded(centered @ basis.to_post, np.ones(len(posts)), centered, basis)


def _bounded(turned: np.ndarray, last: np.ndarray, original: np.ndarray, basis: BalancedBasis) -> Bounded:
    vectors = np.column_stack([leading(turned, basis.width), last])
    return bounded(vectors, np.linalg.norm(original, axis=1), basis)


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


def choose(queries: np.ndarray, kth: np.ndarray, posts: np.ndarray, number_cost: float = 1.0) -> BalancedBasis | None:
    """The basis with the lowest estimated cost on a sample; None if none saves enough.

    Args:
      queries: [n, d] float32.
      kth: [n] float32, the current k-th scores.
      posts: [m, d] float32, a sample of posts like those that follow.
      number_cost: cost of a number in the product without bounds, relative to float32.
    """
    sampled = queries[:: max(1, len(queries) // _SAMPLED_QUERIES)].astype(np.float64)
    posts = posts[:: max(1, len(posts) // _SAMPLED_POSTS)].astype(np.float64)
    basis = balance(sampled, posts)
    if basis is None:
        return None
    every = max(1, len(queries) // _TRIED_QUERIES)
    queries, wanted = queries[::every].astype(np.float64), kth[::every, None]
    turned_queries, turned_posts = queries @ basis.to_query, (posts - basis.mean) @ basis.to_post
    wanted_of_posts = wanted - (queries @ basis.mean)[:, None]
    best = _WORTHWHILE * _cost(queries, posts, wanted, number_cost)
    for width in _WIDTHS:
        if width < queries.shape[1]:
            narrow = leading(turned_queries, width), leading(turned_posts, width)
            if (cost := _cost(*narrow, wanted_of_posts)) < best:
                best, basis = cost, basis._replace(width=width)
    return basis if basis.width else None


def _cost(queries: np.ndarray, posts: np.ndarray, wanted: np.ndarray, number_cost: float = 1.0) -> float:
    """Cost per pair of the product and of exact scores for the share of at least `wanted`, [num_queries, 1]."""
    return number_cost * queries.shape[1] + PAIR_COST * float(np.mean(queries @ posts.T >= wanted))


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

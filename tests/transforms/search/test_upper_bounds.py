import numpy as np
import pytest

from transforms.search import upper_bounds


def make_vectors(rng: np.random.Generator, num_rows: int, offset: float = 0.0) -> np.ndarray:
    """Few directions that matter, many that hardly do, and what all have in common."""
    scales = np.concatenate([np.full(8, 1.0), np.full(88, 0.01)])
    return (rng.standard_normal((num_rows, 96)) * scales + offset).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_products_in_the_basis_are_those_of_the_centered_vectors(offset: float) -> None:
    rng = np.random.default_rng(0)
    queries, posts = make_vectors(rng, 500).astype(np.float64), make_vectors(rng, 2_000, offset).astype(np.float64)
    basis = upper_bounds.balance(queries, posts)
    assert basis is not None
    centered = posts - basis.mean
    found = (queries @ basis.to_query) @ (centered @ basis.to_post).T
    lengths = np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(centered, axis=1))
    assert (np.abs(found - queries @ centered.T) <= (basis.residual + 1e-9) * lengths).all()


def test_leading_numbers_bound_the_scores_from_above() -> None:
    rng = np.random.default_rng(1)
    queries, posts = make_vectors(rng, 500).astype(np.float64), make_vectors(rng, 2_000).astype(np.float64)
    basis = upper_bounds.balance(queries, posts)
    assert basis is not None
    turned_queries, turned_posts = queries @ basis.to_query, (posts - basis.mean) @ basis.to_post
    bounds = upper_bounds.leading(turned_queries, 16) @ upper_bounds.leading(turned_posts, 16).T
    scores = queries @ (posts - basis.mean).T
    assert (bounds >= scores - 1e-9).all()
    # And closely: few posts other than the best have a bound above the 5th score.
    kth = np.partition(scores, -5, axis=1)[:, -5:-4]
    assert (bounds >= kth).mean() < 0.02


def test_both_covariances_are_the_same_diagonal_one() -> None:
    rng = np.random.default_rng(3)
    queries, posts = (rng.standard_normal((3_000, 6)) @ rng.standard_normal((6, 6)) for _ in range(2))
    basis = upper_bounds.balance(queries, posts)
    assert basis is not None
    units = queries / np.linalg.norm(queries, axis=1, keepdims=True) @ basis.to_query
    centered = (posts - basis.mean) @ basis.to_post
    of_queries, of_posts = (values.T @ values / len(values) for values in (units, centered))
    np.testing.assert_allclose(of_queries, of_posts, atol=1e-8)
    np.testing.assert_allclose(of_posts, np.diag(np.sort(np.diag(of_posts))[::-1]), atol=1e-8)


@pytest.mark.parametrize("values", [np.zeros((50, 8)), np.ones((50, 8))])
def test_equal_posts_or_queries_give_no_basis(values: np.ndarray) -> None:
    some = np.random.default_rng(2).standard_normal((50, 8))
    assert upper_bounds.balance(some, values) is None
    if not values.any():
        assert upper_bounds.balance(values, some) is None

import numpy as np
import pytest

from transforms.tuning.exact_factors import factorize
from transforms.tuning.histories import Interactions


def random_interactions(num_users: int, num_posts: int, share: float) -> Interactions:
    rng = np.random.default_rng(3)
    user, post = np.nonzero(rng.random((num_users, num_posts)) < share)
    strength = rng.choice([0, 0.5, 1, 2], len(user)).astype(np.float32)
    return Interactions(user, post, strength, np.zeros(len(user), np.float32), num_users, num_posts)


@pytest.mark.parametrize(("num_users", "num_posts"), [(60, 90), (400, 300)])
def test_factors_are_the_svd_of_the_degree_normalized_binary_matrix(num_users: int, num_posts: int) -> None:
    some = random_interactions(num_users, num_posts, 0.1)
    found = factorize(some, 16, seed=0)
    dense = some.matrix(some.strength).toarray() > 0
    rows, columns = np.maximum(dense.sum(axis=1), 1), np.maximum(dense.sum(axis=0), 1)
    normalized = dense / np.outer(rows**0.25, columns**0.25)
    _, singular, right = np.linalg.svd(normalized)
    np.testing.assert_allclose(found.singular_values, singular[:16], rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(found.values[:, :4] * right[:4].T, axis=0)), 1, atol=1e-3)
    np.testing.assert_array_equal(found.degree, dense.sum(axis=0))
    np.testing.assert_allclose(found.profile_rows, found.values / columns[:, None] ** 0.25, rtol=1e-5)


def test_the_same_seed_gives_the_same_factors() -> None:
    some = random_interactions(400, 300, 0.1)
    first, second = factorize(some, 8, seed=0), factorize(some, 8, seed=0)
    np.testing.assert_array_equal(first.values, second.values)


def test_there_are_no_more_factors_than_the_matrix_has() -> None:
    user, post = np.repeat([0, 1, 2, 3], 2), np.array([0, 1, 0, 1, 2, 3, 2, 3])  # two groups: rank 2
    strength = np.ones(8, np.float32)
    found = factorize(Interactions(user, post, strength, np.zeros(8, np.float32), 4, 5), 128, seed=0)
    assert found.values.shape == (5, 2)
    assert not found.values[4].any()
    none = factorize(Interactions(user, post, strength * 0, strength * 0, 4, 5), 128, seed=0)
    assert (none.values.shape, none.singular_values.shape) == ((5, 0), (0,))

import numpy as np
import pytest

from transforms.recommend import tastes
from transforms.recommend.tastes import find_tastes, likeness_vectors, nearest_taste

PARTS = (slice(0, 2), slice(3, 5))


def test_likeness_counts_all_blocks_that_a_post_has_alike() -> None:
    posts = np.array([[9, 0, 7, 0, 1], [1, 0, 0, 0, 0], [0, 0, 3, 0, 2], [0, 0, 3, 0, 0]], np.float32)
    vectors = likeness_vectors(posts, PARTS)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(vectors, [[half, 0, 0, half], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], atol=1e-6)
    assert likeness_vectors(posts, ()).shape == (4, 0)


def clusters(rng: np.random.Generator, sizes: list[int]) -> np.ndarray:
    """Posts around as many axes: [sum(sizes), 8] float32 unit rows."""
    made = np.repeat(np.eye(8)[: len(sizes)], sizes, axis=0) + 0.05 * rng.standard_normal((sum(sizes), 8))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("at_once", [1, 100])
def test_users_have_the_tastes_of_their_clusters(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(tastes, "_USERS_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    sizes = {0: [6, 2], 2: [3, 3, 3, 3], 3: [1]}
    user = np.repeat(list(sizes), [sum(of_user) for of_user in sizes.values()])
    vectors = np.concatenate([clusters(rng, of_user) for of_user in sizes.values()])
    found = find_tastes(user, np.arange(len(user))[::-1], vectors[::-1], np.ones(len(user)), 5)
    for place in range(5):
        by_axis = np.zeros(8)
        has = found.share[place] > 0
        np.add.at(by_axis, found.medoid[place][has].argmax(axis=1), found.share[place][has])
        expected = np.zeros(8)
        expected[: len(sizes.get(place, []))] = np.array(sizes.get(place, [])) / sum(sizes.get(place, [1]))
        np.testing.assert_allclose(by_axis, expected)
    assert found.medoid[0][found.share[0] > 0].argmax(axis=1)[0] == 0  # the largest one is found first


def test_weights_count_and_unknown_posts_do_not() -> None:
    vectors = np.array([[1, 0], [0, 1], [0, 0], [0, 1]], np.float32)
    found = find_tastes(np.zeros(4, np.int64), np.arange(4), vectors, np.array([1.0, 3.0, 5.0, 0.0]), 1)
    assert found.share[0].tolist() == [0.75, 0.25, 0, 0, 0]
    assert found.medoid[0].tolist() == [[0, 1], [1, 0], [0, 0], [0, 0], [0, 0]]


def test_a_post_is_of_the_nearest_taste_or_of_none() -> None:
    medoid = np.zeros((1, tastes.MAX_TASTES, 2), np.float32)
    medoid[0, :2] = np.eye(2)
    posts = np.array([[[0.6, 0.8], [0.8, 0.6], [0, 0], [-1, 0]]], np.float32)
    assert nearest_taste(posts, medoid).tolist() == [[1, 0, tastes.MAX_TASTES, tastes.MAX_TASTES]]

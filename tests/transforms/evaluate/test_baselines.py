import numpy as np
import pytest
import scipy.sparse

from tests.transforms.evaluate.test_set_fixtures import make_held_out, random_world
from transforms.evaluate import baselines
from transforms.evaluate.split_rules import seeded_hash
from transforms.evaluate.test_set import HeldOutSet


def slow_lists(
    held_out: HeldOutSet, scores: np.ndarray, k: int, at_least: float = -np.inf, ties: np.ndarray | None = None
) -> list[list[int]]:
    """What sorting each user's scores gives, ties by id or by other numbers."""
    lists = []
    ties = np.arange(len(held_out.posts.post_id)) if ties is None else ties
    for user, row in enumerate(scores):
        excluded = set(held_out.excluded[user].indices.tolist())
        posts = [p for p in range(len(row)) if held_out.posts.eligible[p] and p not in excluded and row[p] > at_least]
        lists.append(sorted(posts, key=lambda p, row=row: (-row[p], ties[p]))[:k])
    return lists


def without_fillers(lists: np.ndarray) -> list[list[int]]:
    return [[post for post in row if post >= 0] for row in lists.tolist()]


def test_popular_posts_are_those_most_like_less_what_is_excluded() -> None:
    held_out = random_world()
    scores = np.tile(held_out.posts.liked.astype(float), (len(held_out.user_id), 1))
    hashed = seeded_hash(held_out.posts.post_id, 0)
    assert without_fillers(baselines.popular(held_out, 7)) == slow_lists(held_out, scores, 7, ties=hashed)
    recent = baselines.popular(held_out, 7, held_out.posts.recent)
    assert without_fillers(recent) == slow_lists(held_out, -scores, 7, ties=hashed)
    everything = baselines.popular(held_out, 100)
    assert without_fillers(everything) == slow_lists(held_out, scores, 100, ties=hashed)


def test_posts_that_are_equally_popular_do_not_come_in_the_order_of_their_ids() -> None:
    history = np.zeros((1, 50))
    held_out = make_held_out(history, np.ones_like(history), history)
    orders = {tuple(baselines.popular(held_out, 50, seed=seed)[0].tolist()) for seed in (0, 1)}
    assert len(orders) == 2 and tuple(range(50)) not in orders


def test_random_lists_hold_each_allowed_post_as_often() -> None:
    num_users, num_posts = 4000, 20
    history = np.zeros((num_users, num_posts))
    history[:, 3] = 1
    held_out = make_held_out(history, np.ones_like(history), history[:0])
    lists = baselines.random(held_out, 5, seed=2)
    shown = np.bincount(lists.ravel(), minlength=num_posts)
    assert shown[3] == 0 and (lists >= 0).all()
    assert all(len(set(row)) == 5 for row in lists.tolist())
    expected = num_users * 5 / (num_posts - 1)
    assert abs(np.delete(shown, 3) - expected).max() < 0.2 * expected
    np.testing.assert_array_equal(lists, baselines.random(held_out, 5, seed=2))
    assert (lists != baselines.random(held_out, 5, seed=3)).any()


def test_nobody_gets_more_than_there_is() -> None:
    history = np.array([[1, 1, 0], [0, 0, 0]])
    held_out = make_held_out(history, 1 - history, history[:0], np.array([True, True, False]))
    assert baselines.popular(held_out, 4).tolist() == [
        [-1] * 4,
        [*np.argsort(seeded_hash(held_out.posts.post_id, 0)[:2]).tolist(), -1, -1],
    ]
    assert sorted(baselines.random(held_out, 2)[1].tolist()) == [0, 1]
    none = make_held_out(history, 1 - history, history[:0], np.zeros(3, bool))
    assert baselines.popular(none, 2).tolist() == baselines.random(none, 2).tolist() == [[-1, -1], [-1, -1]]


@pytest.mark.parametrize("size", [5, 1500])
def test_ease_is_the_formula(size: int) -> None:
    rng = np.random.default_rng(size)
    matrix = (rng.random((200, size)) < 0.1).astype(np.float64)
    precision = np.linalg.inv(matrix.T @ matrix + 7 * np.eye(size))
    expected = np.eye(size) - precision / np.diag(precision)
    found = baselines.ease_weights(scipy.sparse.csr_matrix(matrix, dtype=np.float32), 7)
    assert np.diag(found).tolist() == [0] * size
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_ease_ranks_by_the_formula() -> None:
    held_out = random_world()
    matrix = held_out.fit.toarray().astype(np.float64)
    precision = np.linalg.inv(matrix.T @ matrix + 20 * np.eye(matrix.shape[1]))
    weights = -precision / np.diag(precision)
    np.fill_diagonal(weights, 0)
    scores = held_out.history.toarray() @ weights
    scores[:, matrix.sum(axis=0) == 0] = -np.inf
    expected = slow_lists(held_out, scores, 9)
    for user in np.flatnonzero(held_out.num_seen == 0):
        expected[user] = []  # nothing is known of that user
    assert without_fillers(baselines.ease(held_out, 9, 20)) == expected


def test_item_knn_sums_the_cosines_of_the_nearest() -> None:
    held_out = random_world()
    matrix = held_out.fit.toarray().astype(np.float64)
    norms = np.linalg.norm(matrix, axis=0)
    cosines = (matrix.T @ matrix) / np.outer(np.maximum(norms, 1), np.maximum(norms, 1))
    np.fill_diagonal(cosines, 0)
    for row in cosines:
        row[np.argsort(-row, kind="stable")[4:]] = 0
    scores = held_out.history.toarray() @ cosines
    found = baselines.item_knn(held_out, 30, 4)
    for user, row in enumerate(without_fillers(found)):
        expected = slow_lists(held_out, scores, 30, 0)[user]
        np.testing.assert_allclose(scores[user, row], scores[user, expected], rtol=1e-5)
    neighbors = baselines.cosine_neighbors(held_out.fit, 4).toarray()
    np.testing.assert_allclose(np.sort(neighbors, axis=1), np.sort(cosines, axis=1), atol=1e-6)


def test_short_lists_are_filled_without_repeating() -> None:
    lists = np.array([[4, 2, -1, -1], [1, 2, 3, 4], [-1] * 4])
    spare = np.array([[2, 7, 4, 9], [5, 6, 7, 8], [3, 1, -1, -1]])
    assert baselines.fill(lists, spare).tolist() == [[4, 2, 7, 9], [1, 2, 3, 4], [3, 1, -1, -1]]
    assert lists[0].tolist() == [4, 2, -1, -1]

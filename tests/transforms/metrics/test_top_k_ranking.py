import numpy as np
import pytest

from transforms.linalg import selection
from transforms.metrics import ranking


def test_top_k_gives_the_best_first_and_of_equal_ones_the_first() -> None:
    scores = np.array([[1.0, 3, 2, 3, 3], [0, 0, 0, 0, 0], [5, 4, 3, 2, 1], [-np.inf, -np.inf, 1, -np.inf, 2]])
    assert selection.top_k(scores, 3).tolist() == [[1, 3, 4], [0, 1, 2], [0, 1, 2], [4, 2, 0]]
    assert selection.top_k(scores, 2).tolist() == [[1, 3], [0, 1], [0, 1], [4, 2]]
    assert selection.top_k(scores, 9)[0].tolist() == [1, 3, 4, 2, 0]
    assert selection.top_k(scores[:, :0], 3).shape == (4, 0)
    assert selection.top_k(scores[:0], 3).shape == (0, 3)


def test_top_k_is_what_a_stable_sort_gives_where_most_scores_are_equal() -> None:
    scores = np.random.default_rng(0).integers(0, 4, (50, 30)).astype(np.float32)
    expected = np.argsort(-scores, axis=1, kind="stable")
    for k in (1, 7, 29, 30):
        np.testing.assert_array_equal(selection.top_k(scores, k), expected[:, :k])


def test_recall_and_ndcg_against_hand_values() -> None:
    scores = np.array([[9.0, 8, 7, 6, 5], [9, 8, 7, 6, 5], [9, 8, 7, 6, 5]])
    targets = np.zeros((3, 5), bool)
    targets[0, [0, 2]] = True  # hits in places 0 and 2
    targets[1, [0, 1, 2, 3, 4]] = True  # more targets than places
    recall, ndcg = ranking.recall_ndcg(scores, targets, recall_at=3, ndcg_at=2)
    assert recall.tolist() == [1, 3 / 5, 0]
    assert ndcg == pytest.approx([1 / (1 + 1 / np.log2(3)), 1, 0])


def test_posts_at_minus_infinity_are_no_hits_while_there_are_others() -> None:
    scores = np.array([[-np.inf, 1.0, 2.0]])
    recall, _ = ranking.recall_ndcg(scores, np.array([[True, False, False]]), recall_at=2, ndcg_at=2)
    assert recall.tolist() == [0]

import itertools

import numpy as np
import pytest

from transforms.metrics import lists as list_metrics

LISTS = np.array([[0, 1, 2], [0, 3, -1], [-1, -1, -1]])


def test_coverage_and_gini_of_what_is_shown() -> None:
    shown = list_metrics.shown(LISTS, 6)
    assert shown.tolist() == [2, 1, 1, 1, 0, 0]
    assert list_metrics.coverage(shown) == pytest.approx(4 / 6)
    values = shown.tolist()
    slow = sum(abs(a - b) for a in values for b in values) / (2 * len(values) * sum(values))
    assert list_metrics.gini(shown) == pytest.approx(slow)
    assert list_metrics.gini(np.full(5, 3)) == pytest.approx(0)
    assert list_metrics.gini(np.array([0, 0, 0, 9])) == pytest.approx(3 / 4)
    assert list_metrics.gini(np.zeros(4)) == 0 and list_metrics.coverage(np.zeros(0)) == 0


def test_the_long_tail_is_all_but_the_most_popular_fifth() -> None:
    tail = list_metrics.long_tail(np.array([5, 9, 9, 1, 0, 0, 2, 2, 2, 2]))
    assert np.flatnonzero(~tail).tolist() == [1, 2]
    assert np.flatnonzero(~list_metrics.long_tail(np.zeros(4))).tolist() == [0]
    assert list_metrics.long_tail_share(LISTS, np.array([False, True, True, False, True, True])) == pytest.approx(
        (2 / 3 + 0) / 2
    )
    assert list_metrics.long_tail_share(LISTS[2:], np.ones(6, bool)) == 0


def test_novelty_is_self_information_in_bits() -> None:
    popularity = np.array([7, 3, 1, 0])
    found = list_metrics.novelty(LISTS, popularity, 7)
    first = np.mean([0, 1, 2])  # 8/8, 4/8, 2/8 of the users
    assert found == pytest.approx((first + (0 + 3) / 2) / 2)


def test_diversity_is_the_mean_distance_of_pairs() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(9, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[8] = 0
    lists = np.array([[0, 1, 2, 3], [4, 5, 8, -1], [6, 8, -1, -1], [7, 7, -1, -1]])
    per_list = []
    for row in lists:
        known = [post for post in row if 0 <= post < 8]
        if len(known) > 1:
            per_list.append(np.mean([1 - vectors[a] @ vectors[b] for a, b in itertools.combinations(known, 2)]))
    assert len(per_list) == 3
    assert list_metrics.intra_list_diversity(lists, vectors) == pytest.approx(np.mean(per_list))
    assert list_metrics.intra_list_diversity(lists[2:3], vectors) == 0

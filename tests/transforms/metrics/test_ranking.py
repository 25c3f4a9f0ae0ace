import math

import numpy as np
import pytest
import scipy.sparse

from transforms.metrics import ranking

#           places 1..4: targets are posts 3, 5, 9
LISTS = np.array([[3, 1, 5, 2], [7, 8, 9, -1], [0, 1, 2, -1], [4, -1, -1, -1]])
TARGETS = scipy.sparse.csr_matrix(
    (np.ones(7), ([0, 0, 0, 1, 2, 3, 3], [3, 5, 9, 9, 6, 4, 0])), shape=(4, 10), dtype=np.float32
)


def test_hits_are_the_entries_that_are_targets_and_fillers_never_are() -> None:
    hits = ranking.hits_of(LISTS, TARGETS)
    assert hits.tolist() == [
        [True, False, True, False],
        [False, False, True, False],
        [False] * 4,
        [True, False, False, False],
    ]
    # -1 of the second user must not be taken for the last post of the first.
    last = scipy.sparse.csr_matrix((np.ones(1), ([0], [9])), shape=(2, 10))
    assert not ranking.hits_of(np.array([[0, -1], [-1, -1]]), last).any()
    assert not ranking.hits_of(LISTS, scipy.sparse.csr_matrix((4, 10))).any()


def test_measures_are_those_of_the_hand() -> None:
    hits = ranking.hits_of(LISTS, TARGETS)
    found = ranking.per_user(hits, np.array([3, 1, 1, 2]), ks=(2, 4))
    by_name = dict(zip(ranking.names((2, 4)), found.T.tolist(), strict=True))
    second, third = 1 / math.log2(3), 1 / math.log2(4)
    assert by_name["recall@2"] == pytest.approx([1 / 3, 0, 0, 1 / 2])
    assert by_name["recall@4"] == pytest.approx([2 / 3, 1, 0, 1 / 2])
    assert by_name["ndcg@2"] == pytest.approx([1 / (1 + second), 0, 0, 1 / (1 + second)])
    assert by_name["ndcg@4"] == pytest.approx([(1 + third) / (1 + second + third), third, 0, 1 / (1 + second)])
    assert by_name["map@4"] == pytest.approx([(1 + 2 / 3) / 3, 1 / 3, 0, 1 / 2])
    assert by_name["map@2"] == pytest.approx([1 / 2, 0, 0, 1 / 2])
    assert by_name["hit_rate@2"] == [1, 0, 0, 1]
    assert by_name["mrr@4"] == pytest.approx([1, 1 / 3, 0, 1])
    assert by_name["mrr@2"] == [1, 0, 0, 1]


def test_measures_are_those_of_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    lists = np.stack([rng.permutation(60)[:50] for _ in range(40)])
    lists[5, 30:] = -1
    targets = scipy.sparse.random(40, 60, 0.2, "csr", random_state=1)
    number = np.diff(targets.indptr)
    found = ranking.per_user(ranking.hits_of(lists, targets), number)
    names = ranking.names()
    for user in range(40):
        wanted = set(targets[user].indices.tolist())
        for k in (10, 20, 50):
            hits = [post in wanted for post in lists[user, :k].tolist()]
            gain = sum(hit / math.log2(place + 2) for place, hit in enumerate(hits))
            ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(wanted))))
            precisions = [sum(hits[: place + 1]) / (place + 1) for place in range(k) if place < k and hits[place]]
            first = hits.index(True) if True in hits else None
            expected = {
                "recall": sum(hits) / len(wanted),
                "ndcg": gain / ideal,
                "map": sum(precisions) / min(k, len(wanted)),
                "hit_rate": float(any(hits)),
                "mrr": 0 if first is None else 1 / (first + 1),
            }
            for measure, value in expected.items():
                assert found[user, names.index(f"{measure}@{k}")] == pytest.approx(value), (user, measure, k)


def test_intervals_are_about_two_standard_errors_and_the_same_every_time() -> None:
    values = np.random.default_rng(3).normal(1, 2, (4000, 2))
    low, high = ranking.bootstrap(values, seed=1)
    error = values.std(axis=0) / np.sqrt(len(values))
    np.testing.assert_allclose(high - low, 2 * 1.96 * error, rtol=0.1)
    assert (low < values.mean(axis=0)).all() and (values.mean(axis=0) < high).all()
    np.testing.assert_array_equal(ranking.bootstrap(values, seed=1), (low, high))
    assert (ranking.bootstrap(values, seed=2)[0] != low).all()


def test_the_interval_of_a_difference_knows_that_the_users_are_the_same() -> None:
    values = np.random.default_rng(3).normal(0, 5, 500)
    low, high = ranking.bootstrap(np.stack([values + 0.1 - values], axis=1), seed=0)
    assert low == pytest.approx(0.1) and high == pytest.approx(0.1)
    low, high = ranking.bootstrap(np.array([[0.3]]), seed=0)
    assert (low, high) == (0.3, 0.3)

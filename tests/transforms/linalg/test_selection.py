import numpy as np
import pytest

from transforms.linalg import selection


def test_reached_by_gives_what_at_least_k_scores_reach() -> None:
    scores = np.random.default_rng(0).standard_normal((6, 1003), np.float32)
    for k in (1, 10, 200, 1003):
        bound, exact = selection.reached_by(scores, k), np.sort(scores, axis=1)[:, -k]
        reached = (scores >= bound[:, None]).sum(axis=1)
        assert (bound <= exact).all()
        assert (reached <= 1.5 * k + 2).all()
    assert np.isneginf(selection.reached_by(scores, 1004)).all()


def test_reached_by_sees_no_more_than_there_are() -> None:
    scores = np.full((1, 800), -np.inf, np.float32)
    scores[0, ::100] = 1
    assert selection.reached_by(scores, 9)[0] == -np.inf
    assert selection.reached_by(scores, 1)[0] == 1


def test_survivors_are_found_row_by_row() -> None:
    scores = np.array([[1, 5, 3], [9, 2, 2]], np.float32)
    row, column = selection.survivors(scores, np.array([3, 2], np.float32))
    assert list(zip(row, column, strict=True)) == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize("cap", [1, 2, 5])
def test_a_cap_leaves_the_best_entries_of_each_row_and_author(cap: int) -> None:
    rng = np.random.default_rng(6)
    row, author = rng.integers(0, 5, 400), rng.integers(0, 9, 400)
    score = rng.integers(0, 12, 400).astype(np.float32)
    slack = rng.random(5) * 3
    strict, loose = np.zeros(400, bool), np.zeros(400, bool)
    for one in range(5):
        for writer in range(9):
            entries = np.flatnonzero((row == one) & (author == writer))
            best = sorted(entries, key=lambda entry: (-score[entry], entry))[:cap]
            strict[best] = True
            loose[entries[score[entries] >= score[best].min(initial=np.inf) - slack[one]]] = True
    np.testing.assert_array_equal(selection.within_cap(row, author, score, cap), strict)
    np.testing.assert_array_equal(selection.within_cap(row, author, score, cap, slack), loose)
    assert loose.sum() > strict.sum()


def test_a_cap_on_nothing_leaves_nothing() -> None:
    nothing = np.empty(0, np.int64)
    assert selection.within_cap(nothing, nothing, np.empty(0, np.float32), 1, np.zeros(3)).tolist() == []

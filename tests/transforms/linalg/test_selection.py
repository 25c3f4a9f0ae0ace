import numpy as np

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

import numpy as np
import pytest

from transforms.search.lower_bounds import LowerBounds, best_of


def kth_under_cap(scores: np.ndarray, authors: np.ndarray, k: int, cap: int | None) -> float:
    used: dict[int, int] = {}
    taken = []
    for place in np.argsort(-scores, kind="stable"):
        author = int(authors[place])
        if scores[place] > -np.inf and (cap is None or used.get(author, 0) < cap):
            used[author] = used.get(author, 0) + 1
            taken.append(float(scores[place]))
    return taken[k - 1] if len(taken) >= k else -np.inf


@pytest.mark.parametrize("cap", [None, 1, 3])
def test_the_kth_of_all_that_was_seen(cap: int | None) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(-40, 40, (9, 60)).astype(np.float32)
    scores[rng.random((9, 60)) < 0.2] = -np.inf
    authors = rng.integers(0, 12, (9, 60)).astype(np.uint64)
    floors = LowerBounds(9, 5, cap)
    seen = np.zeros(9, np.int64)
    assert np.isneginf(floors.kth).all()
    for width in (3, 1, 20, 36):
        rows = np.flatnonzero(rng.random(9) < 0.8)
        columns = seen[rows, None] + np.arange(width)
        floors.update(rows, scores[rows[:, None], columns], authors[rows[:, None], columns])
        seen[rows] += width
        for row in range(9):
            part = slice(0, seen[row])
            exact = kth_under_cap(scores[row, part], authors[row, part], 5, cap)
            assert floors.kth[row] == exact


def test_the_best_columns() -> None:
    scores = np.array([[1, 5, 3, 4], [9, 8, 7, -np.inf]], np.float32)
    assert [sorted(row) for row in best_of(scores, 2).tolist()] == [[1, 3], [0, 1]]
    assert best_of(scores, 4).tolist() == best_of(scores, 9).tolist() == [[0, 1, 2, 3]] * 2

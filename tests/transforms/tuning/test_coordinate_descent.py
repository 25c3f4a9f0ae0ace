from collections.abc import Mapping
from typing import Any

import numpy as np

from transforms.tuning.coordinate_descent import descend, gains

ONES = np.ones(100)


def test_descend_finds_the_best_point_of_a_separable_score() -> None:
    score = lambda point: ONES * (10 - abs(point["a"] - 3) - abs(point["b"] - 5))  # noqa: E731
    found = descend({"a": range(6), "b": range(6)}, {"a": 0, "b": 0}, score)
    assert found.point == {"a": 3, "b": 5}
    assert found.score == 10


def test_a_point_is_scored_once() -> None:
    calls: list[tuple[Any, Any]] = []

    def score(point: Mapping[str, Any]) -> np.ndarray:
        calls.append((point["a"], point["b"]))
        return ONES * (1 + point["a"])

    found = descend({"a": (0, 1, 2)}, {"a": 0, "b": None}, score)
    assert found.point == {"a": 2, "b": None}
    assert sorted(calls) == [(0, None), (1, None), (2, None)]
    assert found.evaluations == 3


def test_the_start_stays_where_the_gain_is_small_or_uncertain() -> None:
    small = {0: ONES, 1: ONES * 1.001, 2: ONES * 1.01}
    assert descend({"a": (0, 1)}, {"a": 0}, lambda point: small[point["a"]]).point == {"a": 0}
    assert descend({"a": (0, 1, 2)}, {"a": 0}, lambda point: small[point["a"]]).point == {"a": 2}
    few = np.ones(10)
    lucky = few.copy()
    lucky[0] = 2  # one user likes it better: one standard error
    assert not gains(lucky, few + 0.05)
    assert gains(few * 1.1, few)
    assert not gains(few, few)


def test_nothing_found_has_score_zero() -> None:
    found = descend({"a": (0, 1)}, {"a": 0}, lambda point: np.zeros(5))
    assert (found.point, found.score) == ({"a": 0}, 0)

"""Coordinate descent over small grids, by scores of many users."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Minimum gain of a change: this share of the score, and so many standard errors of the gain.
MIN_GAIN = 0.002
STANDARD_ERRORS = 1.0
MAX_ROUNDS = 3


class Found(NamedTuple):
    """The best point, its mean score, and how many points were scored."""

    point: dict[Any, Any]
    score: float
    evaluations: int


def descend(
    grid: Mapping[Any, Sequence[Any]],
    start: Mapping[Any, Any],
    score: Callable[[Mapping[Any, Any]], np.ndarray],
) -> Found:
    """The best value of each name in turn, in the grid's order, until a round changes nothing or after MAX_ROUNDS.

    A value is only changed for one that is clearly better (`gains`): smaller differences would not hold on another
    validation split, and with few users the start remains.

    Args:
      grid: name -> values.
      start: name -> value, also outside the grid; of all names.
      score: of a point, [users] float64, the same users for every point; more is better, never negative.
    """
    seen: dict[tuple[Any, ...], np.ndarray] = {}

    def scored(point: Mapping[Any, Any]) -> np.ndarray:
        key = tuple(point[name] for name in start)
        if key not in seen:
            seen[key] = score(point)
        return seen[key]

    best = dict(start)
    for _ in range(MAX_ROUNDS):
        before = best
        for name, values in grid.items():
            tried = [{**best, name: value} for value in values]
            better = [point for point in tried if gains(scored(point), scored(best))]
            if better:
                best = max(better, key=lambda point: float(scored(point).mean()))
        if best == before:
            break
    return Found(best, float(scored(best).mean()), len(seen))


def gains(scores: np.ndarray, over: np.ndarray, standard_errors: float = STANDARD_ERRORS) -> bool:
    """True if scores [users] are better than others of the same users, by MIN_GAIN and some standard errors."""
    difference = scores - over
    error = difference.std() / np.sqrt(len(difference))
    return bool(difference.mean() > max(MIN_GAIN * over.mean(), standard_errors * error))

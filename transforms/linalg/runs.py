"""Contiguous groups of entries: starts, sizes and positions within the group. Numpy, no Beam."""

import numpy as np


def starts_of(values: np.ndarray) -> np.ndarray:
    """Start of each run of equal values: [num_groups] int64."""
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return np.flatnonzero(new)


def sizes_of(starts: np.ndarray, num_entries: int) -> np.ndarray:
    """Number of entries of each group: [num_groups] int64."""
    return np.diff(np.append(starts, num_entries))


def places_in(sizes: np.ndarray) -> np.ndarray:
    """Position of every entry in its group, [sum of sizes] int64 from 0, for consecutive groups of these sizes."""
    ends = np.cumsum(sizes, dtype=np.int64)
    places: np.ndarray = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
    return places


def places_in_runs(values: np.ndarray) -> np.ndarray:
    """Position of every entry in its run of equal values: [n] int64 from 0."""
    return places_in(sizes_of(starts_of(values), len(values)))


def mean_ranks(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rank of each value in its group, from 0 for the smallest, over the group's size: [n] float64 in [0, 1).

    Equal values share the mean of their ranks.

    Example:
        >>> mean_ranks(np.array([0, 0, 0, 0, 7]), np.array([5, 3, 5, 9, 1])).tolist()
        [0.375, 0.0, 0.375, 0.75, 0.0]
    """
    order = np.lexsort((values, groups))
    starts = starts_of(groups[order])
    sizes = sizes_of(starts, len(order))
    new = np.zeros(len(order), bool)
    new[starts] = True
    new[1:] |= values[order][1:] != values[order][:-1]
    ties = np.flatnonzero(new)
    tied = sizes_of(ties, len(order))
    ranks = np.empty(len(order))
    ranks[order] = np.repeat(np.add.reduceat(places_in(sizes), ties) / tied, tied) / np.repeat(sizes, sizes)
    return ranks

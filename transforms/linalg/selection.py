"""Selection of the best scores of many queries at once: thresholds, survivors, ties by id and caps. Numpy, no Beam.

At 100,000 posts a naive selection costs more than the matrix product. Here every score takes one comparison, and only
the few survivors are sorted.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.linalg import runs

# Below every score of finite vectors that are worth ranking; -inf marks what is excluded.
LOWEST = np.float32(-1e38)
# Unit roundoff of float32: half the distance from 1 to the next number.
ROUNDOFF = 2.0**-24

# Groups of scores per requested score, so that few of the best share a group.
_GROUPS_FOR_EACH = 10

IdsOf = Callable[[np.ndarray], pa.Array]


def score_error(width: int, query_norms: np.ndarray, max_norm: float) -> np.ndarray:
    """Error bound of float32 scores against the exact ones: [n] float64.

    The bound of an inner product of `width` terms in any order (Higham 2002, Accuracy and Stability of Numerical
    Algorithms, section 3.1) and one more rounding of the exact score itself.
    """
    return (width + 4) * ROUNDOFF * query_norms * max_norm


def round_down(bounds: np.ndarray) -> np.ndarray:
    """Bounds as float32, no larger than they are; -inf stays."""
    return np.nextafter(bounds.astype(np.float32), np.float32(-np.inf))


def survivors(scores: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores not below their row's threshold: ([m] row, [m] column), int64, row by row.

    Args:
      scores: [n, t] float32.
      thresholds: [n] float32, finite.
    """
    return where(scores >= thresholds[:, None])


def where(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the True entries of a sparse mask: ([m] row, [m] column), int64, row by row."""
    # Numpy skips False entries word by word in a flat mask, but not in a matrix.
    return np.divmod(np.flatnonzero(mask.reshape(-1)), mask.shape[1])


def kth_largest(scores: np.ndarray, k: int) -> np.ndarray:
    """The k-th largest score of each row: [n], -inf where there are fewer than k."""
    if scores.shape[1] < k:
        return np.full(len(scores), -np.inf, scores.dtype)
    place = scores.shape[1] - k
    return np.partition(scores, place, axis=1)[:, place]


def reached_by(scores: np.ndarray, k: int) -> np.ndarray:
    """Lower bound on each row's k-th largest score, close to it: [n], -inf if fewer than k scores.

    For many scores, the k-th largest of the maxima of groups: k groups have a score at least as large.
    """
    size = max(1, scores.shape[1] // (_GROUPS_FOR_EACH * k))
    num_groups = scores.shape[1] // size
    best = scores[:, : num_groups * size].reshape(len(scores), size, num_groups).max(axis=1)
    return kth_largest(best, k)


def rank_in_group(group: np.ndarray, score: np.ndarray, item: np.ndarray, ids_of: IdsOf) -> np.ndarray:
    """The rank of every entry within its group by score descending, ties by id ascending: [m] int64 from 0.

    Ids are compared only where scores are equal.
    """
    order = np.lexsort((-score, group))
    ordered_group, ordered_score = group[order], score[order]
    same_group = ordered_group[1:] == ordered_group[:-1]
    same = same_group & (ordered_score[1:] == ordered_score[:-1])
    if same.any():
        tied = np.zeros(len(order), bool)
        tied[1:] |= same
        tied[:-1] |= same
        places = np.flatnonzero(tied)
        entries = order[places]
        names, name = np.unique(item[entries], return_inverse=True)
        by_id = np.empty(len(names), np.int64)
        by_id[pc.sort_indices(ids_of(names)).to_numpy()] = np.arange(len(names))
        order[places] = entries[np.lexsort((by_id[name], -score[entries], group[entries]))]
    ranks = np.empty(len(order), np.int64)
    ranks[order] = runs.places_in_runs(ordered_group)
    return ranks


def within_cap(
    row: np.ndarray, author: np.ndarray, score: np.ndarray, cap: int, slack: np.ndarray | None = None
) -> np.ndarray:
    """Mask of the `cap` best entries of each row and author, of equal scores the first entries: [m] bool.

    Args:
      row: [m] integers.
      author: [m] integers.
      score: [m] floats.
      cap: entries of a row and author.
      slack: [num_rows] margin below the cap-th score within which further entries stay too, if scores are not exact.
    """
    order = np.lexsort((-score, author, row))
    row, author, score = row[order], author[order], score[order]
    new = np.ones(len(order), bool)
    new[1:] = (row[1:] != row[:-1]) | (author[1:] != author[:-1])
    starts = np.flatnonzero(new)
    sizes = runs.sizes_of(starts, len(order))
    within = runs.places_in(sizes) < cap
    if slack is not None:
        within |= score >= np.repeat(score[starts + np.minimum(cap, sizes) - 1], sizes) - slack[row]
    keep = np.empty(len(order), bool)
    keep[order] = within
    return keep


def to_matrix(
    row: np.ndarray, values: tuple[np.ndarray, ...], num_rows: int, fills: tuple[float, ...]
) -> tuple[np.ndarray, ...]:
    """Entries as padded matrices [num_rows, most entries of a row], one for each of `values`.

    `row` has to be sorted.
    """
    sizes = np.bincount(row, minlength=num_rows)
    place = runs.places_in(sizes)
    width = int(sizes.max(initial=0))
    matrices = []
    for entries, fill in zip(values, fills, strict=True):
        matrix = np.full((num_rows, width), fill, entries.dtype)
        matrix[row, place] = entries
        matrices.append(matrix)
    return tuple(matrices)


# Above this ratio of survivors of the lower bound to k, in any row, sorting them costs too much.
_MANY = 4


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k highest scores of each row, best first, ties by column: [n, min(k, p)] int64.

    Args:
      scores: [n, p]; not NaN. Excluded entries are -inf, returned only if a row has fewer than k others.
    """
    k = min(k, scores.shape[1])
    if k == 0 or not len(scores):
        return np.zeros((len(scores), k), np.int64)
    rows, columns = survivors(scores, reached_by(scores, k))
    if np.bincount(rows).max() <= _MANY * k:
        found, place = to_matrix(rows, (scores[rows, columns], columns), len(scores), (-np.inf, -1))
        order = np.argsort(-found, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(place, order, axis=1)
    lowest = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
    chosen = scores >= lowest
    for row in np.flatnonzero(np.count_nonzero(chosen, axis=1) > k):  # more are equal than have room
        tied = np.flatnonzero(scores[row] == lowest[row])
        chosen[row, tied[k - np.count_nonzero(chosen[row]) :]] = False
    places = np.nonzero(chosen)[1].reshape(len(scores), k)
    order = np.argsort(-np.take_along_axis(scores, places, axis=1), axis=1, kind="stable")
    return np.take_along_axis(places, order, axis=1)

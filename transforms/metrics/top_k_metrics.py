"""How good a ranking is: recall and nDCG of the best k, a number for each user. Plain numpy."""

import numpy as np

from transforms.linalg import selection

# Where more of a row, for each that is looked for, reach what surely k do, they are too many to be sorted.
_MANY = 4


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """The places of the k highest scores of each row, best first, of equal ones the first: [n, min(k, p)] int64.

    Args:
      scores: [n, p]; not NaN. What may not be ranked is -inf; it only comes where a row has fewer than k others.
    """
    k = min(k, scores.shape[1])
    if k == 0 or not len(scores):
        return np.zeros((len(scores), k), np.int64)
    rows, columns = selection.survivors(scores, selection.reached_by(scores, k))
    if np.bincount(rows).max() <= _MANY * k:
        found, place = selection.to_matrix(rows, (scores[rows, columns], columns), len(scores), (-np.inf, -1))
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


def recall(hits: np.ndarray, num_targets: np.ndarray) -> np.ndarray:
    """Share of a user's targets that are among the ranked: [n] float64; 0 where there is no target.

    Divided by all targets, also where these are more than k (so that 1 may be out of reach), as RecBole does.

    Args:
      hits: [n, k] bool, whether the post in that place is a target.
      num_targets: [n].
    """
    return hits.sum(axis=1) / np.maximum(num_targets, 1)


def ndcg(hits: np.ndarray, num_targets: np.ndarray) -> np.ndarray:
    """Normalized discounted cumulative gain with binary gains (Järvelin and Kekäläinen 2002): [n] float64.

    Place i (from 0) counts 1 / log2(i + 2); divided by what the best ranking of min(k, targets) hits has. Args: as of
    `recall`.
    """
    discounts = 1 / np.log2(np.arange(hits.shape[1]) + 2)
    best = np.concatenate([[0], np.cumsum(discounts)])[np.minimum(num_targets, hits.shape[1])]
    return hits @ discounts / np.where(best > 0, best, 1)


def recall_ndcg(
    scores: np.ndarray, targets: np.ndarray, recall_at: int = 20, ndcg_at: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """(recall@recall_at [n], nDCG@ndcg_at [n]) of users, 0 where a user has no target: leave these out of means.

    Args:
      scores: [n, p]; -inf for what is not ranked.
      targets: [n, p] bool.
    """
    hits = np.take_along_axis(targets, top_k(scores, max(recall_at, ndcg_at)), axis=1)
    num_targets = np.count_nonzero(targets, axis=1)
    return recall(hits[:, :recall_at], num_targets), ndcg(hits[:, :ndcg_at], num_targets)

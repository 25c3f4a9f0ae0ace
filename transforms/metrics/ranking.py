"""Ranking accuracy of lists of posts, for each user, and confidence intervals of the means over users. Plain numpy.

Binary relevance: a post is a target of a user or it is not. Means are over users who have a target; each user counts
once, whatever the number of targets (on users with few, and the alternatives: Cañamares, Castells and Moffat
2020, "Offline evaluation options for recommender systems").
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import scipy.sparse

from transforms.linalg.selection import top_k

KS = (10, 20, 50)
NUM_RESAMPLES = 1000
# 95% of the resampled means lie between these.
_PERCENTILES = (2.5, 97.5)
_RESAMPLES_AT_ONCE = 20


def hits_of(lists: np.ndarray, targets: scipy.sparse.csr_matrix) -> np.ndarray:
    """Hits, the entries of a list that are targets of its user: [n, k] bool.

    Args:
      lists: [n, k] int, columns of `targets`, -1 where a list is shorter.
      targets: [n, p], anything but 0 is a target.
    """
    entries = targets.tocoo()
    codes = np.sort(entries.row.astype(np.int64) * targets.shape[1] + entries.col)
    wanted = np.arange(len(lists), dtype=np.int64)[:, None] * targets.shape[1] + lists
    place = np.minimum(np.searchsorted(codes, wanted), max(len(codes) - 1, 0))
    return (codes[place] == wanted) & (lists >= 0) if len(codes) else np.zeros(lists.shape, bool)


def recall(hits: np.ndarray, num_targets: np.ndarray) -> np.ndarray:
    """Share of a user's targets that are in the list: [n] float64; 0 where there is no target.

    Divided by all targets, even if these are more than k (so that 1 may be impossible), as RecBole does.

    Args:
      hits: [n, k] bool, whether the post in that place is a target.
      num_targets: [n].
    """
    return hits.sum(axis=1) / np.maximum(num_targets, 1)


def ndcg(hits: np.ndarray, num_targets: np.ndarray) -> np.ndarray:
    """Normalized discounted cumulative gain with binary gains (Järvelin and Kekäläinen 2002): [n] float64.

    Place i (from 0) counts 1 / log2(i + 2); divided by the gain of the ideal list of min(k, targets) hits. Args: as of
    `recall`.
    """
    discounts = 1 / np.log2(np.arange(hits.shape[1]) + 2)
    best = np.concatenate([[0], np.cumsum(discounts)])[np.minimum(num_targets, hits.shape[1])]
    return hits @ discounts / np.where(best > 0, best, 1)


def average_precision(hits: np.ndarray, num_targets: np.ndarray) -> np.ndarray:
    """Mean over the targets of the precision where each is found: [n] float64, 0 where there is no target.

    Divided by min(targets, k), so that a perfect list has 1 (Manning, Raghavan and Schütze 2008, section 8.4, cut at
    k). Args: as of `recall`.
    """
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    found: np.ndarray = (precision * hits).sum(axis=1) / np.maximum(np.minimum(num_targets, hits.shape[1]), 1)
    return found


def reciprocal_rank(hits: np.ndarray) -> np.ndarray:
    """1 / the place (from 1) of the first hit, 0 where there is none (Voorhees 1999): [n] float64."""
    return np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1.0), 0.0)


# Of hits [n, k] and numbers of targets [n]: [n].
MEASURES: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "recall": recall,
    "ndcg": ndcg,
    "map": average_precision,
    "hit_rate": lambda hits, _: np.asarray(hits.any(axis=1), np.float64),
    "mrr": lambda hits, _: reciprocal_rank(hits),
}


def names(ks: Sequence[int] = KS) -> list[str]:
    """The names of the columns of `per_user`: recall@10, ..., mrr@50."""
    return [f"{measure}@{k}" for measure in MEASURES for k in ks]


def per_user(hits: np.ndarray, num_targets: np.ndarray, ks: Sequence[int] = KS) -> np.ndarray:
    """All measures at all k: [n, len(names(ks))] float64.

    Args:
      hits: [n, at least the largest k] bool.
      num_targets: [n], at least 1.
    """
    return np.stack([measure(hits[:, :k], num_targets) for measure in MEASURES.values() for k in ks], axis=1)


def bootstrap(values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """95% confidence intervals of the means of columns: (low [m], high [m]) float64.

    The percentile bootstrap over users (Efron and Tibshirani 1993, chapter 13; Sakai 2006 for retrieval). All columns
    share the same resamples, so that the interval of a difference is that of the differences.

    Args:
      values: [n, m], a row a user; n at least 1.
    """
    means = np.concatenate([weights @ values for weights in _resamples(len(values), seed)])
    low, high = np.percentile(means, _PERCENTILES, axis=0)
    return low, high


def _resamples(num_users: int, seed: int) -> Iterator[np.ndarray]:
    """The share of each user in each resample: blocks of [b, num_users] float64, rows of sum 1."""
    rng = np.random.default_rng(seed)
    for start in range(0, NUM_RESAMPLES, _RESAMPLES_AT_ONCE):
        rows = min(_RESAMPLES_AT_ONCE, NUM_RESAMPLES - start)
        drawn = rng.integers(num_users, size=(rows, num_users)) + np.arange(rows)[:, None] * num_users
        yield np.bincount(drawn.ravel(), minlength=rows * num_users).reshape(rows, num_users) / num_users


def recall_ndcg(scores: np.ndarray, targets: np.ndarray, recall_at: int, ndcg_at: int) -> tuple[np.ndarray, np.ndarray]:
    """(recall@recall_at [n], nDCG@ndcg_at [n]) of users, 0 where a user has no target: exclude these from means.

    Args:
      scores: [n, p]; -inf for posts that are not ranked.
      targets: [n, p] bool.
    """
    hits = np.take_along_axis(targets, top_k(scores, max(recall_at, ndcg_at)), axis=1)
    num_targets = np.count_nonzero(targets, axis=1)
    return recall(hits[:, :recall_at], num_targets), ndcg(hits[:, :ndcg_at], num_targets)

"""Beyond-accuracy metrics of lists, whether or not they hit: catalog coverage, concentration, diversity, novelty."""

import numpy as np

# Posts whose popularity ranks in this share are the short head; all others are the long tail (Abdollahpouri, Burke and
# Mobasher 2019, "Managing Popularity Bias in Recommender Systems with Personalized Re-ranking").
HEAD_SHARE = 0.2


def shown(lists: np.ndarray, num_posts: int) -> np.ndarray:
    """Number of lists that each post is in: [num_posts] int64.

    Args:
      lists: [n, k] int, -1 where a list is shorter.
    """
    return np.bincount(lists[lists >= 0], minlength=num_posts)


def coverage(times_shown: np.ndarray) -> float:
    """The share of posts that are in any list (Herlocker et al. 2004), in [0, 1]."""
    return float(np.mean(times_shown > 0)) if len(times_shown) else 0.0


def gini(times_shown: np.ndarray) -> float:
    """The Gini index of how often posts are shown: 0 all alike, towards 1 one post only; 0 where nothing is shown.

    G = sum_i (2 i - n - 1) x_i / (n sum_i x_i), x ascending, i from 1 (Fleder and Hosanagar 2009 for recommenders).
    """
    ordered = np.sort(times_shown.astype(np.float64))
    total, n = ordered.sum(), len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total)) if total else 0.0


def long_tail(popularity: np.ndarray) -> np.ndarray:
    """Mask of posts not in the short head: [p] bool. Ties by place: the head has exactly its share, rounded up."""
    tail = np.ones(len(popularity), bool)
    tail[np.argsort(-popularity, kind="stable")[: int(np.ceil(HEAD_SHARE * len(popularity)))]] = False
    return tail


def long_tail_share(lists: np.ndarray, tail: np.ndarray) -> float:
    """APLT: the mean over lists of the share of their posts that are in the long tail; empty lists are ignored."""
    return _mean_of_lists(tail[np.maximum(lists, 0)].astype(np.float64), lists)


def novelty(lists: np.ndarray, popularity: np.ndarray, num_users: int) -> float:
    """Mean self-information of the posts in bits, -log2 of the share of users who know one (Zhou et al. 2010).

    One user is added to both numbers, so that a post nobody knows has a finite one.

    Args:
      popularity: [p] users who know each post.
      num_users: users there are.
    """
    bits = -np.log2((popularity + 1) / (num_users + 1))
    return _mean_of_lists(bits[np.maximum(lists, 0)], lists)


def intra_list_diversity(lists: np.ndarray, vectors: np.ndarray) -> float:
    """1 - cosine, mean over the pairs of a list and then over lists of two posts or more (Ziegler et al. 2005).

    Args:
      lists: [n, k] int, rows of `vectors`, -1 where a list is shorter.
      vectors: [p, d], rows of unit length; zeros where there is no content: such posts are ignored.
    """
    known = (lists >= 0) & np.any(vectors != 0, axis=1)[np.maximum(lists, 0)]
    count = known.sum(axis=1)
    sums = np.einsum("nkd,nk->nd", vectors[np.maximum(lists, 0)].astype(np.float64), known.astype(np.float64))
    several = count >= 2
    count, sums = count[several], sums[several]
    # The sum over ordered pairs of different posts is |sum|^2 less the posts with themselves.
    similarity = (np.einsum("nd,nd->n", sums, sums) - count) / (count * (count - 1))
    return float(np.mean(1 - similarity)) if len(count) else 0.0


def _mean_of_lists(values: np.ndarray, lists: np.ndarray) -> float:
    there = lists >= 0
    count = there.sum(axis=1)
    means = (values * there).sum(axis=1)[count > 0] / count[count > 0]
    return float(means.mean()) if len(means) else 0.0

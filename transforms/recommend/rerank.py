"""Re-ranking by freshness, diversity and calibration to the user's tastes.

The list is chosen from a pool of the exact best by inner product, a few times as long; ranks change, scores do not.
"""

import dataclasses
import datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.interactions.weights import SECONDS_A_DAY
from transforms.linalg import selection
from transforms.recommend.tastes import Tastes, likeness_vectors, nearest_taste
from transforms.search.top_k import Ranked
from transforms.tables import schemas

# A list is chosen from so many times its length, but at most MAX_POOL posts (or its own length, where that is more).
POOL_FACTOR = 4
# Diversity and tastes reorder so many posts of a pool; those behind keep their order.
MAX_POOL = 1000
# Similarities of the pools of some users in memory at a time.
_HELD_BYTES = 64 << 20
# Rounding error of shares times places.
_SLACK = 1e-9
_NO_TIME = np.iinfo(np.int64).min


@dataclasses.dataclass(frozen=True)
class Preferences:
    """Reranking preferences besides the score.

    Attributes:
      diversity: d in [0, 1], weight of the similarity to posts before, beside relevance; 0: none.
      half_life_days: age at which a post's relevance is halved; 0: never.
      now: time from which age is measured; needed with `half_life_days`.
      taste_share: minimum of a taste in a list, as a ratio in [0, 1] of its share of the history.
      content: blocks of an item vector by which posts are compared.
    """

    diversity: float = 0.0
    half_life_days: float = 0.0
    now: datetime.datetime | None = None
    taste_share: float = 0.0
    content: tuple[slice, ...] = ()

    def __post_init__(self) -> None:
        for name in ("diversity", "taste_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.half_life_days < 0 or (self.half_life_days and self.now is None):
            raise ValueError(f"half_life_days must be at least 0, with a now, got {self.half_life_days}, {self.now}")

    @property
    def matter(self) -> bool:
        """True if anything counts besides the score."""
        return bool(self.diversity or self.half_life_days or self.taste_share)

    def pool(self, k: int) -> int:
        """Size of the candidate pool, the best posts a list of k is chosen from."""
        return max(k, min(POOL_FACTOR * k, MAX_POOL)) if self.matter else k


SCORES_ALONE = Preferences()


def rerank(ranked: Ranked, k: int, preferences: Preferences, tastes: Tastes | None = None) -> Ranked:
    """The first k of every query by `preferences`, chosen from its entries in `ranked`; scores stay.

    Relevance is the score, from 1 for the best of the pool to 0 for the last, halved with every half-life of age. The
    list is then built greedily by maximal marginal relevance, (1 - d) relevance - d largest cosine with a post taken
    before (Carbonell and Goldstein 1998, "The Use of MMR, Diversity-Based Reranking"); a cosine below 0 counts as 0.
    Whenever the first p places hold fewer posts of a taste than floor(taste_share * its share * p), the next is the
    best of such a taste, if the pool has one (DetGreedy of Geyik, Ambler and Kenthapadi 2019, "Fairness-Aware Ranking
    in Search & Recommendation Systems", lower bounds only). Of equals the one with the larger score comes first, of
    those the one with the smaller id.

    Args:
      ranked: the pools, of preferences.pool(k) entries where there are so many.
      k: most posts of a list.
      preferences: criteria besides the score.
      tastes: of the queries; needed where `taste_share` is to count.
    """
    if not preferences.matter:
        return ranked
    num_queries = int(ranked.query[-1]) + 1 if len(ranked.query) else 0
    step = _queries_at_once(ranked)
    starts = range(0, num_queries, step)
    left = decay(ranked.items.created_at, preferences) if preferences.half_life_days else None
    chosen = [
        _choose(ranked, range(start, min(start + step, num_queries)), k, preferences, left, tastes) for start in starts
    ]
    return ranked.take(np.concatenate(chosen) if chosen else np.empty(0, np.int64))


def _queries_at_once(ranked: Ranked) -> int:
    length = min(int(ranked.rank.max(initial=1)), MAX_POOL)
    return max(1, _HELD_BYTES // (8 * length * (length + 2 * ranked.items.vectors.shape[1] + 8)))


def _choose(
    ranked: Ranked, queries: range, k: int, preferences: Preferences, left: np.ndarray | None, tastes: Tastes | None
) -> np.ndarray:
    """The entries of `ranked` that these queries get, by query and new rank: [m] int64.

    Args:
      left: [p] decay of the relevance of `ranked.items` by age; None for none.
    """
    start, stop = queries.start, queries.stop
    low, high = np.searchsorted(ranked.query, [start, stop])
    if low == high:
        return np.empty(0, np.int64)
    (entry,) = selection.to_matrix(ranked.query[low:high] - start, (np.arange(low, high),), stop - start, (-1,))
    there = entry >= 0
    value = relevance(np.where(there, ranked.score[entry], np.nan))
    if left is not None:
        value *= left[ranked.item[entry]]
    value[~there] = -np.inf
    # Rounded, so that neither sums nor powers show in the order of equals.
    order = np.argsort(-value.astype(np.float32), axis=1, kind="stable")
    if preferences.diversity or tastes is not None:
        front = order[:, :MAX_POOL]
        posts = ranked.items.vectors[ranked.item[np.take_along_axis(entry, front, 1)]]
        content = likeness_vectors(posts, preferences.content)
        due = None if tastes is None else _due(tastes, content, start, stop, preferences.taste_share)
        picks = greedy(np.take_along_axis(value, front, 1), content, k, preferences.diversity, due)
        order = np.concatenate([np.take_along_axis(front, picks, 1), order[:, MAX_POOL:]], axis=1)
    best = np.take_along_axis(entry, order[:, :k], 1)
    return best[best >= 0]


class Due(NamedTuple):
    """Calibration targets: `taste` of each post [n, m] int64, and the `share` of each taste [n, T + 1] float64."""

    taste: np.ndarray
    share: np.ndarray


def _due(tastes: Tastes, content: np.ndarray, start: int, stop: int, taste_share: float) -> Due:
    share = np.pad(tastes.share[start:stop] * taste_share, ((0, 0), (0, 1)))  # the last one: posts like no taste
    return Due(nearest_taste(content, tastes.medoid[start:stop]), share)


def relevance(score: np.ndarray) -> np.ndarray:
    """Scores of each row from 0 for the smallest to 1 for the largest, all 1 where they are equal: [n, m] float64.

    NaN, where there is no score, stays.
    """
    exact = score.astype(np.float64)
    low, high = np.fmin.reduce(exact, axis=1, keepdims=True), np.fmax.reduce(exact, axis=1, keepdims=True)
    spread = high - low
    scaled: np.ndarray = np.where(spread > 0, (exact - low) / np.where(spread > 0, spread, 1), exact * 0 + 1)
    return scaled


def decay(created_at: pa.Array, preferences: Preferences) -> np.ndarray:
    """0.5 ^ (age / half-life) of each post: [n] float64, 1 for one from the future, 0 for one without a time."""
    micros = pc.fill_null(created_at.cast(pa.int64()), _NO_TIME).to_numpy(zero_copy_only=False)
    now = pa.scalar(preferences.now, schemas.TIMESTAMP).cast(pa.int64()).as_py()
    age = np.maximum((now - micros.astype(np.float64)) / (preferences.half_life_days * SECONDS_A_DAY * 1e6), 0)
    return np.where(micros == _NO_TIME, 0.0, np.exp2(-age))


def greedy(value: np.ndarray, content: np.ndarray, k: int, diversity: float, due: Due | None) -> np.ndarray:
    """The columns of the first min(k, m) of each row, one after the other: [n, min(k, m)] int64.

    Args:
      value: [n, m] float64, relevance, -inf where there is no post, which is behind all others; of equals the first
        column comes first.
      content: [n, m, w] float32 of `likeness_vectors`; zeros for unknown content: its similarity to any other is
        the mean of the row's.
      diversity: d in [0, 1].
      due: minimum shares of tastes, if any.
    """
    left = np.isfinite(value)
    similarity = similarities(content, left) if diversity else None
    gain = (1 - diversity) * np.where(left, value, 0)
    nearest = np.zeros(value.shape)
    rows, num_picks = np.arange(len(value)), min(k, value.shape[1])
    served = None if due is None else np.zeros(due.share.shape)
    picks = np.empty((len(value), num_picks), np.int64)
    for place in range(num_picks):
        allowed = left
        if due is not None and served is not None:
            owed = served + 1 <= due.share * (place + 1) + _SLACK
            wanted = left & np.take_along_axis(owed, due.taste, 1)
            allowed = np.where(wanted.any(axis=1, keepdims=True), wanted, left)
        marginal = np.where(allowed, (gain - diversity * nearest).astype(np.float32), -np.inf)
        # Where no post is left, the columns without one follow in their order.
        pick = np.where(left.any(axis=1), marginal.argmax(axis=1), place)
        picks[:, place] = pick
        left[rows, pick] = False
        if similarity is not None:
            np.maximum(nearest, similarity[rows, pick], out=nearest)
        if due is not None and served is not None:
            served[rows, due.taste[rows, pick]] += 1
    return picks


def similarities(content: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Cosines of the posts of each row: [n, m, m] float64, the mean of the known pairs where one is not known.

    Args:
      content: [n, m, w] unit length or zeros.
      there: [n, m] bool.
    """
    known = there & content.any(axis=2)
    unit = np.where(known[:, :, None], content, 0).astype(np.float64)
    found: np.ndarray = unit @ unit.transpose(0, 2, 1)
    count = known.sum(axis=1)
    mean = (found.sum(axis=(1, 2)) - count) / np.maximum(count * (count - 1), 1)
    return np.where(known[:, :, None] & known[:, None, :], found, mean[:, None, None])

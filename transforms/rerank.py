"""Re-ranking: the order of a list by more than its scores. Fresher posts first, and posts unlike those before them.

Both take their pick of the exact best by inner product, a pool a few times as long as the list, and change ranks only:
scores stay what they are.
"""

import dataclasses
import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms import schemas, selection
from transforms.interaction_weights import SECONDS_A_DAY
from transforms.topk import Ranked

# A list is chosen from so many times its length, but at most MAX_POOL posts (or its own length, where that is more).
POOL_FACTOR = 4
# Also how far diversity reaches: what stands further behind in the pool keeps its order.
MAX_POOL = 1000
# Similarities of the pools of some users that are held at a time.
_HELD_BYTES = 64 << 20
_NO_TIME = np.iinfo(np.int64).min


@dataclasses.dataclass(frozen=True)
class Preferences:
    """What counts besides the score.

    Attributes:
      diversity: d in [0, 1], what likeness to the posts before counts beside relevance; 0: nothing.
      half_life_days: age at which a post's relevance counts half; 0: age does not matter.
      now: what age is measured from; needed with `half_life_days`.
      content: the columns of an item vector whose cosine tells how alike two posts are.
    """

    diversity: float = 0.0
    half_life_days: float = 0.0
    now: datetime.datetime | None = None
    content: slice = dataclasses.field(default_factory=lambda: slice(0, 0))

    def __post_init__(self) -> None:
        if not 0 <= self.diversity <= 1:
            raise ValueError(f"diversity must be in [0, 1], got {self.diversity}")
        if self.half_life_days < 0 or (self.half_life_days and self.now is None):
            raise ValueError(f"half_life_days must be at least 0, with a now, got {self.half_life_days}, {self.now}")

    def pool(self, k: int) -> int:
        """How many of the best a list of k is chosen from."""
        return max(k, min(POOL_FACTOR * k, MAX_POOL)) if self.matter else k

    @property
    def matter(self) -> bool:
        """Whether anything counts besides the score."""
        return bool(self.diversity or self.half_life_days)


SCORES_ALONE = Preferences()


def rerank(ranked: Ranked, k: int, preferences: Preferences) -> Ranked:
    """The first k of every query by `preferences`, chosen from its entries in `ranked`; scores stay.

    Relevance is the score, from 1 for the best of the pool to 0 for the last, halved with every half-life of age. The
    list is then built greedily by maximal marginal relevance, (1 - d) relevance - d largest cosine with a post taken
    before (Carbonell and Goldstein 1998, "The Use of MMR, Diversity-Based Reranking"); a cosine below 0 counts as 0. Of
    equals the one with the larger score comes first, of those the one with the smaller id.
    """
    if not preferences.matter:
        return ranked
    num_queries = int(ranked.query[-1]) + 1 if len(ranked.query) else 0
    step = _queries_at_once(ranked, preferences)
    chosen = [_choose(ranked, start, start + step, k, preferences) for start in range(0, num_queries, step)]
    return ranked.take(np.concatenate([np.empty(0, np.int64), *chosen]))


def _queries_at_once(ranked: Ranked, preferences: Preferences) -> int:
    length = min(int(ranked.rank.max(initial=1)), MAX_POOL)
    width = preferences.content.stop - preferences.content.start
    return max(1, _HELD_BYTES // (8 * length * (length + width) if preferences.diversity else 64 * length))


def _choose(ranked: Ranked, start: int, stop: int, k: int, preferences: Preferences) -> np.ndarray:
    """The entries of `ranked` that the queries start..stop get, by query and new rank: [m] int64."""
    low, high = np.searchsorted(ranked.query, [start, stop])
    entries = np.arange(low, high)
    (entry,) = selection.to_matrix(ranked.query[low:high] - start, (entries,), stop - start, (-1,))
    there = entry >= 0
    value = relevance(np.where(there, ranked.score[entry], np.nan))
    if preferences.half_life_days:
        value *= decay(ranked.items.created_at, preferences)[ranked.item[entry]]
    value[~there] = -np.inf
    # Rounded, so that neither sums nor powers show in the order of equals.
    order = np.argsort(-value.astype(np.float32), axis=1, kind="stable")
    if preferences.diversity:
        front = order[:, :MAX_POOL]
        content = ranked.items.vectors[:, preferences.content][ranked.item[np.take_along_axis(entry, front, 1)]]
        picks = diversify(np.take_along_axis(value, front, 1), content, k, preferences.diversity)
        order = np.concatenate([np.take_along_axis(front, picks, 1), order[:, MAX_POOL:]], axis=1)
    best = np.take_along_axis(entry, order[:, :k], 1)
    return best[best >= 0]


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


def diversify(value: np.ndarray, content: np.ndarray, k: int, diversity: float) -> np.ndarray:
    """Maximal marginal relevance: the columns of the first min(k, m) of each row, in order: [n, min(k, m)] int64.

    Args:
      value: [n, m] float64, relevance, -inf where there is no post; of equals the first column wins.
      content: [n, m, w] float32 of the posts; zeros where nothing is known of one: it counts as like any other as the
        row's posts are on average.
      diversity: d in [0, 1].
    """
    similarity = similarities(content, np.isfinite(value))
    gain = (1 - diversity) * np.where(np.isfinite(value), value, 0)
    left = np.isfinite(value)
    nearest = np.zeros(value.shape)
    rows, num_picks = np.arange(len(value)), min(k, value.shape[1])
    picks = np.empty((len(value), num_picks), np.int64)
    for place in range(num_picks):
        marginal = np.where(left, (gain - diversity * nearest).astype(np.float32), -np.inf)
        # Where no post is left, the columns without one follow in their order.
        pick = np.where(left.any(axis=1), marginal.argmax(axis=1), place)
        picks[:, place] = pick
        left[rows, pick] = False
        np.maximum(nearest, similarity[rows, pick], out=nearest)
    return picks


def similarities(content: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Cosines of the posts of each row: [n, m, m] float64, the mean of the known pairs where one is not known.

    Args:
      content: [n, m, w].
      there: [n, m] bool.
    """
    lengths = np.linalg.norm(content, axis=2, keepdims=True)
    unit = content / np.where(lengths > 0, lengths, 1).astype(np.float64)
    known = there & (lengths[:, :, 0] > 0)
    unit[~known] = 0
    found: np.ndarray = unit @ unit.transpose(0, 2, 1)
    count = known.sum(axis=1)
    mean = (found.sum(axis=(1, 2)) - count) / np.maximum(count * (count - 1), 1)
    unknown = ~(known[:, :, None] & known[:, None, :])
    return np.where(unknown, mean[:, None, None], found)

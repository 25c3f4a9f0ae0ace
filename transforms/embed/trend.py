"""Recent popularity, as one number of a post's vector, and its weight for a user, as one of the user's.

    post   log(1 + heat / mean heat) + newness * .5^(days since it was made / half_life)
           heat = sum over those who like it of .5^(days since then / half_life)
    user   weight * .5^((days since the user was last active / away)^2)

Recent popularity is hard to beat where users come back to a stream of what is new, and of little use for
inactive users (Ji, Sun, Zhang and Li 2020, "A Re-visit of the Popularity Baseline in Recommender Systems"): so
the weight is tuned, and fades with the time that a user has been away.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.embed.parameters import Trend
from transforms.tables import exact_sums

COLUMNS = ("post_id", "strength", "created_at")
_MICROS_PER_DAY = 86_400_000_000
_LONG_AGO = 1e6


def to_days(times: pa.Array) -> np.ndarray:
    """Days since 1970 of timestamps in microseconds: [n] float64, nan where there is none."""
    micros = times.cast(pa.int64())
    days: np.ndarray = pc.cast(micros, pa.float64(), safe=False).to_numpy(zero_copy_only=False) / _MICROS_PER_DAY
    return days


def ages(days: np.ndarray, newest: float) -> np.ndarray:
    """Age in days at `newest` of each of [n] days since 1970: 0 after it, inf where it is nan."""
    found: np.ndarray = np.where(np.isnan(days), np.inf, np.maximum(newest - days, 0))
    return found


def level(heat: np.ndarray, mean: float) -> np.ndarray:
    """log(1 + heat / mean): [n] float64, 0 for a post without likes."""
    return np.log1p(heat / mean) if mean > 0 else np.zeros(len(heat))


def newness(made: np.ndarray, trend: Trend) -> np.ndarray:
    """Newness of posts made then, [n] days since 1970: [n] float64, 0 where that is nan."""
    return trend.newness * 0.5 ** (ages(made, trend.newest) / trend.half_life)


def heat_by_post(history: pa.RecordBatch, trend: Trend) -> pa.RecordBatch:
    """Contribution of a block of schemas.HISTORY to the heat of its posts, a block of exact_sums.SCHEMA."""
    liked = history.filter(pc.greater(history.column("strength"), 0))
    age = ages(to_days(liked.column("created_at")), trend.newest)
    return exact_sums.sum_by_post(liked.column("post_id"), 0.5 ** (age / trend.half_life))


def levels_of_posts(
    posts: pa.RecordBatch, heat: pa.RecordBatch, trend: Trend, num_users: int, num_posts: int
) -> np.ndarray:
    """The numbers of some posts: [n] float64.

    Args:
      posts: post_id and created_at.
      heat: of these posts, blocks of `heat_by_post` one after the other.
      num_users: users with interactions, and
      num_posts: posts with some: the mean heat is known by user (`Trend.per_user`).
    """
    hot = level(exact_sums.totals(posts.column("post_id"), heat), trend.per_user * num_users / max(num_posts, 1))
    return hot + newness(to_days(posts.column("created_at")), trend)


def weights_of_users(last_active: np.ndarray, trend: Trend | None) -> np.ndarray:
    """Weight of the trend for users who were last active then, in days since 1970 (nan: never): [m] float64.

    It stays for a while and then falls fast, unlike the heat of a post: a user of last week is as much of the present
    as one of today.
    """
    if trend is None:
        return np.zeros(len(last_active))
    age = ages(last_active, trend.newest)
    away = np.inf if trend.away is None else trend.away
    return np.where(np.isinf(age), 0, trend.weight * 0.5 ** np.square(np.minimum(age, _LONG_AGO) / away))

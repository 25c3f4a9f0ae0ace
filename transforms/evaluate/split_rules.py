"""Train/test split of a backtest: by time, by user, by post, or a table of its own."""

import dataclasses
import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.evaluate.order_statistics import ReadNumbers, newest_share, order_statistic, span
from transforms.interactions.weights import SECONDS_A_DAY
from transforms.tables import blocks

KINDS = ("time", "user", "cold")
HOLDOUT = "holdout"


@dataclasses.dataclass(frozen=True)
class Split:
    """Rule for the held-out interactions.

    Attributes:
      kind: `time` (all after `cut`), `user` (the newest share of each user's own; later interactions of others are in
        the training part, which favors popularity: Ji et al. 2023, "A Critical Study on Data Leakage in Recommender
        System Offline Evaluation"), `cold` (all with a share of the posts) or `holdout` (a table of its own).
      share: of the interactions (cold: posts) that are held out.
      seed: of the hashes.
      cut: time: microseconds since 1970; nothing is fitted on posts created later.
      until: time: interactions after it have a wrong time, and are in neither part.
      coldest: cold: interactions with posts whose code is not above it are held out; None where there is no post.
      cold_posts: cold: the ids of the posts themselves, instead of `coldest`; None where these are not given.
    """

    kind: str
    share: float = 0.2
    seed: int = 0
    cut: int = 0
    until: int = np.iinfo(np.int64).max
    coldest: int | None = None
    cold_posts: pa.Array | None = None

    def is_cold(self, post_id: pa.Array) -> np.ndarray:
        """Mask of the posts whose interactions are all held out by a cold split: [n] bool."""
        if self.kind == "cold" and self.cold_posts is not None:
            found: np.ndarray = pc.is_in(post_id, value_set=self.cold_posts).to_numpy(zero_copy_only=False)
            return found
        if self.kind != "cold" or self.coldest is None:
            return np.zeros(len(post_id), bool)
        return cold_codes(post_id, self.seed) <= self.coldest

    def is_new(self, created_at: pa.Array) -> np.ndarray:
        """Mask of the posts created after the cut of a time split: [n] bool. False for one without a time."""
        if self.kind != "time":
            return np.zeros(len(created_at), bool)
        later = pc.greater(created_at.cast(pa.int64()), self.cut)
        return pc.fill_null(later, False).to_numpy(zero_copy_only=False)


def cold_codes(post_id: pa.Array, seed: int) -> np.ndarray:
    """Hash of each post by which the cold posts are sampled: [n] int64."""
    return (seeded_hash(post_id, seed) >> np.uint64(1)).astype(np.int64)


def seeded_hash(ids: pa.Array, seed: int) -> np.ndarray:
    """A hash of every id, another for each seed: [n] uint64."""
    with np.errstate(over="ignore"):
        return blocks.stable_hash(ids, seed)


def by_time(read_times: ReadNumbers, *, share: float, days: float, seed: int, until: int) -> Split:
    """The newest `days`, or where that is 0 the newest `share` of the interactions with a time; `user` if none has one.

    Args:
      read_times: the times of the interactions, microseconds since 1970, none after `until`.
    """
    _, newest, count = span(read_times)
    if not count:
        return Split("user", share, seed)
    cut = newest - round(days * SECONDS_A_DAY * 1e6) if days else newest_share(read_times, share)
    return Split("time", share, seed, cut, until)


def by_post(read_codes: ReadNumbers, *, share: float, seed: int) -> Split:
    """A share of the posts, chosen by a hash of their ids.

    Args:
      read_codes: `cold_codes` of all posts.
    """
    _, _, count = span(read_codes)
    num_cold = int(share * count)
    return Split("cold", share, seed, coldest=order_statistic(read_codes, num_cold - 1) if num_cold else None)


def time_of(micros: int) -> datetime.datetime:
    """Microseconds since 1970 as a time, UTC."""
    return datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(microseconds=micros)

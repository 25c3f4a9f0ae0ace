"""Interactions -> history: the weight of each user-post pair, over all its interactions."""

import dataclasses
import datetime
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.interactions import reposts
from transforms.interactions.weights import RATING, InteractionWeights, rating_factors
from transforms.linalg import runs
from transforms.linalg.sparse import sorted_codes
from transforms.tables import schemas, shuffle

COLUMNS = tuple(schemas.INTERACTIONS.names)
# Repeated interactions with a post count up to this strength.
MAX_STRENGTH = 2.0
_NO_TIME = np.iinfo(np.int64).min

# Shuffled form of an interaction: the weight of its kind, and its rating if it is one.
_WEIGHED = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("post_id", pa.string(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        ("rating", pa.float64()),
        ("created_at", schemas.TIMESTAMP),
    ]
)


@dataclasses.dataclass
class MakeHistory(beam.PTransform):
    """{"interactions": blocks, "posts": blocks (reposts.COLUMNS)} -> (part, block of schemas.HISTORY).

    A user's rows are all in one part, sorted by user and post. The `weight` of a post is the sum of kind x rating x age
    over the user's interactions with it and with pure reposts of it. Its `strength` is the sum of the kinds' weights
    alone, clipped to [0, MAX_STRENGTH]. `recency` is the rank of the post in the user's own history.

    Age is measured from the newest of all interactions up to `until`: a single wrong time in the future must not make
    all others old. Interactions with posts that are not in the input are retained: the user has seen these posts.

    Example:
        inputs = {"interactions": interactions, "posts": posts}
        inputs | MakeHistory(InteractionWeights(half_life_days=30), num_parts=16)

    Attributes:
      weights: by kind and age.
      num_parts: parts of the history.
      until: end of the run's day, None for no limit.
    """

    weights: InteractionWeights
    num_parts: int
    until: datetime.datetime | None = None

    def __post_init__(self) -> None:
        shuffle.check_num_parts(self.num_parts)

    def expand(
        self, inputs: dict[str, beam.PCollection[pa.RecordBatch]]
    ) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        interactions = inputs["interactions"]
        newest = (
            interactions
            | "NewestOfBlock" >> beam.Map(newest_time, until=self.until)
            | "Newest" >> beam.CombineGlobally(_latest)
        )
        weighed: Any = {
            "weighed": interactions | "WeighKinds" >> beam.Map(_weigh, weights=self.weights),
            "originals": inputs["posts"] | "FindOriginals" >> reposts.ResolveReposts(self.num_parts),
        }
        return (
            weighed
            | "MeetReposts"
            >> shuffle.CoGroupBlocks(
                keys={"weighed": "post_id", "originals": "post_id"},
                schemas={"weighed": _WEIGHED, "originals": reposts.PAIRS},
                num_parts=self.num_parts,
            )
            | "CountForOriginals" >> beam.Map(_resolve)
            | "GroupByUser" >> shuffle.GroupBlocks("user_id", self.num_parts)
            | "SumByPost" >> beam.Map(_sum_part, weights=self.weights, newest=beam.pvalue.AsSingleton(newest))
        )


def newest_time(interactions: pa.RecordBatch, until: datetime.datetime | None) -> int | None:
    """The newest time up to `until`, in microseconds since 1970; None if there is none."""
    times = interactions.column("created_at")
    if until is not None:
        times = times.filter(pc.less_equal(times, pa.scalar(until, times.type)))
    newest: int | None = pc.max(times.cast(pa.int64())).as_py()
    return newest


def _latest(times: Any) -> int | None:
    return max((time for time in times if time is not None), default=None)


def _weigh(interactions: pa.RecordBatch, weights: InteractionWeights) -> pa.RecordBatch:
    kind = interactions.column("kind")
    is_rating = pc.equal(pc.utf8_lower(kind), RATING)
    rating = pc.if_else(pc.fill_null(is_rating, False), interactions.column("value"), None)
    return pa.RecordBatch.from_arrays(
        [
            interactions.column("user_id"),
            interactions.column("post_id"),
            pa.array(weights.of_kinds(kind)),
            rating,
            interactions.column("created_at"),
        ],
        schema=_WEIGHED,
    )


def _resolve(numbered: tuple[int, dict[str, pa.RecordBatch]]) -> pa.RecordBatch:
    _, met = numbered
    weighed = met["weighed"]
    post_id = reposts.resolve(weighed.column("post_id"), met["originals"])
    return weighed.set_column(1, _WEIGHED.field("post_id"), post_id)


def _sum_part(
    numbered: tuple[int, pa.RecordBatch], weights: InteractionWeights, newest: int | None
) -> tuple[int, pa.RecordBatch]:
    part, weighed = numbered
    when = None if newest is None else pa.scalar(newest, pa.int64()).cast(schemas.TIMESTAMP).as_py()
    return part, sum_history(weighed, weights, when)


def sum_history(
    weighed: pa.RecordBatch, weights: InteractionWeights, newest: datetime.datetime | None
) -> pa.RecordBatch:
    """The history of users whose interactions are all in one block, sorted by user and post."""
    user, users = sorted_codes(weighed.column("user_id"))
    post, posts = sorted_codes(weighed.column("post_id"))
    rating = pc.fill_null(weighed.column("rating"), np.nan).to_numpy(zero_copy_only=False)
    of_kind = weighed.column("weight").to_numpy()
    weight = of_kind * rating_factors(user, rating) * weights.of_age(weighed.column("created_at"), newest)
    pair = user * len(posts) + post
    order = np.lexsort((of_kind, weight, pair))  # by weights too: sums must not depend on the input order
    starts = runs.starts_of(pair[order])
    times = pc.fill_null(weighed.column("created_at").cast(pa.int64()), _NO_TIME).to_numpy(zero_copy_only=False)
    latest = np.maximum.reduceat(times[order], starts)
    firsts = order[starts]
    return pa.RecordBatch.from_arrays(
        [
            users.take(pa.array(user[firsts])),
            posts.take(pa.array(post[firsts])),
            pa.array(np.add.reduceat(weight[order], starts).astype(np.float32)),
            pa.array(np.clip(np.add.reduceat(of_kind[order], starts), 0, MAX_STRENGTH).astype(np.float32)),
            pa.array(recency(user[firsts], latest).astype(np.float32)),
            pa.array(np.diff(np.append(starts, len(order)))),
            pa.array(latest, mask=latest == _NO_TIME).cast(schemas.TIMESTAMP),
        ],
        schema=schemas.HISTORY,
    )


def recency(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Relative rank of each row by time among those of its user, from 0 (newest) to below 1 (oldest): [n] float64.

    Equal times share their mean rank; rows without a time come last, together. All are 0 for a user without any time.

    Args:
      user: [n] int64, codes from 0.
      time: [n] int64, the smallest int64 if missing.
    """
    ranks = runs.mean_ranks(user, ~time)  # ~ reverses the order, as - does, of the smallest int64 too
    num_dated = np.bincount(user, time != _NO_TIME)
    ranks[num_dated[user] == 0] = 0
    return ranks

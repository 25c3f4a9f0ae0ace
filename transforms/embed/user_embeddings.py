"""User embeddings: sums of the profile vectors of the history's posts and of the stated interests, block by block."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from apache_beam import pvalue

from transforms.embed import formulas, trend
from transforms.embed.embedding_space import Covariances, Space
from transforms.linalg import sparse
from transforms.tables import blocks, parquet, schemas, shuffle

# Rows of the history in a part of users: every part reads the profile vectors of all posts.
ROWS_PER_PART = 2_000_000
# Users of a part whose sums are held at a time, each such block reads them once more; and who are mixed at a time.
USERS_AT_ONCE = 65_536
_MIXED_AT_ONCE = 8192
_READ_ROWS = 65_536
# Interactions that stated interests count as: a few likes more of one's own soon outweigh them.
INTERESTS_WORTH = 5.0
# Maximum length of the disliked part of a profile, relative to the liked part: it may turn a profile, never reverse it.
MAX_DISLIKE = 0.5

# (block of schemas.USERS) -> ([n, Q] float32 profile vectors, [n] bool: the vector is not zero)
EncodeInterests = Callable[[pa.RecordBatch], tuple[np.ndarray, np.ndarray]]

SIGNS = {"liked": 1.0, "disliked": -1.0}


class Profiles(NamedTuple):
    """Outputs of MakeProfiles.

    Attributes:
      parts: (part, block of schemas.user_embeddings), sorted by user in a part.
      scales: (part, block of schemas.user_scales), the same users.
      counts: ("profiles.liked.entries" | "profiles.disliked.entries", n) and, of these, (".._without_vector", n).
    """

    parts: beam.PCollection[tuple[int, pa.RecordBatch]]
    scales: beam.PCollection[tuple[int, pa.RecordBatch]]
    counts: beam.PCollection[tuple[str, int]]


@dataclasses.dataclass
class MakeProfiles(beam.PTransform):
    """{"users", "history": blocks} -> Profiles.

    One row a user of either. The history adds strength x recency x profile vector of every post that was liked, less
    that of those disliked, bounded by MAX_DISLIKE; a user who liked no post with a vector has no history part: dislikes
    alone do not indicate a direction. The interests add `interests_worth` times the profile vector of what the
    user says.

    Attributes:
      posts: the directory of schemas.post_profiles, complete when this runs.
      space: the blocks of an embedding.
      covariances: of the items' blocks.
      num_parts: parts of users (see `choose_num_parts`).
      encode_interests: profile vectors of stated interests; None if there are none.
      interests_worth: number of interactions that weigh as much as the stated interests.

    Example:
        made = {"users": users, "history": history} | MakeProfiles("out/post_profiles", space, covariances, num_parts=8)
    """

    posts: str
    space: Space
    covariances: Covariances
    num_parts: int
    encode_interests: EncodeInterests | None = None
    interests_worth: float = INTERESTS_WORTH

    def __post_init__(self) -> None:
        shuffle.check_num_parts(self.num_parts)
        if not self.interests_worth > 0:
            raise ValueError(f"interests_worth must be more than 0, got {self.interests_worth}")

    def expand(self, inputs: dict[str, beam.PCollection[pa.RecordBatch]]) -> Profiles:
        by_user = inputs | "GroupByUser" >> shuffle.CoGroupBlocks(
            {"users": "user_id", "history": "user_id"},
            {"users": schemas.USERS, "history": schemas.HISTORY},
            self.num_parts,
        )
        make = beam.FlatMap(_make_part, posts=self.posts, config=Mixing.of(self))
        make = make.with_output_types(tuple[int, pa.RecordBatch])
        made = by_user | "MakePart" >> make.with_outputs("scales", "counts", main="parts")
        return Profiles(made.parts, made.scales, made.counts)


def choose_num_parts(num_rows: int, num_users: int, users_per_part: int) -> int:
    """Parts of users for so many rows of the history and, of those of whom more may be known, so many users."""
    return max(1, -(-num_rows // ROWS_PER_PART), -(-num_users // users_per_part))


class Group(NamedTuple):
    """Columns of a profile in which interactions fade alike, `half_life` of recency (None: not at all)."""

    name: str
    start: int
    width: int
    half_life: float | None

    @property
    def columns(self) -> slice:
        """Where they stand."""
        return slice(self.start, self.start + self.width)


def groups(space: Space) -> list[Group]:
    """The columns of the own factors, and those that content gives (of new posts most of all)."""
    own, rest = space.widths.own, space.widths.decoded + space.widths.content
    found = [
        Group("own", 0, own, space.tuning.recency),
        Group("content", own, rest, space.tuning.content_recency),
    ]
    return [group for group in found if group.width]


class Mixing(NamedTuple):
    """Configuration of `mix_users`: the attributes of MakeProfiles, without Beam."""

    space: Space
    covariances: Covariances
    encode_interests: EncodeInterests | None
    interests_worth: float

    @classmethod
    def of(cls, transform: MakeProfiles) -> "Mixing":
        return cls(*(getattr(transform, name) for name in cls._fields))


def history_weights(history: pa.RecordBatch, half_life: float | None) -> np.ndarray:
    """Weight of each row of history/ in its user's profile, [n] float64: negative for what was disliked.

    What was liked counts its strength, halved with every `half_life` of recency; what was disliked its weight.
    """
    weight, strength, recency = (
        history.column(name).to_numpy().astype(np.float64) for name in ("weight", "strength", "recency")
    )
    return np.where(weight > 0, strength * formulas.recency_weights(recency, half_life), weight)


def _make_part(numbered: tuple[int, dict[str, pa.RecordBatch]], posts: str, config: Mixing) -> Iterator[Any]:
    part, met = numbered
    ids = users_of(met["users"], met["history"])
    made = [(schemas.empty(schemas.user_embeddings(config.space.width)), schemas.empty(schemas.user_scales(3)))]
    for start in range(0, len(ids), USERS_AT_ONCE):
        some = ids.slice(start, USERS_AT_ONCE)
        users, history = (_of_users(met[name], some, len(ids)) for name in ("users", "history"))
        sums, counts = history_sums(some, history, read_profiles(posts), config.space)
        made += mix_users(some, users, totals(history), sums, config)
        for count in counts.items():
            yield pvalue.TaggedOutput("counts", count)
    embeddings, scales = (blocks.concat(pieces) for pieces in zip(*made, strict=True))
    yield part, embeddings
    yield pvalue.TaggedOutput("scales", (part, scales))


def _of_users(rows: pa.RecordBatch, user_id: pa.Array, num_users: int) -> pa.RecordBatch:
    """The rows of some of a part's users."""
    return rows if len(user_id) == num_users else rows.filter(pc.is_in(rows.column("user_id"), value_set=user_id))


def read_profiles(posts: str) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """(post_id [n], profile vectors [n, Q] float32) of a table of schemas.post_profiles, in blocks."""
    for block in parquet.read_blocks(posts, _READ_ROWS):
        yield block.column("post_id"), blocks.vectors_to_numpy(block.column("profile"))


def users_of(users: pa.RecordBatch, history: pa.RecordBatch) -> pa.Array:
    """The users of either block: [n] string, sorted."""
    ids = pc.unique(pa.concat_arrays([users.column("user_id"), history.column("user_id")]))
    return ids.take(pc.sort_indices(ids))


def history_sums(
    user_id: pa.Array, history: pa.RecordBatch, table: Iterable[tuple[pa.Array, np.ndarray]], space: Space
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """(sign -> [n, Q] float64, what the profile vectors of the posts of that sign add up to; counts as of `Profiles`).

    Args:
      user_id: [n], distinct.
      history: schemas.HISTORY of these users.
      table: the posts' profile vectors, streamed once (see `sparse.times_table`).
    """
    encoded = history.column("post_id").dictionary_encode()
    keys, column = encoded.dictionary, encoded.indices.to_numpy()
    row = pc.index_in(history.column("user_id"), value_set=user_id).to_numpy()
    matrices, columns, wanted = {}, {}, groups(space)
    for sign, factor in SIGNS.items():
        for group in wanted:
            weight = history_weights(history, group.half_life) * factor
            some = np.flatnonzero(weight > 0)
            entries = sp.coo_array((weight[some], (row[some], column[some])), (len(user_id), len(keys))).tocsc()
            matrices[f"{sign}.{group.name}"], columns[f"{sign}.{group.name}"] = entries, group.columns
    found, met = sparse.times_table(matrices, keys, table, columns)
    counts, sums = {}, {}
    for sign in SIGNS:
        sums[sign] = np.hstack([np.zeros((len(user_id), 0)), *(found[f"{sign}.{group.name}"] for group in wanted)])
        for group in wanted[-1:]:  # the same entries for every group
            numbers = np.diff(matrices[f"{sign}.{group.name}"].indptr)
            counts[f"profiles.{sign}.entries"] = int(numbers.sum())
            counts[f"profiles.{sign}.entries_without_vector"] = int(numbers[~met].sum())
    return sums, counts


def totals(history: pa.RecordBatch) -> pa.Table:
    """Interaction count and last interaction time of each user of a block of history: user_id, number, last."""
    sums = pa.table(history).group_by("user_id").aggregate([("num_interactions", "sum"), ("created_at", "max")])
    return sums.select(["user_id", "num_interactions_sum", "created_at_max"]).rename_columns(
        ["user_id", "number", "last"]
    )


def mix_users(
    user_id: pa.Array, users: pa.RecordBatch, counts: pa.Table, sums: Mapping[str, np.ndarray], config: Mixing
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Blocks of schemas.user_embeddings and schemas.user_scales, in the order of `user_id`.

    Args:
      user_id: [n] string, sorted.
      users: schemas.USERS of those who say something.
      counts: `totals` of those who did something.
      sums: of `history_sums`.
      config: how they are mixed.
    """
    said = pc.index_in(user_id, value_set=users.column("user_id"))
    did = pc.index_in(user_id, value_set=counts.column("user_id").combine_chunks())
    for start in range(0, len(user_id), _MIXED_AT_ONCE):
        some = slice(start, start + _MIXED_AT_ONCE)
        yield _mix(
            user_id[some],
            users.take(said[some].drop_null()),
            counts.take(did[some]),
            {sign: values[some] for sign, values in sums.items()},
            config,
        )


def _mix(
    ids: pa.Array, users: pa.RecordBatch, counts: pa.Table, sums: Mapping[str, np.ndarray], config: Mixing
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """`mix_users` of a few; the rows of `counts` are those of `ids`, null where a user did nothing."""
    counted = pc.fill_null(counts.column("number"), 0).combine_chunks()
    last_active = trend.to_days(counts.column("last").combine_chunks())
    history = history_profiles(sums["liked"], sums["disliked"])
    interests = np.zeros(history.shape)
    if config.encode_interests is not None and users.num_rows:
        said, present = config.encode_interests(users)
        places = pc.index_in(users.column("user_id"), value_set=ids).to_numpy()
        interests[places[present]] = said[present] * config.interests_worth
    space, covariances = config.space, config.covariances
    profile = history + interests
    scales = formulas.block_factors(profile, covariances, space.tuning.content_weight, space.tuning.mix)
    trend_weight = trend.weights_of_users(last_active, space.tuning.trend)
    embedding = formulas.scaled_profiles(profile, scales, covariances, trend_weight)
    arrays = [ids, blocks.numpy_to_vectors(embedding), counted, sources(history, interests, embedding)]
    scaled = [ids, blocks.numpy_to_vectors(scales)]
    return (
        pa.RecordBatch.from_arrays(arrays, schema=schemas.user_embeddings(embedding.shape[1])),
        pa.RecordBatch.from_arrays(scaled, schema=schemas.user_scales(scales.shape[1])),
    )


def history_profiles(liked: np.ndarray, disliked: np.ndarray) -> np.ndarray:
    """Profiles of what was liked less what was disliked, bounded: [n, Q] float64, zeros where nothing was liked.

    Args:
      liked: [n, Q] weighted sums of profile vectors.
      disliked: [n, Q] likewise, of positive weights.
    """
    liked_length = np.linalg.norm(liked, axis=1, keepdims=True)
    disliked_length = np.linalg.norm(disliked, axis=1, keepdims=True)
    share = np.minimum(1, MAX_DISLIKE * liked_length / np.where(disliked_length > 0, disliked_length, 1))
    profiles: np.ndarray = liked - share * disliked
    return profiles


def sources(history: np.ndarray, interests: np.ndarray, embedding: np.ndarray) -> pa.Array:
    """Sources of each embedding, [n] string: history, interests, both or none (no embedding either)."""
    known = np.any(embedding != 0, axis=1)
    has_history, has_interests = (np.any(part != 0, axis=1) & known for part in (history, interests))
    return pa.array(np.array(["none", "history", "interests", "both"])[has_history + 2 * has_interests])

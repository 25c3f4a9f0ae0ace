"""User embeddings: the sum of what the posts of a user's history and the stated interests add, block by block."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam import pvalue

from transforms import blocks, schemas, shuffle, sparse, trend, vectors
from transforms.space import Covariances, Space

# What was disliked takes at most so much of the length of what was liked away: it turns a profile, it never
# turns it around.
MAX_DISLIKE = 0.5

# (block of schemas.USERS) -> ([n, Q] float32 profile vectors, [n] bool: there is something to go by)
EncodeInterests = Callable[[pa.RecordBatch], tuple[np.ndarray, np.ndarray]]

SIGNS = {"liked": 1.0, "disliked": -1.0}

_TOTALS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("num_interactions", pa.int64(), nullable=False),
        ("last", schemas.TIMESTAMP),
    ]
)


class Profiles(NamedTuple):
    """What MakeProfiles gives.

    Attributes:
      parts: (part, block of schemas.user_embeddings), sorted by user in a part.
      scales: (part, block of schemas.user_scales), the same users.
      counts: of SparseTimesDense.
    """

    parts: beam.PCollection[tuple[int, pa.RecordBatch]]
    scales: beam.PCollection[tuple[int, pa.RecordBatch]]
    counts: beam.PCollection[tuple[str, int]]


@dataclasses.dataclass
class MakeProfiles(beam.PTransform):
    """{"users", "history", "profiles": blocks of users, history and post_profiles} -> Profiles.

    One row a user of either of the first two. The history adds strength x recency x profile vector of every post that
    was liked, less that of those disliked, bounded by MAX_DISLIKE; a user who liked nothing that has a vector has no
    history part, as where to go is not known from where not to. The interests add `interests_worth` times the profile
    vector of what the user says.

    Attributes:
      space: the blocks of an embedding.
      covariances: of the items' blocks.
      encode_interests: profile vectors of what users say; None where they say nothing.
      interests_worth: how many interactions the stated interests are worth.
    """

    space: Space
    covariances: Covariances
    num_parts: int
    encode_interests: EncodeInterests | None = None
    interests_worth: float = 5.0

    def __post_init__(self) -> None:
        super().__init__()
        shuffle.check_num_parts(self.num_parts)
        if not self.interests_worth > 0:
            raise ValueError(f"interests_worth must be more than 0, got {self.interests_worth}")

    def expand(self, inputs: dict[str, beam.PCollection[pa.RecordBatch]]) -> Profiles:
        met = {"users": inputs["users"], "totals": inputs["history"] | "CountInteractions" >> beam.Map(totals)}
        keys, tables = {"users": "user_id", "totals": "user_id"}, {"users": schemas.USERS, "totals": _TOTALS}
        counts: dict[str, beam.PCollection[tuple[str, int]]] = {}
        for group in groups(self.space):
            dense = inputs["profiles"] | f"Vectors {group.name}" >> beam.Map(_profile_vectors, group)
            for sign in SIGNS:
                name = f"{sign}.{group.name}"
                entries = inputs["history"] | f"Select {name}" >> beam.Map(_entries, sign, group.half_life)
                multiply = sparse.SparseTimesDense(group.width, self.num_parts, name=f"profiles.{sign}")
                product = {"entries": entries, "dense": dense} | f"Sum {name}" >> multiply
                met[name], keys[name], tables[name] = product.rows, "row", sparse.product_schema(group.width)
                counts[sign] = product.counts  # The same entries for every group.
        by_user = met | "GroupByUser" >> shuffle.CoGroupBlocks(keys, tables, self.num_parts)
        mix_parts = beam.FlatMap(_mix_part, config=Mixing.of(self)).with_output_types(tuple[int, pa.RecordBatch])
        made = by_user | "MixPart" >> mix_parts.with_outputs("scales", main="parts")
        return Profiles(made.parts, made.scales, tuple(counts.values()) | "Counts" >> beam.Flatten())


class Group(NamedTuple):
    """Columns of a profile in which interactions fade alike, `half_life` of recency (None: not at all)."""

    name: str
    start: int
    width: int
    half_life: float | None


def groups(space: Space) -> list[Group]:
    """The columns of the own factors, and those that content gives (of new posts most of all)."""
    own, rest = space.widths.own, space.widths.decoded + space.widths.content
    found = [
        Group("own", 0, own, space.tuning.recency),
        Group("content", own, rest, space.tuning.content_recency),
    ]
    return [group for group in found if group.width]


class Mixing(NamedTuple):
    """What `mix_users` goes by: the attributes of MakeProfiles, without Beam."""

    space: Space
    covariances: Covariances
    encode_interests: EncodeInterests | None
    interests_worth: float

    @classmethod
    def of(cls, transform: MakeProfiles) -> "Mixing":
        return cls(*(getattr(transform, name) for name in cls._fields))


def _profile_vectors(profiles: pa.RecordBatch, group: Group) -> pa.RecordBatch:
    values = blocks.vectors_to_numpy(profiles.column("profile"))[:, group.start : group.start + group.width]
    return pa.RecordBatch.from_arrays(
        [profiles.column("post_id"), blocks.numpy_to_vectors(values)], schema=sparse.dense_schema(group.width)
    )


def history_weights(history: pa.RecordBatch, half_life: float | None) -> np.ndarray:
    """What each row of history/ counts in its user's profile, [n] float64: negative for what was disliked.

    What was liked counts its strength, halved with every `half_life` of recency; what was disliked its weight.
    """
    weight, strength, recency = (
        history.column(name).to_numpy().astype(np.float64) for name in ("weight", "strength", "recency")
    )
    return np.where(weight > 0, strength * vectors.recency_weights(recency, half_life), weight)


def _entries(history: pa.RecordBatch, sign: str, half_life: float | None) -> pa.RecordBatch:
    weight = history_weights(history, half_life) * SIGNS[sign]
    columns = [history.column("user_id"), history.column("post_id"), pa.array(weight)]
    return pa.RecordBatch.from_arrays(columns, schema=sparse.ENTRIES).filter(pa.array(weight > 0))


def totals(history: pa.RecordBatch) -> pa.RecordBatch:
    """How many interactions each user of a block of history has, and when the last one was."""
    sums = pa.table(history).group_by("user_id").aggregate([("num_interactions", "sum"), ("created_at", "max")])
    names = ("user_id", "num_interactions_sum", "created_at_max")
    return pa.RecordBatch.from_arrays([sums.column(name).combine_chunks() for name in names], schema=_TOTALS)


def _mix_part(numbered: tuple[int, dict[str, pa.RecordBatch]], config: Mixing) -> list[object]:
    part, met = numbered
    embeddings, scales = mix_users(met, config)
    return [(part, embeddings), pvalue.TaggedOutput("scales", (part, scales))]


def mix_users(met: Mapping[str, pa.RecordBatch], config: Mixing) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Blocks of schemas.user_embeddings and schemas.user_scales, sorted by user.

    Args:
      met: of these users "users" (schemas.USERS), "totals" (of `totals`), and for every sign and group SIGN.GROUP, the
        sums of the profile vectors (sparse.product_schema).
      config: how they are mixed.
    """
    users, counts = met["users"], met["totals"]
    ids = pc.unique(pa.concat_arrays([users.column("user_id"), counts.column("user_id")]))
    ids = ids.take(pc.sort_indices(ids))
    counted = np.zeros(len(ids), np.int64)
    places = _places(counts.column("user_id"), ids)
    np.add.at(counted, places, counts.column("num_interactions").to_numpy())
    last_active = np.full(len(ids), np.nan)
    np.fmax.at(last_active, places, trend.to_days(counts.column("last")))
    sums = {sign: _spread_groups(met, sign, ids, groups(config.space)) for sign in SIGNS}
    history = history_profiles(sums["liked"], sums["disliked"])
    interests = np.zeros(history.shape)
    if config.encode_interests is not None and users.num_rows:
        said, present = config.encode_interests(users)
        interests[_places(users.column("user_id"), ids)[present]] = said[present] * config.interests_worth
    space, covariances = config.space, config.covariances
    profile = history + interests
    scales = vectors.block_factors(profile, covariances, space.tuning.content_weight, space.tuning.mix)
    lately = trend.weights_of_users(last_active, space.tuning.trend)
    embedding = vectors.scaled_profiles(profile, scales, covariances, lately)
    arrays = [ids, blocks.numpy_to_vectors(embedding), pa.array(counted), sources(history, interests, embedding)]
    scaled = [ids, blocks.numpy_to_vectors(scales)]
    return (
        pa.RecordBatch.from_arrays(arrays, schema=schemas.user_embeddings(embedding.shape[1])),
        pa.RecordBatch.from_arrays(scaled, schema=schemas.user_scales(scales.shape[1])),
    )


def _places(ids: pa.Array, among: pa.Array) -> np.ndarray:
    return pc.index_in(ids, value_set=among).to_numpy()


def _spread_groups(met: Mapping[str, pa.RecordBatch], sign: str, ids: pa.Array, wanted: list[Group]) -> np.ndarray:
    spread = [_spread(met[f"{sign}.{group.name}"], ids) for group in wanted]
    return np.hstack(spread) if spread else np.zeros((len(ids), 0))


def _spread(product: pa.RecordBatch, ids: pa.Array) -> np.ndarray:
    """The sums of a part in the order of `ids`, zeros where there is none: [n, width] float64."""
    values = blocks.vectors_to_numpy(product.column("vector"))
    spread = np.zeros((len(ids), values.shape[1]))
    spread[_places(product.column("row"), ids)] = values
    return spread


def history_profiles(liked: np.ndarray, disliked: np.ndarray) -> np.ndarray:
    """What was liked less what was disliked, bounded: [n, Q] float64, zeros where nothing was liked.

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
    """What each embedding is made of, [n] string: history, interests, both or none (no embedding either)."""
    known = np.any(embedding != 0, axis=1)
    has_history, has_interests = (np.any(part != 0, axis=1) & known for part in (history, interests))
    return pa.array(np.array(["none", "history", "interests", "both"])[has_history + 2 * has_interests])

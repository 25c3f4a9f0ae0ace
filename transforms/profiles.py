"""User embeddings: what a user liked and disliked, and what the user says about interests, in the posts' space."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms import blocks, schemas, shuffle, sparse
from transforms.latent import unit_rows

# What was disliked takes at most so much of the length of what was liked away: it turns a profile, it never
# turns it around.
MAX_DISLIKE = 0.5

# (block of schemas.USERS) -> ([n, L] float32 rows of unit length, [n] bool: there is something to go by)
EncodeInterests = Callable[[pa.RecordBatch], tuple[np.ndarray, np.ndarray]]

_TOTALS = pa.schema(
    [pa.field("user_id", pa.string(), nullable=False), pa.field("num_interactions", pa.int64(), nullable=False)]
)


class Profiles(NamedTuple):
    """What MakeProfiles gives: (part, block of schemas.user_embeddings), sorted by user in a part, and counts."""

    parts: beam.PCollection[tuple[int, pa.RecordBatch]]
    counts: beam.PCollection[tuple[str, int]]


@dataclasses.dataclass
class MakeProfiles(beam.PTransform):
    """{"users", "history", "items": blocks of these tables} -> Profiles; one row a user of either of the first two.

    The history part h is the direction of the weighted sum of the liked posts' embeddings, less that of the disliked
    ones, bounded by MAX_DISLIKE; a user who liked nothing that has a vector has no h, as where to go is not known
    from where not to. The interests part i is the embedding of what the user says. Both: a h + (1 - a) i with
    a = n / (n + interests_worth), n the number of interactions. Always of unit length, or zeros.

    Attributes:
      width: L, the numbers of an embedding.
      encode_interests: gives i; None where users say nothing.
      interests_worth: how many interactions the stated interests are worth.
    """

    width: int
    num_parts: int
    encode_interests: EncodeInterests | None = None
    interests_worth: float = 5.0

    def __post_init__(self) -> None:
        super().__init__()
        shuffle.check_num_parts(self.num_parts)
        if not self.interests_worth > 0:
            raise ValueError(f"interests_worth must be more than 0, got {self.interests_worth}")

    def expand(self, inputs: dict[str, beam.PCollection[pa.RecordBatch]]) -> Profiles:
        dense = inputs["items"] | "ItemVectors" >> beam.Map(_item_vectors)
        products = {}
        for name, sign in (("liked", 1.0), ("disliked", -1.0)):
            entries = inputs["history"] | f"Select {name}" >> beam.Map(_entries, sign=sign)
            multiply = sparse.SparseTimesDense(self.width, self.num_parts, name=f"profiles.{name}")
            products[name] = {"entries": entries, "dense": dense} | f"Sum {name}" >> multiply
        product = sparse.product_schema(self.width)
        met = {
            "users": inputs["users"],
            "totals": inputs["history"] | "CountInteractions" >> beam.Map(_totals),
            "liked": products["liked"].rows,
            "disliked": products["disliked"].rows,
        } | "GroupByUser" >> shuffle.CoGroupBlocks(
            keys={"users": "user_id", "totals": "user_id", "liked": "row", "disliked": "row"},
            schemas={"users": schemas.USERS, "totals": _TOTALS, "liked": product, "disliked": product},
            num_parts=self.num_parts,
        )
        parts = met | "MixParts" >> beam.Map(
            _mix_part, encode_interests=self.encode_interests, interests_worth=self.interests_worth
        )
        counts = (products["liked"].counts, products["disliked"].counts) | "Counts" >> beam.Flatten()
        return Profiles(parts, counts)


def _item_vectors(items: pa.RecordBatch) -> pa.RecordBatch:
    vectors = items.column("embedding")
    return pa.RecordBatch.from_arrays(
        [items.column("post_id"), vectors], schema=sparse.dense_schema(vectors.type.list_size)
    )


def _entries(history: pa.RecordBatch, sign: float) -> pa.RecordBatch:
    weight = history.column("weight").to_numpy().astype(np.float64) * sign
    chosen = pa.array(weight > 0)
    columns = [history.column("user_id"), history.column("post_id"), pa.array(weight)]
    return pa.RecordBatch.from_arrays(columns, schema=sparse.ENTRIES).filter(chosen)


def _totals(history: pa.RecordBatch) -> pa.RecordBatch:
    totals = pa.table(history).group_by("user_id").aggregate([("num_interactions", "sum")])
    return pa.RecordBatch.from_arrays(
        [totals.column(name).combine_chunks() for name in ("user_id", "num_interactions_sum")], schema=_TOTALS
    )


def _mix_part(
    numbered: tuple[int, dict[str, pa.RecordBatch]],
    encode_interests: EncodeInterests | None,
    interests_worth: float,
) -> tuple[int, pa.RecordBatch]:
    part, met = numbered
    users, totals = met["users"], met["totals"]
    ids = pc.unique(pa.concat_arrays([users.column("user_id"), totals.column("user_id")]))
    ids = ids.take(pc.sort_indices(ids))
    counted = np.zeros(len(ids), np.int64)
    np.add.at(counted, _places(totals.column("user_id"), ids), totals.column("num_interactions").to_numpy())
    history = history_vectors(_spread(met["liked"], ids), _spread(met["disliked"], ids))
    interests = np.zeros(history.shape)
    if encode_interests is not None and users.num_rows:
        vectors, present = encode_interests(users)
        interests[_places(users.column("user_id"), ids)[present]] = vectors[present]
    embedding, source = mix(history, interests, counted / (counted + interests_worth))
    arrays = [ids, blocks.numpy_to_vectors(embedding), pa.array(counted), source]
    return part, pa.RecordBatch.from_arrays(arrays, schema=schemas.user_embeddings(embedding.shape[1]))


def _places(ids: pa.Array, among: pa.Array) -> np.ndarray:
    return pc.index_in(ids, value_set=among).to_numpy()


def _spread(product: pa.RecordBatch, ids: pa.Array) -> np.ndarray:
    """The sums of a part in the order of `ids`, zeros where there is none: [n, width] float64."""
    values = blocks.vectors_to_numpy(product.column("vector"))
    spread = np.zeros((len(ids), values.shape[1]))
    spread[_places(product.column("row"), ids)] = values
    return spread


def history_vectors(liked: np.ndarray, disliked: np.ndarray) -> np.ndarray:
    """Directions of histories: [n, L] float64, rows of unit length, or zeros where nothing was liked.

    Args:
      liked: [n, L] weighted sums of embeddings.
      disliked: [n, L] likewise, of positive weights.
    """
    liked_length = np.linalg.norm(liked, axis=1, keepdims=True)
    disliked_length = np.linalg.norm(disliked, axis=1, keepdims=True)
    share = np.minimum(1, MAX_DISLIKE * liked_length / np.where(disliked_length > 0, disliked_length, 1))
    return _unit(liked - share * disliked)


def _unit(values: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(lengths > 0, lengths, 1)


def mix(history: np.ndarray, interests: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, pa.Array]:
    """(embeddings [n, L] float32 of unit length or zeros, source [n] string).

    Args:
      history: [n, L] unit rows, zeros where there is none.
      interests: [n, L] likewise.
      alpha: [n] share of the history where there are both.
    """
    has_history, has_interests = np.any(history != 0, axis=1), np.any(interests != 0, axis=1)
    share = np.where(has_interests, alpha, 1.0)[:, None]
    mixed = share * history + np.where(has_history[:, None], 1 - share, 1.0) * interests
    cancelled = np.all(mixed == 0, axis=1)
    mixed[cancelled] = history[cancelled]
    names = np.array(["none", "history", "interests", "both"])
    return unit_rows(mixed), pa.array(names[has_history + 2 * has_interests])

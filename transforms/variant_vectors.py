"""Embeddings of some users and all posts, made in this process as the embed stage makes them, for an ablation.

Posts are streamed, anew for each use; held are the profiles of the users and what they did.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse

from transforms import blocks, items, profiles, schemas, sparse, tables
from transforms.ablation import Variant, hide_fused, hide_words
from transforms.interests import InterestsEncoder
from transforms.judged import READ_ROWS
from transforms.latent import StandIn
from transforms.preprocessing import TEXT
from transforms.space import Space


class Known(NamedTuple):
    """What is known of the users who are judged.

    Attributes:
      user_id: [u] string, sorted.
      users: their rows of schemas.USERS.
      history: their rows of schemas.HISTORY.
    """

    user_id: pa.Array
    users: pa.RecordBatch
    history: pa.RecordBatch


def read_known(user_id: pa.Array, users: str, history: str) -> Known:
    """Reads it from the tables of a run."""
    found = []
    for directory in (users, history):
        kept = [schemas.empty(tables.read_schema(directory))]
        for block in tables.read_blocks(directory, READ_ROWS):
            kept.append(block.filter(pc.is_in(block.column("user_id"), value_set=user_id)))
        found.append(blocks.concat(kept))
    return Known(user_id, *found)


class VariantVectors:
    """Embeddings of a variant.

    Args:
      variant: what is left out.
      space: the run's, with the variant's tuning.
      fused: a table of schemas.fused with all posts.
      interests: reads what users say; of the same space.
      stand_in: what tells factors from content.
    """

    def __init__(
        self, variant: Variant, space: Space, fused: str, interests: InterestsEncoder, stand_in: StandIn
    ) -> None:
        self._variant, self._space, self._fused, self._stand_in = variant, space, fused, stand_in
        self._interests = interests

    def posts(self) -> Iterator[tuple[pa.Array, np.ndarray]]:
        """(post_id [n], embeddings [n, d] float32) of all posts in pieces."""
        for made, _, _ in self._embedded():
            yield made.column("post_id"), blocks.vectors_to_numpy(made.column("embedding"))

    def _embedded(self) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch, items.BlockMoments]]:
        for block in tables.read_blocks(self._fused, READ_ROWS):
            if self._variant.hidden:
                block = hide_fused(block, self._space, self._variant.hidden)
            yield items.embed(block, self._space, self._stand_in)

    def users(self, known: Known, interests_worth: float) -> np.ndarray:
        """The embeddings of the users: [u, d] float32, zeros where there is none."""
        weights = {
            f"{sign}.{group.name}": (_weights(known, sign, group.half_life), group)
            for sign in profiles.SIGNS
            for group in profiles.groups(self._space)
        }
        post_id = pc.unique(known.history.column("post_id"))
        entries = {name: _matrix(known, post_id, of) for name, (of, _) in weights.items()}
        sums = {name: np.zeros((len(known.user_id), group.width)) for name, (_, group) in weights.items()}
        moments: list[items.BlockMoments] = []
        for _, made, some in self._embedded():
            moments.append(some)
            place = pc.index_in(made.column("post_id"), value_set=post_id)
            rows, vectors = place.drop_null().to_numpy(), blocks.vectors_to_numpy(made.column("profile"))
            vectors = vectors[blocks.valid(place)].astype(np.float64)
            for name, (_, group) in weights.items():
                sums[name] += entries[name][:, rows] @ vectors[:, group.start : group.start + group.width]
        users = hide_words(known.users) if self._variant.hidden == TEXT else known.users
        met = {"users": users, "totals": profiles.totals(known.history)}
        met |= {name: _product(known.user_id, values) for name, values in sums.items()}
        covariances = _covariances(moments)
        mixing = profiles.Mixing(self._space, covariances, self._interests, interests_worth)
        return _embeddings(profiles.mix_users(met, mixing)[0], known.user_id)


def _weights(known: Known, sign: str, half_life: float | None) -> np.ndarray:
    return np.maximum(profiles.history_weights(known.history, half_life) * profiles.SIGNS[sign], 0)


def _matrix(known: Known, post_id: pa.Array, weights: np.ndarray) -> scipy.sparse.csc_matrix:
    """[u, posts of the histories]."""
    row = pc.index_in(known.history.column("user_id"), value_set=known.user_id).to_numpy()
    column = pc.index_in(known.history.column("post_id"), value_set=post_id).to_numpy()
    return scipy.sparse.csc_matrix((weights, (row, column)), (len(known.user_id), len(post_id)))


def _product(user_id: pa.Array, values: np.ndarray) -> pa.RecordBatch:
    """Rows as `sparse.SparseTimesDense` gives them."""
    return pa.RecordBatch.from_arrays(
        [user_id, blocks.numpy_to_vectors(values)], schema=sparse.product_schema(values.shape[1])
    )


def _covariances(found: list[items.BlockMoments]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    own, decoded, content = (moments.covariance() for moments in items.sum_moments(found))
    return own, decoded, content


def _embeddings(made: pa.RecordBatch, user_id: pa.Array) -> np.ndarray:
    place = pc.index_in(made.column("user_id"), value_set=user_id)
    vectors = blocks.vectors_to_numpy(made.column("embedding"))
    found = np.zeros((len(user_id), vectors.shape[1]), np.float32)
    found[place.drop_null().to_numpy()] = vectors[blocks.valid(place)]
    return found

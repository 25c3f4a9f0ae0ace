"""Embeddings of some users and all posts for an ablation, by the functions of the embed stage, without Beam.

Posts are streamed, again for each use; the users' profiles and histories are in memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.embed import item_embeddings, user_embeddings
from transforms.embed.embedding_space import Space
from transforms.embed.exported_model import FactorPredictor
from transforms.embed.stated_interests import InterestsEncoder
from transforms.evaluate.ablation import Variant, mask_fused, mask_interests
from transforms.evaluate.test_set import READ_ROWS
from transforms.fuse.tft_graph import TEXT
from transforms.tables import blocks, parquet, schemas


class Known(NamedTuple):
    """Known data of the test users.

    Attributes:
      user_id: [u] string, sorted.
      users: their rows of schemas.USERS.
      history: their rows of schemas.HISTORY.
    """

    user_id: pa.Array
    users: pa.RecordBatch
    history: pa.RecordBatch


def read_known(user_id: pa.Array, users: str, history: str) -> Known:
    """Rows of these users in the tables of a run."""
    found = []
    for directory in (users, history):
        rows = [schemas.empty(parquet.read_schema(directory))]
        for block in parquet.read_blocks(directory, READ_ROWS):
            rows.append(block.filter(pc.is_in(block.column("user_id"), value_set=user_id)))
        found.append(blocks.concat(rows))
    return Known(user_id, *found)


class VariantEmbeddings:
    """Embeddings of a variant.

    Args:
      variant: the part that is removed or replaced.
      space: the run's, with the variant's tuning.
      fused: a table of schemas.fused with all posts.
      interests: encodes interests and bios; of the same space.
      predictor: the factor predictor.
    """

    def __init__(
        self, variant: Variant, space: Space, fused: str, interests: InterestsEncoder, predictor: FactorPredictor
    ) -> None:
        self._variant, self._space, self._fused, self._predictor = variant, space, fused, predictor
        self._interests = interests

    def posts(self) -> Iterator[tuple[pa.Array, np.ndarray]]:
        """(post_id [n], embeddings [n, d] float32) of all posts in pieces."""
        for made, _, _ in self._embedded():
            yield made.column("post_id"), blocks.vectors_to_numpy(made.column("embedding"))

    def _embedded(self) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch, item_embeddings.BlockMoments]]:
        for block in parquet.read_blocks(self._fused, READ_ROWS):
            if self._variant.masked:
                block = mask_fused(block, self._space, self._variant.masked)
            yield item_embeddings.embed(block, self._space, self._predictor)

    def users(self, known: Known, interests_worth: float) -> np.ndarray:
        """The embeddings of the users: [u, d] float32, zeros where there is none."""
        moments: list[item_embeddings.BlockMoments] = []

        def table() -> Iterator[tuple[pa.Array, np.ndarray]]:
            for _, made, some in self._embedded():
                moments.append(some)
                yield made.column("post_id"), blocks.vectors_to_numpy(made.column("profile"))

        sums, _ = user_embeddings.history_sums(known.user_id, known.history, table(), self._space)
        users = mask_interests(known.users) if self._variant.masked == TEXT else known.users
        mixing = user_embeddings.Mixing(self._space, _covariances(moments), self._interests, interests_worth)
        made = user_embeddings.mix_users(known.user_id, users, user_embeddings.totals(known.history), sums, mixing)
        return np.concatenate([blocks.vectors_to_numpy(embeddings.column("embedding")) for embeddings, _ in made])


def _covariances(found: list[item_embeddings.BlockMoments]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    own, decoded, content = (moments.covariance() for moments in item_embeddings.sum_moments(found))
    return own, decoded, content

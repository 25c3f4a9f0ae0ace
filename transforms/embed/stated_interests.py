"""Stated interests and bios of users, encoded as if each were a post that they liked."""

import numpy as np
import pyarrow as pa

from transforms.embed.embedding_space import Space
from transforms.fuse import transform_fn
from transforms.fuse.tft_graph import TEXT
from transforms.tables import blocks
from transforms.text.token_counts import text_terms


class InterestsEncoder:
    """Blocks of schemas.USERS -> ([n, Q] float32 profile vectors or zeros, [n] bool: the vector is not zero).

    The bio is encoded like the text of a post and the interests like its hashtags, by the same transform_fn; factors
    are predicted from text alone. A user none of whose terms is in the vocabulary has zeros.

    Args:
      transform_fn_dir: what the fuse stage has fitted.
      space: the blocks of an embedding.
      text_map: [w, F] float32 of `text_factors`.
    """

    def __init__(self, transform_fn_dir: str, space: Space, text_map: np.ndarray) -> None:
        self._directory = transform_fn_dir
        self._space = space
        self._text_map = text_map

    def __call__(self, users: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        profile = np.zeros((users.num_rows, sum(self._space.widths)), np.float32)
        terms, term_counts = text_terms(users.column("bio"), users.column("interests"))
        said = blocks.valid(terms)
        if TEXT not in self._space.names or not said.any():
            return profile, np.zeros(users.num_rows, bool)
        given = pa.RecordBatch.from_arrays([terms, term_counts], names=["text_terms", "text_counts"])
        fused = transform_fn.load(self._directory)(given.filter(pa.array(said)))[0]
        offset, width = self._space.block(TEXT)
        predicted = fused[:, offset : offset + width] @ self._text_map
        nothing = np.zeros((len(fused), len(self._space.singular_values)), np.float32)
        content, degree = self._space.content(fused), np.zeros(len(fused))
        profile[said] = self._space.profile_vectors(nothing, predicted, content, degree)
        return profile, np.any(profile != 0, axis=1)

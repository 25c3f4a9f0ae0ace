"""What users say of themselves (interests and bio), as if it were a post that they liked."""

import numpy as np
import pyarrow as pa

from transforms import blocks, transform_fn, vectors
from transforms.items import told_factors
from transforms.latent import StandIn
from transforms.preprocessing import TEXT
from transforms.space import Space
from transforms.text import text_terms


class InterestsEncoder:
    """Blocks of schemas.USERS -> ([n, Q] float32 profile vectors or zeros, [n] bool: there is something to go by).

    The bio is read like the text of a post and the interests like its hashtags, by the same transform_fn. A user of
    whose terms none is in the vocabulary has said nothing that can be placed.

    Args:
      transform_fn_dir: what the fuse stage has fitted.
      space: the blocks of an embedding.
      stand_in: tells factors from content; None where there are no factors.
    """

    def __init__(self, transform_fn_dir: str, space: Space, stand_in: StandIn | None) -> None:
        self._directory = transform_fn_dir
        self._space = space
        self._stand_in = stand_in

    def __call__(self, users: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        profile = np.zeros((users.num_rows, sum(self._space.widths)), np.float32)
        terms, term_counts = text_terms(users.column("bio"), users.column("interests"))
        said = blocks.valid(terms)
        if TEXT not in self._space.names or not said.any():
            return profile, np.zeros(users.num_rows, bool)
        given = pa.RecordBatch.from_arrays([terms, term_counts], names=["text_terms", "text_counts"])
        fused, mask = self._read(given.filter(pa.array(said)))
        told = told_factors(fused, mask, self._space, self._stand_in)
        nothing = np.zeros((len(fused), len(self._space.singular_values)), np.float32)
        found = vectors.profile_vectors(
            nothing, told, self._space.content(fused), np.zeros(len(fused)), self._space.widths
        )
        profile[said] = self._space.turned(found)
        return profile, np.any(profile != 0, axis=1)

    def _read(self, terms: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """The fused vectors and masks as those of posts: with the collaborative modality, missing, at the end."""
        fused, mask = transform_fn.load(self._directory)(terms)
        mask[~fused.any(axis=1)] = 0
        width = sum(width for _, _, width in self._space.modalities) - fused.shape[1]
        return np.pad(fused, ((0, 0), (0, width))), np.pad(mask, ((0, 0), (0, len(self._space.names) - mask.shape[1])))

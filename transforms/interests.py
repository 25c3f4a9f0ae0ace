"""What users say of themselves (interests and bio), in the posts' space: the same transform_fn, the same encoder."""

import numpy as np
import pyarrow as pa

from transforms import blocks, transform_fn
from transforms.latent import LatentEncoder
from transforms.text import text_terms


class InterestsEncoder:
    """Blocks of schemas.USERS -> ([n, L] float32 rows of unit length or zeros, [n] bool: there is something to go by).

    The bio is read like the text of a post and the interests like its hashtags. A user of whose terms none is in the
    vocabulary has said nothing that can be placed.

    Args:
      transform_fn_dir: what the fuse stage has fitted.
      encoder: the exported encoder.
      width: L, the numbers that it gives.
    """

    def __init__(self, transform_fn_dir: str, encoder: LatentEncoder, width: int) -> None:
        self._directory = transform_fn_dir
        self._encoder = encoder
        self._width = width

    def __call__(self, users: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        terms, term_counts = text_terms(users.column("bio"), users.column("interests"))
        said = blocks.valid(terms)
        vectors = np.zeros((users.num_rows, self._width), np.float32)
        if not said.any():
            return vectors, said
        given = pa.RecordBatch.from_arrays([terms, term_counts], names=["text_terms", "text_counts"])
        fused, mask = transform_fn.load(self._directory)(given.filter(pa.array(said)))
        mask[~fused.any(axis=1)] = 0
        vectors[said] = self._encoder.encode(fused, mask)
        return vectors, np.any(vectors != 0, axis=1)

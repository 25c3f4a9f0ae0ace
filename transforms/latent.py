"""The autoencoder as it was exported: what the content of a post tells of its collaborative factors."""

import dataclasses
from typing import Any

import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.utils import shared

from transforms.files import read_json
from transforms.space import COLLABORATIVE

# Every batch has this many rows (the last is filled up): what becomes of a row must not depend on its neighbours.
BATCH_ROWS = 1024


class StandIn:
    """The encoder and the decoder of the collaborative modality in a model directory (SavedModels).

    They are loaded once a process where they are first used. `encoder/` takes fused [n, D] and mask [n, M] and gives
    latent [n, L]; `decoders/collaborative/` takes latent and gives values [n, F'], all float32.
    """

    def __init__(self, model_dir: str) -> None:
        paths = read_json(FileSystems.join(model_dir, "model.json"))["paths"]
        self._encoder = FileSystems.join(model_dir, paths["encoder"])
        decoder = paths["decoders"].get(COLLABORATIVE)
        self._decoder = None if decoder is None else FileSystems.join(model_dir, decoder)
        self._shared = shared.Shared()

    @property
    def knows_factors(self) -> bool:
        """Whether the model was trained with collaborative factors."""
        return self._decoder is not None

    def factors(self, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Decoded collaborative values, [n, F'] float32; zeros where the mask has nothing.

        Args:
          fused: [n, D].
          mask: [n, M], 0 for what the encoder may not see (the collaborative modality itself, say).

        Raises:
          ValueError: the model does not know factors, or gives numbers that are not finite.
        """
        if self._decoder is None:
            raise ValueError(f"the model with {self._encoder} was trained without collaborative factors")
        model: _Model = self._shared.acquire(self._load, tag=self._encoder)
        batches = [
            _decode_batch(model, fused[start : start + BATCH_ROWS], mask[start : start + BATCH_ROWS])
            for start in range(0, max(len(fused), 1), BATCH_ROWS)
        ]
        values = np.concatenate(batches)
        values[~mask.any(axis=1)] = 0
        if not np.isfinite(values).all():
            raise ValueError(f"the model with {self._encoder} gives numbers that are not finite")
        return values

    def _load(self) -> "_Model":
        import tensorflow as tf

        return _Model(tf.saved_model.load(self._encoder), tf.saved_model.load(self._decoder))


# Not a tuple: `shared` keeps a weak reference, which a tuple cannot have.
@dataclasses.dataclass
class _Model:
    encoder: Any
    decoder: Any


def _decode_batch(model: _Model, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    padding = ((0, BATCH_ROWS - len(fused)), (0, 0))
    given = {"fused": np.pad(fused, padding), "mask": np.pad(mask, padding)}
    latent = model.encoder.signatures["serving_default"](
        **{name: tf.constant(v, tf.float32) for name, v in given.items()}
    )
    values: np.ndarray = model.decoder.signatures["serving_default"](latent=latent["latent"])["values"].numpy()
    return values[: len(fused)]

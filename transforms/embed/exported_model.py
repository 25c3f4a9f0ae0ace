"""The exported autoencoder; predicts a post's collaborative factors from its content."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from apache_beam.utils import shared

from transforms.embed.embedding_space import COLLABORATIVE
from transforms.tables.files import join, read_json

# Every batch has this many rows (the last is padded): the result of a row must not depend on its neighbors.
BATCH_ROWS = 1024


class FactorPredictor:
    """The encoder and the decoder of the collaborative modality in a model directory (SavedModels).

    They are loaded on first use, once a process. `encoder/` takes fused [n, D] and mask [n, M] and gives
    latent [n, L]; `decoders/collaborative/` takes latent and gives values [n, F'], all float32.
    """

    def __init__(self, model_dir: str) -> None:
        paths = read_json(join(model_dir, "model.json"))["paths"]
        self._encoder = join(model_dir, paths["encoder"])
        decoder = paths["decoders"].get(COLLABORATIVE)
        self._decoder = None if decoder is None else join(model_dir, decoder)
        self._shared = shared.Shared()

    @property
    def knows_factors(self) -> bool:
        """True if the model was trained with collaborative factors."""
        return self._decoder is not None

    def factors(self, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Decoded collaborative values, [n, F'] float32; zeros where the mask has nothing.

        Args:
          fused: [n, D].
          mask: [n, M], 0 for modalities masked from the encoder (the collaborative one, for example).

        Raises:
          ValueError: the model was trained without factors, or gives numbers that are not finite.
        """
        if self._decoder is None:
            raise ValueError(f"the model with {self._encoder} was trained without collaborative factors")
        values = self._in_batches(fused, mask, _decode_batch)
        values[~mask.any(axis=1)] = 0
        return values

    def latents(self, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The common representation of posts, [n, L] float32; zeros where the mask has nothing. Args as of `factors`.

        Raises:
          ValueError: the model gives numbers that are not finite.
        """
        return self._in_batches(fused, mask, _encode_batch)

    def _in_batches(self, fused: np.ndarray, mask: np.ndarray, run: "_Run") -> np.ndarray:
        model: _Model = self._shared.acquire(self._load, tag=self._encoder)
        batches = [
            run(model, fused[start : start + BATCH_ROWS], mask[start : start + BATCH_ROWS])
            for start in range(0, max(len(fused), 1), BATCH_ROWS)
        ]
        values = np.concatenate(batches)
        if not np.isfinite(values).all():
            raise ValueError(f"the model with {self._encoder} gives numbers that are not finite")
        return values

    def _load(self) -> "_Model":
        import tensorflow as tf

        decoder = None if self._decoder is None else tf.saved_model.load(self._decoder)
        return _Model(tf.saved_model.load(self._encoder), decoder)


class LinearFactorPredictor(FactorPredictor):
    """A linear map in the place of the autoencoder: values = [fused where present | mask | 1] @ coefficients.

    Args:
      coefficients: [D + M + 1, F'].
      widths: [M], numbers of each modality.
    """

    def __init__(self, coefficients: np.ndarray, widths: np.ndarray) -> None:
        self._coefficients = coefficients.astype(np.float32)
        self._widths = widths

    @property
    def knows_factors(self) -> bool:
        """Always true."""
        return True

    def factors(self, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """As of `FactorPredictor.factors`."""
        shown = fused * np.repeat(mask, self._widths, axis=1)
        values: np.ndarray = np.hstack([shown, mask, np.ones((len(mask), 1), np.float32)]) @ self._coefficients
        values[~mask.any(axis=1)] = 0
        return values


# Not a tuple: `shared` keeps a weak reference, which a tuple cannot have.
@dataclasses.dataclass
class _Model:
    encoder: Any
    decoder: Any


_Run = Callable[[_Model, np.ndarray, np.ndarray], np.ndarray]


def _encode(model: _Model, fused: np.ndarray, mask: np.ndarray) -> Any:
    """The latent vectors of a padded batch: a tensor, [BATCH_ROWS, L]."""
    import tensorflow as tf

    padding = ((0, BATCH_ROWS - len(fused)), (0, 0))
    given = {"fused": np.pad(fused, padding), "mask": np.pad(mask, padding)}
    latent = model.encoder.signatures["serving_default"](
        **{name: tf.constant(v, tf.float32) for name, v in given.items()}
    )
    return latent["latent"]


def _encode_batch(model: _Model, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
    latent: np.ndarray = _encode(model, fused, mask).numpy()
    return latent[: len(fused)]


def _decode_batch(model: _Model, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
    decode = model.decoder.signatures["serving_default"]
    values: np.ndarray = decode(latent=_encode(model, fused, mask))["values"].numpy()
    return values[: len(fused)]

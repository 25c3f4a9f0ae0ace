"""The autoencoder as it was exported: what the content of a post tells of its collaborative factors."""

import dataclasses
import io
from typing import Any, Protocol

import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.utils import shared

from transforms.files import read_json, write_json
from transforms.space import COLLABORATIVE

# Every batch has this many rows (the last is filled up): what becomes of a row must not depend on its neighbours.
BATCH_ROWS = 1024
_LINEAR_FILE = "linear.npz"


class StandIn:
    """The encoder and the decoder of the collaborative modality in a model directory (SavedModels), or a linear map.

    They are loaded once a process where they are first used. `encoder/` takes fused [n, D] and mask [n, M] and gives
    latent [n, L]; `decoders/collaborative/` takes latent and gives values [n, F'], all float32. A directory that
    `write_linear` wrote has the one map from fused and mask to values instead.
    """

    def __init__(self, model_dir: str) -> None:
        paths = read_json(FileSystems.join(model_dir, "model.json"))["paths"]
        self._encoder = FileSystems.join(model_dir, paths.get("linear", paths.get("encoder")))
        self._is_linear = "linear" in paths
        decoder = paths.get("decoders", {}).get(COLLABORATIVE)
        self._decoder = None if decoder is None else FileSystems.join(model_dir, decoder)
        self._shared = shared.Shared()

    @property
    def knows_factors(self) -> bool:
        """Whether the model was trained with collaborative factors."""
        return self._is_linear or self._decoder is not None

    def factors(self, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Decoded collaborative values, [n, F'] float32; zeros where the mask has nothing.

        Args:
          fused: [n, D].
          mask: [n, M], 0 for what the encoder may not see (the collaborative modality itself, say).

        Raises:
          ValueError: the model does not know factors, or gives numbers that are not finite.
        """
        if not self.knows_factors:
            raise ValueError(f"the model with {self._encoder} was trained without collaborative factors")
        values = self._in_batches("values", fused, mask)
        values[~mask.any(axis=1)] = 0
        return values

    def latents(self, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The common representation of posts, [n, L] float32; args and errors as of `factors`."""
        return self._in_batches("latents", fused, mask)

    def _in_batches(self, what: str, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        model: _Model = self._shared.acquire(self._load, tag=self._encoder)
        batches = []
        for start in range(0, max(len(fused), 1), BATCH_ROWS):
            some = fused[start : start + BATCH_ROWS], mask[start : start + BATCH_ROWS]
            padding = ((0, BATCH_ROWS - len(some[0])), (0, 0))
            made: np.ndarray = getattr(model, what)(*(np.pad(each, padding) for each in some))
            batches.append(made[: len(some[0])])
        found = np.concatenate(batches)
        if not np.isfinite(found).all():
            raise ValueError(f"the model with {self._encoder} gives numbers that are not finite")
        return found

    def _load(self) -> "_Model":
        if self._is_linear:
            with (
                FileSystems.open(self._encoder, compression_type="uncompressed") as file,
                np.load(io.BytesIO(file.read())) as saved,
            ):
                return _Linear(saved["coefficients"], saved["widths"])
        import tensorflow as tf

        return _Saved(
            tf.saved_model.load(self._encoder), None if self._decoder is None else tf.saved_model.load(self._decoder)
        )


class _Model(Protocol):
    """[BATCH_ROWS, D] and [BATCH_ROWS, M] -> rows."""

    def latents(self, fused: np.ndarray, mask: np.ndarray) -> np.ndarray: ...

    def values(self, fused: np.ndarray, mask: np.ndarray) -> np.ndarray: ...


# Not tuples: `shared` keeps a weak reference, which a tuple cannot have.
@dataclasses.dataclass
class _Saved:
    encoder: Any
    decoder: Any

    def latents(self, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        latent: np.ndarray = self._encode(fused, mask).numpy()
        return latent

    def values(self, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        decode = self.decoder.signatures["serving_default"]
        values: np.ndarray = decode(latent=self._encode(fused, mask))["values"].numpy()
        return values

    def _encode(self, fused: np.ndarray, mask: np.ndarray) -> Any:
        import tensorflow as tf

        given = {"fused": tf.constant(fused, tf.float32), "mask": tf.constant(mask, tf.float32)}
        return self.encoder.signatures["serving_default"](**given)["latent"]


@dataclasses.dataclass
class _Linear:
    coefficients: np.ndarray
    widths: np.ndarray

    def latents(self, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self.values(fused, mask)

    def values(self, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        columns = np.hstack([fused * np.repeat(mask, self.widths, axis=1), mask, np.ones((len(mask), 1), np.float32)])
        values: np.ndarray = columns @ self.coefficients
        return values


def write_linear(model_dir: str, coefficients: np.ndarray, widths: np.ndarray) -> None:
    """Writes a model directory for `StandIn` whose values are [fused where present | mask | 1] @ coefficients.

    Args:
      coefficients: [D + M + 1, F'].
      widths: [M], numbers of each modality.
    """
    buffer = io.BytesIO()
    np.savez(buffer, coefficients=coefficients.astype(np.float32), widths=widths)
    write_json(FileSystems.join(model_dir, "model.json"), {"paths": {"linear": _LINEAR_FILE}})
    with FileSystems.create(FileSystems.join(model_dir, _LINEAR_FILE), compression_type="uncompressed") as file:
        file.write(buffer.getvalue())

"""The exported encoder: fused vectors and masks -> unit vectors of the common representation."""

import json
from typing import Any

import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.utils import shared

# Every batch has this many rows (the last is filled up): what becomes of a row must not depend on its neighbours.
BATCH_ROWS = 1024


class LatentEncoder:
    """The encoder in a model directory (encoder/ is a SavedModel), loaded once a process where it is first used.

    Its signature `serving_default` takes fused [n, D] and mask [n, M] float32 and gives latent [n, L] float32.
    """

    def __init__(self, model_dir: str) -> None:
        self._directory = FileSystems.join(model_dir, "encoder")
        self._shared = shared.Shared()

    def encode(self, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Latent vectors of unit length: [n, L] float32; zeros where the mask has nothing.

        Raises:
          ValueError: the encoder gives numbers that are not finite.
        """
        serve = self._load()
        batches = [
            self._encode_batch(serve, fused[start : start + BATCH_ROWS], mask[start : start + BATCH_ROWS])
            for start in range(0, max(len(fused), 1), BATCH_ROWS)
        ]
        latent = np.concatenate(batches)
        latent[~mask.any(axis=1)] = 0
        if not np.isfinite(latent).all():
            raise ValueError(f"the encoder in {self._directory} gives numbers that are not finite")
        return unit_rows(latent)

    def _load(self) -> Any:
        loaded = self._shared.acquire(lambda: _load_encoder(self._directory), tag=self._directory)
        return loaded.signatures["serving_default"]

    @staticmethod
    def _encode_batch(serve: Any, fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        padding = ((0, BATCH_ROWS - len(fused)), (0, 0))
        given = {"fused": np.pad(fused, padding), "mask": np.pad(mask, padding)}
        latent: np.ndarray = serve(**{name: tf.constant(v, tf.float32) for name, v in given.items()})["latent"].numpy()
        return latent[: len(fused)]


def _load_encoder(directory: str) -> Any:
    import tensorflow as tf

    return tf.saved_model.load(directory)


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Rows scaled to length one, in float64 and rounded: [n, d] float32; a row of zeros stays."""
    exact = values.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    scaled: np.ndarray = (exact / np.where(norms > 0, norms, 1)).astype(np.float32)
    return scaled


def read_json(*path: str) -> Any:
    """The value in a JSON file of any file system."""
    with FileSystems.open(FileSystems.join(*path)) as file:
        return json.load(file)


def latent_width(model_dir: str) -> int:
    """How many numbers the encoder gives, by model.json."""
    return int(read_json(model_dir, "model.json")["latent"])

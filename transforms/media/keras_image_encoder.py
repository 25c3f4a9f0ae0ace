"""Pictures through a network of the user's own: `--image_encoder keras:PATH`.

PATH is a `.keras` file or the folder of a SavedModel that takes [n, h, w, 3] RGB. Preprocessing of the pixels:
they are resized to the network's input (bicubic) and become (x - offset) / scale, with offset 127 and scale 128. Other
numbers are written behind the path (`keras:PATH?scale=127.5&offset=127.5`; `?scale=1&offset=0` for a network that takes
0 to 255) or, also one for each of red, green and blue, in a file PATH.json: {"size": 224, "mean": [...], "std": [...]},
in units of 0 to 255. `size` counts where the network leaves it open.
"""

import dataclasses
import functools
import json
import os
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

_BATCH = 16
_DEFAULT_SIZE = 224
_DEFAULT_OFFSET, _DEFAULT_SCALE = 127.0, 128.0


@dataclasses.dataclass(frozen=True)
class _Network:
    """A loaded network: the size of its input, and the function [16, h, w, 3] float32 -> [16, ...]."""

    height: int
    width: int
    run: Callable[[np.ndarray], np.ndarray]


class KerasImageEncoder:
    """Describes pictures with the network at `path`.

    The network is loaded when it is first used, once a process; the encoder itself is small and can be sent to workers.

    Raises:
      FileNotFoundError: there is nothing at the path.
      ValueError: an option is unknown or out of range.
    """

    def __init__(self, path: str) -> None:
        self.path, _, query = path.partition("?")
        if "://" not in self.path and not os.path.exists(self.path):
            raise FileNotFoundError(f"image_encoder keras: needs a .keras file or a SavedModel folder, no {self.path}")
        settings = {"size": _DEFAULT_SIZE, "mean": _DEFAULT_OFFSET, "std": _DEFAULT_SCALE} | _sidecar(self.path)
        settings |= _options(query)
        self._size = int(settings["size"])
        self._offset = _channels(settings["mean"], "offset")
        self._scale = _channels(settings["std"], "scale")
        if self._size < 1 or not (self._scale != 0).all():
            raise ValueError(f"image_encoder keras: size must be at least 1 and scale not 0, got {settings}")

    @functools.cached_property
    def width(self) -> int:
        """Numbers a picture, known once the network is loaded and has seen one."""
        return self.encode([np.zeros((8, 8, 3), np.uint8)]).shape[1]

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """[n, width] float32, one row a picture ([h, w, 3] uint8 BGR); outputs with more axes are averaged over them.

        Batches are always of 16 (filled up with zeros), so that a row does not depend on how many there are.

        Raises:
          ValueError: a network of another shape, or one that gives numbers that are not finite.
        """
        if not images:
            return np.zeros((0, self.width), np.float32)
        network = _load(self.path, self._size)
        rows = [self._encode_batch(network, images[at : at + _BATCH]) for at in range(0, len(images), _BATCH)]
        vectors = np.concatenate(rows)
        if not np.isfinite(vectors).all():
            raise ValueError(f"image_encoder keras: {self.path} gives numbers that are not finite")
        return vectors

    def _encode_batch(self, network: _Network, images: Sequence[np.ndarray]) -> np.ndarray:
        batch = np.zeros((_BATCH, network.height, network.width, 3), np.float32)
        for row, image in enumerate(images):
            rgb = cv2.cvtColor(_resized(image, network.width, network.height), cv2.COLOR_BGR2RGB)
            batch[row] = (rgb.astype(np.float32) - self._offset) / self._scale
        output = network.run(batch)[: len(images)]
        if output.ndim < 2:
            raise ValueError(f"image_encoder keras: needs an output [n, width] or [n, h, w, c], got {output.shape}")
        axes = tuple(range(1, output.ndim - 1))
        return (output.mean(axis=axes) if axes else output).astype(np.float32)


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """[height, width, 3]: bicubic, halved first as often as possible, or fine patterns would turn into coarse ones."""
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)


def _sidecar(path: str) -> dict[str, Any]:
    if not os.path.exists(f"{path}.json"):
        return {}
    with open(f"{path}.json", encoding="utf-8") as file:
        settings = json.load(file)
    unknown = set(settings) - {"size", "mean", "std"} if isinstance(settings, dict) else {type(settings).__name__}
    if unknown:
        raise ValueError(f"{path}.json may hold size, mean and std, got {sorted(unknown)[0]}")
    return settings


def _options(query: str) -> dict[str, Any]:
    names = {"scale": "std", "offset": "mean", "size": "size"}
    settings: dict[str, Any] = {}
    for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        if name not in names:
            raise ValueError(f"image_encoder keras: option {name} must be one of scale, offset, size")
        try:
            settings[names[name]] = float(value)
        except ValueError as error:
            raise ValueError(f"image_encoder keras: {name} must be a number, got {value}") from error
    return settings


def _channels(value: object, name: str) -> np.ndarray:
    """One number, or three: [] or [3] float32."""
    numbers = np.asarray(value, np.float32)
    if numbers.shape not in ((), (3,)) or not np.isfinite(numbers).all():
        raise ValueError(f"image_encoder keras: {name} must be one number or three, got {value}")
    return numbers


@functools.lru_cache(maxsize=2)
def _load(path: str, default_size: int) -> _Network:
    shape, run = _load_saved_model(path) if os.path.isdir(path) else _load_keras(path)
    if len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"image_encoder keras: needs an input [n, h, w, 3], {path} takes {shape}")
    return _Network(shape[1] or default_size, shape[2] or default_size, run)


def _load_keras(path: str) -> tuple[Sequence[int | None], Callable[[np.ndarray], np.ndarray]]:
    import keras

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise ValueError(f"image_encoder keras: {path} cannot be loaded: {error}") from error
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(f"image_encoder keras: needs one input and one output, {path} has more")
    return tuple(model.inputs[0].shape), lambda batch: np.asarray(model.predict_on_batch(batch))


def _load_saved_model(path: str) -> tuple[Sequence[int | None], Callable[[np.ndarray], np.ndarray]]:
    import tensorflow as tf

    model = tf.saved_model.load(path)
    if "serving_default" not in model.signatures:
        raise ValueError(f"image_encoder keras: {path} has no signature serving_default")
    signature = model.signatures["serving_default"]
    inputs = signature.structured_input_signature[1]
    if len(inputs) != 1 or len(signature.structured_outputs) != 1:
        raise ValueError(f"image_encoder keras: needs one input and one output, {path} has more")
    ((name, spec),) = inputs.items()

    # The default argument holds a reference to `model`: a signature alone does not own its variables.
    def run(batch: np.ndarray, _model: object = model) -> np.ndarray:
        return next(iter(signature(**{name: tf.constant(batch)}).values())).numpy()

    return tuple(spec.shape.as_list()), run

"""Encoders of dense modalities, chosen by a flag."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from transforms.media import image_descriptors, log_mel, video
from transforms.media.keras_image_encoder import KerasImageEncoder

KERAS_PREFIX = "keras:"


class Encoder(NamedTuple):
    """Encoder of one modality.

    Attributes:
      width: of its vectors.
      encode: batch of decoded media -> [n, width] float32, each row the same whatever else is in the batch. None if
        the vectors are made where media are decoded (`decode.decode_medium`).
    """

    width: int
    encode: Callable[[Sequence[Any]], np.ndarray] | None = None


@functools.cache
def make_encoder(kind: str, spec: str) -> Encoder | None:
    """The encoder of a kind of media (image, video, audio) by its flag; None for `none`. A network is loaded once.

    Raises:
      ValueError: no encoder of that kind has this name, or its model cannot be loaded.
    """
    if spec == "none":
        return None
    if kind == "image" and spec.startswith(KERAS_PREFIX):
        network = KerasImageEncoder(spec.removeprefix(KERAS_PREFIX))
        return Encoder(network.width, network.encode)
    known = {
        ("image", "opencv"): Encoder(image_descriptors.WIDTH),
        ("video", "opencv"): Encoder(video.WIDTH),
        ("audio", "logmel"): Encoder(log_mel.WIDTH, log_mel.audio_features),
    }
    if (kind, spec) not in known:
        raise ValueError(f"no {kind} encoder is called {spec!r}")
    return known[kind, spec]

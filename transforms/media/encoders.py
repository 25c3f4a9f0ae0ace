"""Encoders of dense modalities, picked by a flag: a name, a width and `encode`."""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

KERAS_PREFIX = "keras:"


class Encoder(Protocol):
    """Interface of the encoders of dense modalities."""

    in_decoder: bool
    """Whether vectors are made where media are decoded (by `decode_medium`), not by `encode` in the worker."""

    @property
    def name(self) -> str:
        """Identifier of the encoder; features of different encoders are never mixed."""
        ...

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        ...

    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        """Vectors of a batch of decoded media: [n, width] float32, the same whatever else is in the batch."""
        ...


@functools.cache
def make_encoder(kind: str, spec: str) -> Encoder | None:
    """The encoder of a kind of media (image, video, audio) that a flag names, None for `none`; one a process.

    Whoever asks for a width and whoever encodes get the same one, so that a network is loaded once.

    Raises:
      ValueError: the flag names no encoder of that kind, or its model cannot be loaded.
    """
    if spec == "none":
        return None
    if kind == "image" and spec.startswith(KERAS_PREFIX):
        from transforms.media.keras_image_encoder import KerasImageEncoder

        return KerasImageEncoder(spec.removeprefix(KERAS_PREFIX))
    if (kind, spec) == ("image", "opencv"):
        from transforms.media.image_decode import OpenCvImageEncoder

        return OpenCvImageEncoder()
    if (kind, spec) == ("video", "opencv"):
        from transforms.media.video import OpenCvVideoEncoder

        return OpenCvVideoEncoder()
    if (kind, spec) == ("audio", "logmel"):
        from transforms.media.log_mel import LogMelAudioEncoder

        return LogMelAudioEncoder()
    raise ValueError(f"no {kind} encoder is called {spec!r}")

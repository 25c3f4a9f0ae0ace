"""The autoencoder's layers around its encoder: standardization, and corruption while training."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from model.layout import Layout

register = keras.saving.register_keras_serializable(package="fusefeed")


@register
class Standardize(keras.layers.Layer):
    """Standardized rows: fused [n, D or more], mask [n, M] -> [n, D], zeros where a modality is missing.

    Columns past D are dropped. Values of a missing modality are ignored, even NaN.
    """

    def __init__(self, layout: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layout = Layout.from_dict(layout)
        self.mean = self._constant("mean", self.layout.width, "zeros")
        self.scale = self._constant("scale", self.layout.width, "ones")
        self.built = True

    def _constant(self, name: str, width: int, initializer: str) -> Any:
        return self.add_weight(shape=(width,), initializer=initializer, trainable=False, name=name)

    def call(self, fused: Any, mask: Any) -> Any:
        present = spread(mask, self.layout)
        return ops.where(present > 0, (fused[:, : self.layout.width] - self.mean) / self.scale, 0.0)

    def inverse(self, standard: Any) -> Any:
        """[n, D] standardized -> [n, D] in the units of the fused vector."""
        return standard * self.scale + self.mean

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layout": self.layout.to_dict()}


@register
class Corruption(keras.layers.Layer):
    """Standardized rows [n, D], mask [n, M] -> corrupted rows [n, D], mask of the remaining modalities [n, M].

    While training, modalities are masked at random, but never all of a row's, so that the model learns to predict the
    rest from any subset; and noise is added. Otherwise the input is unchanged.

    Args:
      layout: the blocks of the fused vector.
      rates: [M] probabilities with which each modality is masked.
      noise: [M] standard deviations of the noise in each modality's columns.
      seed: of the randomness.
    """

    def __init__(
        self, layout: Mapping[str, Any], rates: Sequence[float], noise: Sequence[float], seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.layout = Layout.from_dict(layout)
        self.rates, self.noise, self.seed = list(rates), list(noise), seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._deviation = np.array(noise, np.float32) @ self.layout.membership
        self.built = True

    def call(self, rows: Any, mask: Any, training: bool = False) -> tuple[Any, Any]:
        if not training:
            return rows, mask
        mask = self._drop_modalities(mask)
        if any(self.noise):
            rows = rows + keras.random.normal(ops.shape(rows), seed=self.seed_generator) * self._deviation
        return rows * spread(mask, self.layout), mask

    def _drop_modalities(self, mask: Any) -> Any:
        chances = keras.random.uniform(ops.shape(mask), seed=self.seed_generator)
        left = mask * ops.cast(chances >= np.array(self.rates, np.float32), mask.dtype)
        order = mask * (1 + keras.random.uniform(ops.shape(mask), seed=self.seed_generator))
        spared = mask * ops.one_hot(ops.argmax(order, axis=1), len(self.rates), dtype=mask.dtype)
        return ops.where(ops.max(left, axis=1, keepdims=True) > 0, left, spared)

    def get_config(self) -> dict[str, Any]:
        settings = {"layout": self.layout.to_dict(), "rates": self.rates, "noise": self.noise, "seed": self.seed}
        return {**super().get_config(), **settings}


def spread(mask: Any, layout: Layout) -> Any:
    """A mask over modalities [n, M] as one over columns [n, D]."""
    return ops.matmul(mask, layout.membership)

"""The autoencoder's layers: standardisation, corruption while training, and the residual encoder."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from model.layout import Layout

register = keras.saving.register_keras_serializable(package="fusefeed")


@register
class Standardise(keras.layers.Layer):
    """fused [n, D], mask [n, M] -> [n, D]: centred, each modality of total variance 1, zeros where it is missing.

    What stands in the columns of a missing modality is never looked at, not even if it is NaN.
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
        shown = spread(mask, self.layout)
        return ops.where(shown > 0, (fused - self.mean) / self.scale, 0.0)

    def inverse(self, standard: Any) -> Any:
        """[n, D] standardised -> [n, D] in the units of the fused vector."""
        return standard * self.scale + self.mean

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layout": self.layout.to_dict()}


@register
class Corruption(keras.layers.Layer):
    """Standardised rows [n, D], mask [n, M] -> corrupted rows [n, D], mask of what is left [n, M].

    While training, modalities are hidden at random, but never all that a row has, so that any subset learns to stand in
    for the rest; and noise is added. Otherwise nothing is changed.

    Args:
      layout: the blocks of the fused vector.
      rates: [M] probabilities with which each modality is hidden.
      noise: standard deviation of the noise, in those of a modality's average column.
      seed: of the randomness.
    """

    def __init__(
        self, layout: Mapping[str, Any], rates: Sequence[float], noise: float, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.layout = Layout.from_dict(layout)
        self.rates, self.noise, self.seed = list(rates), noise, seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        widths = np.array([m.width for m in self.layout.modalities])
        self._deviation = (noise / np.sqrt(widths)).astype(np.float32) @ self.layout.membership
        self.built = True

    def call(self, rows: Any, mask: Any, training: bool = False) -> tuple[Any, Any]:
        if not training:
            return rows, mask
        mask = self._hide(mask)
        if self.noise:
            rows = rows + keras.random.normal(ops.shape(rows), seed=self.seed_generator) * self._deviation
        return rows * spread(mask, self.layout), mask

    def _hide(self, mask: Any) -> Any:
        chances = keras.random.uniform(ops.shape(mask), seed=self.seed_generator)
        kept = mask * ops.cast(chances >= np.array(self.rates, np.float32), mask.dtype)
        order = mask * (1 + keras.random.uniform(ops.shape(mask), seed=self.seed_generator))
        spared = mask * ops.one_hot(ops.argmax(order, axis=1), len(self.rates), dtype=mask.dtype)
        return ops.where(ops.max(kept, axis=1, keepdims=True) > 0, kept, spared)

    def get_config(self) -> dict[str, Any]:
        mine = {"layout": self.layout.to_dict(), "rates": self.rates, "noise": self.noise, "seed": self.seed}
        return {**super().get_config(), **mine}


@register
class ResidualEncoder(keras.layers.Layer):
    """Standardised rows [n, D], mask [n, M] -> latent [n, L]: a linear map plus a small network that begins at zero.

    With p of its modalities present a row is scaled by sqrt(usual / p), so that its code is as long as others'; a
    learned gain corrects that per latent number and missing modality: what several modalities share needs more, what
    one has alone needs none. A row without any modality has the code 0.

    Args:
      layout: the blocks of the fused vector.
      latent: L.
      hidden: width of the network, 0 for none.
      dropout: share of the network's units dropped while training.
      seed: of that.
    """

    def __init__(
        self, layout: Mapping[str, Any], latent: int, hidden: int, dropout: float, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.layout = Layout.from_dict(layout)
        self.latent, self.hidden, self.dropout, self.seed = latent, hidden, dropout, seed
        num_modalities = len(self.layout.modalities)
        self.usual = self.add_weight(shape=(), initializer="ones", trainable=False, name="usual")
        self.linear = self.add_weight(shape=(self.layout.width, latent), name="linear")
        self.gain = self.add_weight(shape=(num_modalities, latent), initializer="zeros", name="gain")
        if hidden:
            # Its inputs are scaled to a variance of 1 a column, for which the usual initialisation is made.
            self.to_unit = float(np.sqrt(self.layout.width / num_modalities))
            self.inner = keras.layers.Dense(hidden, activation="gelu", name="inner")
            self.inner.build((None, self.layout.width + num_modalities))
            self.drop = keras.layers.Dropout(dropout, seed=seed)
            self.drop.build((None, hidden))
            self.outer = keras.layers.Dense(latent, kernel_initializer="zeros", use_bias=False, name="outer")
            self.outer.build((None, hidden))
        self.built = True

    def call(self, rows: Any, mask: Any, training: bool = False) -> Any:
        present = ops.sum(mask, axis=1, keepdims=True)
        rows = rows * ops.sqrt(self.usual / ops.maximum(present, 1.0))
        code = ops.matmul(rows, self.linear) * (1 + ops.matmul(1 - mask, self.gain))
        if self.hidden:
            inner = self.inner(ops.concatenate([rows * self.to_unit, mask], axis=1))
            code = code + self.outer(self.drop(inner, training=training))
        return ops.where(present > 0, code, 0.0)

    def get_config(self) -> dict[str, Any]:
        mine = {"latent": self.latent, "hidden": self.hidden, "dropout": self.dropout, "seed": self.seed}
        return {**super().get_config(), "layout": self.layout.to_dict(), **mine}


def spread(mask: Any, layout: Layout) -> Any:
    """A mask over modalities [n, M] as one over columns [n, D]."""
    return ops.matmul(mask, layout.membership)

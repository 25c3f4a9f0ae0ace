"""The encoders: a linear map plus a small network initialized to zero."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from model.layers import register
from model.layout import Layout


@register
class ResidualEncoder(keras.layers.Layer):
    """Standardized rows [n, D], mask [n, M] -> latent [n, L]: a linear map plus a network initialized to zero.

    With p of its modalities present a row is scaled by sqrt(usual / p), so that its code has the usual norm; a learned
    gain corrects that per latent number and missing modality: information shared by several modalities needs more, that
    of a single one needs none. A row without any modality has the code 0.

    Args:
      layout: the blocks of the fused vector.
      latent: L.
      hidden: width of the network.
      dropout: share of the network's units dropped while training.
      seed: of that.
    """

    def __init__(
        self, layout: Mapping[str, Any], latent: int, hidden: int, dropout: float, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.layout = Layout.from_dict(layout)
        self.latent, self.hidden, self.dropout, self.seed = latent, hidden, dropout, seed
        self.linear = self.add_weight(shape=(self.layout.width, latent), name="linear")
        num_modalities = len(self.layout.modalities)
        self._add_linear_weights(num_modalities)
        self.inner = keras.layers.Dense(hidden, activation="gelu", name="inner")
        self.inner.build((None, self.layout.width + num_modalities))
        self.drop = keras.layers.Dropout(dropout, seed=seed)
        self.drop.build((None, hidden))
        self.outer = keras.layers.Dense(latent, kernel_initializer="zeros", use_bias=False, name="outer")
        self.outer.build((None, hidden))
        self.built = True

    def _add_linear_weights(self, num_modalities: int) -> None:
        self.usual = self.add_weight(shape=(), initializer="ones", trainable=False, name="usual")
        self.gain = self.add_weight(shape=(num_modalities, self.latent), initializer="zeros", name="gain")
        # The network's inputs are scaled to a variance of 1 a column, for which the usual initialization is made.
        self.to_unit = float(np.sqrt(self.layout.width / num_modalities))

    def call(self, rows: Any, mask: Any, training: bool = False) -> Any:
        rows, code = self._linear_code(rows, mask)
        inner = self.inner(ops.concatenate([rows * self.to_unit, mask], axis=1))
        code = code + self.outer(self.drop(inner, training=training))
        return ops.where(ops.any(mask > 0, axis=1, keepdims=True), code, 0.0)

    def _linear_code(self, rows: Any, mask: Any) -> tuple[Any, Any]:
        """The network's input rows, [n, D], and the linear part of the code, [n, L]."""
        present = ops.sum(mask, axis=1, keepdims=True)
        rows = rows * ops.sqrt(self.usual / ops.maximum(present, 1.0))
        return rows, ops.matmul(rows, self.linear) * (1 + ops.matmul(1 - mask, self.gain))

    def get_config(self) -> dict[str, Any]:
        settings = {"latent": self.latent, "hidden": self.hidden, "dropout": self.dropout, "seed": self.seed}
        return {**super().get_config(), "layout": self.layout.to_dict(), **settings}


@register
class AffineEncoder(ResidualEncoder):
    """Rows [n, D] with a variance of about 1 per column, mask [n, M] -> latent [n, L].

    The encoder of `model.ridge.LinearAutoencoder`, plus the network. Its linear part is rows @ linear + mask @ offset +
    bias; a row without any modality has the code 0.
    """

    def _add_linear_weights(self, num_modalities: int) -> None:
        self.offset = self.add_weight(shape=(num_modalities, self.latent), initializer="zeros", name="offset")
        self.bias = self.add_weight(shape=(self.latent,), initializer="zeros", name="bias")
        self.to_unit = 1.0

    def _linear_code(self, rows: Any, mask: Any) -> tuple[Any, Any]:
        return rows, ops.matmul(rows, self.linear) + ops.matmul(mask, self.offset) + self.bias

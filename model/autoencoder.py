"""The multimodal autoencoder: one common representation of all modalities, h = f(x), y = g(h)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from model.encoders import AffineEncoder, ResidualEncoder
from model.layers import Corruption, Standardize, register
from model.layout import Layout
from model.ridge import LinearAutoencoder
from model.statistics import TrainingMoments


@register
class Autoencoder(keras.Model):
    """{"fused": [n, D], "mask": [n, M]} -> {"latent": [n, L], "decoded": [n, D] in its units, "input_mask": [n, M]}.

    `input_mask` is that of the encoder's input: less than `mask` where modality dropout masked a modality. The loss of
    a batch is the mean, over every modality of every row that has it, of the squared error of the standardized block,
    whose total variance is 1: predicting the mean gives a loss of about 1. Modalities masked from the encoder count
    like the others.

    Args:
      layout: the blocks of the fused vector, as `Layout.to_dict` gives it.
      latent: L.
      hidden: width of the encoder's nonlinear part.
      dropout: share of that part's units dropped while training.
      noise: standard deviation of the input noise while training, in those of a modality's average column.
      modality_dropout: [M] probabilities with which modalities are masked while training.
      modality_weights: [M] weights of the modalities' losses.
      seed: of all randomness.
      input_scales: if content predicts the collaborative factors, the last modality, `Scales.to_dict` of
        `model.ridge`; its noise replaces `noise`.
    """

    def __init__(
        self,
        layout: Mapping[str, Any],
        latent: int,
        hidden: int,
        dropout: float,
        noise: float,
        modality_dropout: Sequence[float],
        modality_weights: Sequence[float],
        seed: int = 0,
        input_scales: Mapping[str, Sequence[float]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layout = Layout.from_dict(layout)
        self.settings = {
            "layout": self.layout.to_dict(),
            "latent": latent,
            "hidden": hidden,
            "dropout": dropout,
            "noise": noise,
            "modality_dropout": list(modality_dropout),
            "modality_weights": list(modality_weights),
            "seed": seed,
            "input_scales": None if input_scales is None else {name: list(v) for name, v in input_scales.items()},
        }
        # [M]: divisors of the standardized blocks, and 1 for the modalities that are encoder inputs.
        self.units, self.is_input = np.ones((2, len(self.layout.modalities)), np.float32)
        deviations = [noise / np.sqrt(modality.width) for modality in self.layout.modalities]
        encoder = ResidualEncoder
        if input_scales is not None:
            self.units, self.is_input = (np.array(input_scales[name], np.float32) for name in ("units", "is_input"))
            deviations, encoder = list(input_scales["noise"]), AffineEncoder
        self.standardize = Standardize(layout, name="standardize")
        self.corruption = Corruption(layout, modality_dropout, deviations, seed, name="corruption")
        self.encoder = encoder(layout, latent, hidden, dropout, seed + 1, name="encoder")
        # The linear decoders of all modalities side by side: each is a slice of columns, see `decoder_weights`.
        self.decoder = keras.layers.Dense(self.layout.width, name="decoder")
        self.decoder.build((None, latent))
        self.errors = ModalityErrors(self.layout.names, name="errors")
        self.built = True

    def initialize_pca(self, moments: TrainingMoments, components: np.ndarray) -> None:
        """Sets the standardization, and initializes the model to principal component analysis.

        Args:
          moments: of the training rows.
          components: [L, D], orthonormal rows.
        """
        self._set_standardization(moments)
        self.encoder.usual.assign(moments.present)
        self.encoder.linear.assign(components.T)
        self.decoder.kernel.assign(components)

    def initialize_linear(self, moments: TrainingMoments, linear: LinearAutoencoder) -> None:
        """Sets the standardization, and initializes the model to a linear autoencoder."""
        self._set_standardization(moments)
        self.encoder.linear.assign(linear.linear)
        self.encoder.offset.assign(linear.offset)
        self.encoder.bias.assign(linear.bias)
        self.decoder.kernel.assign(linear.kernel)

    def _set_standardization(self, moments: TrainingMoments) -> None:
        self.standardize.mean.assign(moments.mean)
        self.standardize.scale.assign(moments.divisors(self.layout) * (self.units @ self.layout.membership))

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        mask = inputs["mask"] * self.is_input
        rows, input_mask = self.corruption(self.standardize(inputs["fused"], mask), mask, training=training)
        latent = self.encoder(rows, input_mask, training=training)
        return {"latent": latent, "decoded": self.decoder(latent), "input_mask": input_mask}

    def encode(self, fused: Any, mask: Any) -> Any:
        """fused [n, D or more], mask [n, M] -> latent [n, L]."""
        mask = mask * self.is_input
        return self.encoder(self.standardize(fused, mask), mask)

    def decode(self, latent: Any) -> Any:
        """Latent [n, L] -> decoded fused vectors [n, D], all modalities present."""
        return self.standardize.inverse(self.decoder(latent))

    def decoder_weights(self, modality: str) -> tuple[np.ndarray, np.ndarray]:
        """The linear decoder of a modality, kernel [L, width] and bias [width]: latent @ kernel + bias is its block."""
        columns = self.layout.modalities[self.layout.names.index(modality)].columns
        scale, mean = (ops.convert_to_numpy(v)[columns] for v in (self.standardize.scale, self.standardize.mean))
        kernel, bias = (ops.convert_to_numpy(v) for v in (self.decoder.kernel, self.decoder.bias))
        return kernel[:, columns] * scale, bias[columns] * scale + mean

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss of a batch, scalar; see the class."""
        errors, _ = self._squares(y, y_pred)
        weights = y["mask"] * np.array(self.settings["modality_weights"], np.float32)
        return ops.sum(errors * weights) / ops.maximum(ops.sum(weights), 1e-9)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        errors, totals = self._squares(y, y_pred)
        self.errors.update_state(errors, totals, y["mask"], y_pred["input_mask"])
        results: dict[str, Any] = self.get_metrics_result()
        return results

    def _squares(self, y: Mapping[str, Any], y_pred: Mapping[str, Any]) -> tuple[Any, Any]:
        target = self.standardize(y["fused"], y["mask"])
        columns = (self.layout.membership * self.units[:, None] ** 2).T
        return ops.matmul(ops.square(y_pred["decoded"] - target), columns), ops.matmul(ops.square(target), columns)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}


@register
class ModalityErrors(keras.metrics.Metric):
    """Unexplained share of each modality's variance: {"error_NAME": ..., "predicted_error_NAME": ...}.

    The first over the rows where the modality was an input, the second over those where it was masked and predicted
    from the others alone. NaN if there was no such row.
    """

    def __init__(self, modalities: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.modalities = list(modalities)
        shape = (2, len(self.modalities))
        self.error_sums = self.add_variable(shape=shape, initializer="zeros", name="error_sums")
        self.totals = self.add_variable(shape=shape, initializer="zeros", name="totals")

    def update_state(self, errors: Any, totals: Any, mask: Any, input_mask: Any) -> None:
        """Adds a batch: squared errors, squares of the target, target mask, encoder mask; all [n, M]."""
        for values, sums in ((errors, self.error_sums), (totals, self.totals)):
            shown, masked = ops.sum(values * input_mask, axis=0), ops.sum(values * (mask - input_mask), axis=0)
            sums.assign_add(ops.stack([shown, masked]))

    def result(self) -> dict[str, Any]:
        ratios = ops.where(self.totals > 0, self.error_sums / ops.maximum(self.totals, 1e-30), np.nan)
        names = [f"{kind}_{name}" for kind in ("error", "predicted_error") for name in self.modalities]
        return dict(zip(names, ops.unstack(ops.reshape(ratios, (-1,)), len(names)), strict=True))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "modalities": self.modalities}

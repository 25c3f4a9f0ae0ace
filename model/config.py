"""Training settings with defaults and ranges."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from model.layout import Layout


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of training; the defaults suit some hundred to some ten million rows.

    Attributes:
      latent: width of the common representation; at most that of the fused vector. If content predicts
        collaborative factors, this width is in addition to `factors_used`.
      hidden: width of the encoder's nonlinear part.
      epochs: maximum passes over the rows; 0 for the number that gives 10,000 steps, between 3 and 100.
      batch_size: rows per training step; rounded to a nearby size that divides the rows best.
      learning_rate: AdamW's, after a warm-up and before it falls along a cosine.
      weight_decay: AdamW's, decoupled.
      dropout: share of the nonlinear part's units dropped while training.
      noise: standard deviation of the input noise while training, in those of a modality's average column.
      modality_dropout: probability with which a modality is masked while training.
      patience: epochs without a better validation loss after which training stops.
      validation_fraction: share of validation rows, by a hash of their ids; 0 for none.
      seed: of all randomness.
      ridge: lambda of the ridge map from content to collaborative factors from which training starts there, for
        modalities of total variance 1. The equivalent input noise replaces `noise`.
      modality_weights_input: weights w of content modalities in that map, by name; 1 where not named. Such a modality
        counts as if multiplied by the root of w; one of weight 0 is always masked from the encoder.
      factors_used: number of leading factors of the collaborative block to learn; 0 for all.
      factor_weights: weights of these factors' squared errors, such as their singular values; empty for equal ones.
      collaborative_dropout: probability with which the collaborative modality is masked while training.
      collaborative_weight: weight of its loss, relative to 1 for the losses of all other modalities together.
      collaborative_noise: standard deviation of its input noise, in those of its average column.
      refit_rows: maximum number of rows for which a factor predictor is refitted on all rows, for the number of epochs
        that was best on the validation rows: small data sets use every row.

    Raises:
      ValueError: a value is out of range.
    """

    latent: int = 64
    hidden: int = 256
    epochs: int = 0
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    dropout: float = 0.2
    noise: float = 0.3
    modality_dropout: float = 0.15
    patience: int = 10
    validation_fraction: float = 0.1
    seed: int = 0
    ridge: float = 10.0
    modality_weights_input: Mapping[str, float] = dataclasses.field(default_factory=dict)
    factors_used: int = 0
    factor_weights: tuple[float, ...] = ()
    collaborative_dropout: float = 0.7
    collaborative_weight: float = 3.0
    collaborative_noise: float = 1.0
    refit_rows: int = 100_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor_weights", tuple(float(weight) for weight in self.factor_weights))
        for name in ("latent", "hidden", "batch_size", "patience"):
            _check(name, getattr(self, name), low=1)
        for name in ("epochs", "weight_decay", "noise", "seed", "factors_used"):
            _check(name, getattr(self, name), low=0)
        for name in ("collaborative_noise", "refit_rows"):
            _check(name, getattr(self, name), low=0)
        for name in ("dropout", "modality_dropout", "validation_fraction", "collaborative_dropout"):
            _check(name, getattr(self, name), low=0, below=1)
        for modality, weight in self.modality_weights_input.items():
            _check(f"modality_weights_input of {modality}", weight, low=0)
        for name in ("learning_rate", "ridge", "collaborative_weight"):
            _check_above_0(name, getattr(self, name))
        for weight in self.factor_weights:
            _check_above_0("factor_weights", weight)
        if self.learning_rate > 10:
            raise ValueError(f"learning_rate must be at most 10, got {self.learning_rate}")

    def check_layout(self, layout: Layout) -> None:
        """Raises ValueError if the settings do not fit the layout."""
        unknown = sorted(set(self.modality_weights_input) - set(layout.names))
        if unknown:
            names = ", ".join(layout.names)
            raise ValueError(f"modality_weights_input must name modalities of {names}, got {unknown[0]}")
        if layout.predicts_factors:
            self._check_factors(layout)

    def _check_factors(self, layout: Layout) -> None:
        width = layout.modalities[-1].width
        if self.factors_used > width:
            raise ValueError(f"factors_used must be at most {width}, the collaborative width, got {self.factors_used}")
        used = self.factors_used or width
        if self.factor_weights and len(self.factor_weights) < used:
            raise ValueError(f"factor_weights must be {used} numbers or more, got {len(self.factor_weights)}")
        if not any(self.input_weights(layout)):
            raise ValueError("modality_weights_input must be above 0 for one modality at least, got all 0")

    def dropout_rates(self, layout: Layout) -> list[float]:
        """The masking probability of each modality, [M]."""
        rates = [self.modality_dropout] * len(layout.names)
        if layout.predicts_factors:
            rates[-1] = self.collaborative_dropout
        return rates

    def loss_weights(self, layout: Layout) -> list[float]:
        """The weight of each modality's loss, [M]."""
        if not layout.predicts_factors:
            return [1.0] * len(layout.names)
        content = len(layout.names) - 1
        return [1 / content] * content + [self.collaborative_weight]

    def input_weights(self, layout: Layout) -> list[float]:
        """The weight of each content modality in the map to the collaborative factors, [M - 1]."""
        return [float(self.modality_weights_input.get(name, 1.0)) for name in layout.names[:-1]]

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {Mapping: dict, tuple: list}
        for name, value in values.items():
            values[name] = next((to(value) for kind, to in plain.items() if isinstance(value, kind)), value)
        return values


def _check(name: str, value: float, low: float, below: float = float("inf")) -> None:
    if not low <= value < below:
        limit = "" if below == float("inf") else f" and below {below:g}"
        raise ValueError(f"{name} must be at least {low:g}{limit}, got {value}")


def _check_above_0(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be above 0, got {value}")

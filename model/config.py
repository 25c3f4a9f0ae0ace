"""How to train: every setting with its default and range."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from model.layout import Layout


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of training; the defaults suit from some hundred to some ten million rows.

    Attributes:
      latent: numbers of the common representation; fewer where the fused vector has fewer.
      hidden: width of the encoder's nonlinear part; 0 for a linear encoder.
      epochs: most passes over the rows; 0 for as many as make `steps` steps, between 3 and 100.
      steps: see epochs.
      batch_size: rows a training step; the size near it is used that divides the rows best.
      learning_rate: AdamW's, after a warm-up and before it falls along a cosine.
      weight_decay: AdamW's, decoupled.
      dropout: share of the nonlinear part's units dropped while training.
      noise: standard deviation of the input noise while training, in those of a modality's average column.
      modality_dropout: probability with which a modality is hidden while training.
      modality_dropouts: the same for single modalities, by name.
      modality_weights: weights of modalities' losses, by name; 1 where not named.
      patience: epochs without a better validation loss after which training stops.
      validation_fraction: share of the rows held out, by a hash of their ids; 0 for none.
      seed: of everything random.

    Raises:
      ValueError: a value out of its range.
    """

    latent: int = 64
    hidden: int = 256
    epochs: int = 0
    steps: int = 10_000
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    dropout: float = 0.2
    noise: float = 0.3
    modality_dropout: float = 0.15
    modality_dropouts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    modality_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    patience: int = 10
    validation_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("latent", "steps", "batch_size", "patience"):
            _check(name, getattr(self, name), low=1)
        for name in ("hidden", "epochs", "weight_decay", "noise", "seed"):
            _check(name, getattr(self, name), low=0)
        for name in ("dropout", "modality_dropout", "validation_fraction"):
            _check(name, getattr(self, name), low=0, below=1)
        for modality, rate in self.modality_dropouts.items():
            _check(f"modality_dropouts of {modality}", rate, low=0, below=1)
        for modality, weight in self.modality_weights.items():
            _check(f"modality_weights of {modality}", weight, low=0)
        if not 0 < self.learning_rate <= 10:
            raise ValueError(f"learning_rate must be above 0 and at most 10, got {self.learning_rate}")

    def check_layout(self, layout: Layout) -> None:
        """Raises ValueError where a modality is named that the layout does not have, or no loss is left."""
        for name in ("modality_dropouts", "modality_weights"):
            unknown = sorted(set(getattr(self, name)) - set(layout.names))
            if unknown:
                raise ValueError(f"{name} must name modalities of {', '.join(layout.names)}, got {unknown[0]}")
        if not any(self.loss_weights(layout)):
            raise ValueError("modality_weights must be above 0 for one modality at least, got all 0")

    def hide_rates(self, layout: Layout) -> list[float]:
        """The probability with which each modality is hidden, [M]."""
        return [float(self.modality_dropouts.get(name, self.modality_dropout)) for name in layout.names]

    def loss_weights(self, layout: Layout) -> list[float]:
        """The weight of each modality's loss, [M]."""
        return [float(self.modality_weights.get(name, 1.0)) for name in layout.names]

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def _check(name: str, value: float, low: float, below: float = float("inf")) -> None:
    if not low <= value < below:
        limit = "" if below == float("inf") else f" and below {below:g}"
        raise ValueError(f"{name} must be at least {low:g}{limit}, got {value}")

"""Initial model of training: principal components, or the ridge map if content predicts collaborative factors."""

import dataclasses
from typing import Any

import numpy as np

from model import ridge, statistics
from model.autoencoder import Autoencoder
from model.config import TrainConfig
from model.layout import Layout
from model.ridge import LinearStart
from model.spool import Spool
from model.statistics import Products, TrainingMoments


@dataclasses.dataclass(frozen=True)
class Begun:
    """An initial model of training, and its inputs.

    Attributes:
      model: the model.
      moments: of the training rows.
      components: principal components of as many numbers, [L, D].
      start: the ridge map; None where the model starts from the components.
      products: of the training rows.
    """

    model: Autoencoder
    moments: TrainingMoments
    components: np.ndarray
    start: LinearStart | None
    products: Products


def begin(spool: Spool, layout: Layout, config: TrainConfig) -> Begun:
    """A new model for the training rows."""
    moments = statistics.moments(spool, layout, _emphasis(layout, config))
    every = statistics.products(spool, layout, moments)
    covariance = every.sums[: layout.width, : layout.width] / every.num_rows
    if not layout.stands_in:
        components = statistics.principal_components(covariance, min(config.latent, layout.width))
        model = _new_model(layout, len(components), config)
        model.start_from(moments, components)
        return Begun(model, moments, components, None, every)
    last = len(layout.modalities) - 1
    scales = ridge.Scales.of(layout, config, int(moments.counts[last]))
    known = statistics.products(spool, layout, moments, having=last)
    start = ridge.linear_start(every, known, layout, config, scales)
    latent = len(start.bias)
    model = _new_model(layout, latent, config, stand_in=ridge.settings(scales))
    model.start_from_linear(moments, start)
    components = statistics.principal_components(covariance, latent)
    return Begun(model, moments, components, start, every)


def _emphasis(layout: Layout, config: TrainConfig) -> np.ndarray:
    """Multiplier of every column, [D]: the roots of the factors' weights, 1 elsewhere."""
    emphasis = np.ones(layout.width)
    if layout.stands_in and config.factor_weights:
        factors = layout.modalities[-1]
        emphasis[factors.columns] = np.sqrt(config.factor_weights[: factors.width])
    return emphasis


def _new_model(layout: Layout, latent: int, config: TrainConfig, **stand_in: Any) -> Autoencoder:
    return Autoencoder(
        layout=layout.to_dict(),
        latent=latent,
        hidden=config.hidden,
        dropout=config.dropout,
        noise=config.noise,
        modality_dropout=config.hide_rates(layout),
        modality_weights=config.loss_weights(layout),
        seed=config.seed,
        name="autoencoder",
        **stand_in,
    )

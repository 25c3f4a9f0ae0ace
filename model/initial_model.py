"""Initial model of training: principal components, or the ridge map if content predicts collaborative factors."""

import dataclasses
from typing import Any

import numpy as np

from model import ridge, statistics
from model.autoencoder import Autoencoder
from model.config import TrainConfig
from model.layout import Layout
from model.ridge import LinearAutoencoder
from model.spool import Spool
from model.statistics import Products, TrainingMoments


@dataclasses.dataclass(frozen=True)
class InitialModel:
    """An initial model of training, and its inputs.

    Attributes:
      model: the model.
      moments: of the training rows.
      components: their L principal components, [L, D].
      ridge_map: the linear model it equals; None if it equals the components.
      products: of the training rows.
    """

    model: Autoencoder
    moments: TrainingMoments
    components: np.ndarray
    ridge_map: LinearAutoencoder | None
    products: Products


def build_initial_model(spool: Spool, layout: Layout, config: TrainConfig) -> InitialModel:
    """A new model for the training rows."""
    moments = statistics.moments(spool, layout, _emphasis(layout, config))
    products = statistics.products(spool, layout, moments)
    covariance = products.sums[: layout.width, : layout.width] / products.num_rows
    if not layout.predicts_factors:
        components = statistics.principal_components(covariance, min(config.latent, layout.width))
        model = _new_model(layout, len(components), config)
        model.initialize_pca(moments, components)
        return InitialModel(model, moments, components, None, products)
    last = len(layout.modalities) - 1
    scales = ridge.Scales.of(layout, config, int(moments.counts[last]))
    known = statistics.products(spool, layout, moments, having=last)
    ridge_map = ridge.ridge_autoencoder(products, known, layout, config, scales)
    latent = len(ridge_map.bias)
    model = _new_model(layout, latent, config, input_scales=scales.to_dict())
    model.initialize_linear(moments, ridge_map)
    components = statistics.principal_components(covariance, latent)
    return InitialModel(model, moments, components, ridge_map, products)


def _emphasis(layout: Layout, config: TrainConfig) -> np.ndarray:
    """Multiplier of every column, [D]: the roots of the factors' weights, 1 elsewhere."""
    emphasis = np.ones(layout.width)
    if layout.predicts_factors and config.factor_weights:
        factors = layout.modalities[-1]
        emphasis[factors.columns] = np.sqrt(config.factor_weights[: factors.width])
    return emphasis


def _new_model(layout: Layout, latent: int, config: TrainConfig, **settings: Any) -> Autoencoder:
    return Autoencoder(
        layout=layout.to_dict(),
        latent=latent,
        hidden=config.hidden,
        dropout=config.dropout,
        noise=config.noise,
        modality_dropout=config.dropout_rates(layout),
        modality_weights=config.loss_weights(layout),
        seed=config.seed,
        name="autoencoder",
        **settings,
    )

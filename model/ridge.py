"""Initial model if content predicts collaborative factors: the ridge map, and PCA of the content.

Noise of variance v per column that is added to the inputs of a linear map acts on average as a ridge penalty of v per
row (Bishop 1995, "Training with noise is equivalent to Tikhonov regularization"). So the input noise of the autoencoder
is tied to the lambda that suits the ridge map, and its nonlinear part is regularized as much.
"""

import dataclasses

import numpy as np

from model.config import TrainConfig
from model.layout import Layout
from model.statistics import Products, TrainingMoments, principal_components, standardize

# More noise drowns the signal instead of regularizing; in deviations of the inputs' average column.
_MAX_NOISE = 2.0
# Ridge of the initial decoder of content, as a share of the latent numbers' average variance.
_DECODER_RIDGE = 0.01


@dataclasses.dataclass(frozen=True)
class Scales:
    """Units of the autoencoder, in which its inputs have a variance of about 1 per column.

    Attributes:
      units: [M], divisors of the standardized modalities' columns; for content in proportion to 1 / sqrt(w).
      noise: [M], standard deviation of the noise of a column while training, in these units.
      is_input: [M], 0 for the modalities that are not encoder inputs, else 1.
      penalty: lambda in these units.
    """

    units: list[float]
    noise: list[float]
    is_input: list[float]
    penalty: float

    @classmethod
    def of(cls, layout: Layout, config: TrainConfig, num_fit: int) -> "Scales":
        """The scales for a layout whose last modality, known for `num_fit` rows, is predicted from the others."""
        weights = np.array(config.input_weights(layout))
        widths = np.array([modality.width for modality in layout.modalities])
        is_input = weights > 0
        common = weights.sum() / widths[:-1][is_input].sum()
        units = np.where(is_input, np.sqrt(common / np.where(is_input, weights, 1)), 1 / np.sqrt(widths[:-1]))
        penalty = config.ridge / common
        noise = is_input * min(np.sqrt(penalty / max(num_fit, 1)), _MAX_NOISE)
        return cls(
            units=[*units.tolist(), float(1 / np.sqrt(widths[-1]))],
            noise=[*noise.tolist(), config.collaborative_noise],
            is_input=[*is_input.astype(float).tolist(), 1.0],
            penalty=float(penalty),
        )

    def to_dict(self) -> dict[str, list[float]]:
        """`input_scales` of the autoencoder."""
        return {"units": self.units, "noise": self.noise, "is_input": self.is_input}

    def columns(self, layout: Layout) -> np.ndarray:
        """Divisor of each standardized column: [D] float64."""
        divisors: np.ndarray = np.array(self.units) @ layout.membership.astype(np.float64)
        return divisors


@dataclasses.dataclass(frozen=True)
class LinearAutoencoder:
    """A linear autoencoder: latent = rows @ linear + mask @ offset + bias, decoded = latent @ kernel.

    Rows are in the units of `scales`. The first latent numbers are the ridge map to the collaborative factors, the
    others principal components of the content.

    Attributes:
      linear: [D, L].
      offset: [M, L].
      bias: [L].
      kernel: [L, D].
      scales: units of the rows.
    """

    linear: np.ndarray
    offset: np.ndarray
    bias: np.ndarray
    kernel: np.ndarray
    scales: Scales

    def reconstruct(self, fused: np.ndarray, mask: np.ndarray, moments: TrainingMoments, layout: Layout) -> np.ndarray:
        """Reconstruction of rows: [n, D] float64, standardized."""
        divisors, mask = self.scales.columns(layout), mask * np.array(self.scales.is_input)
        rows = standardize(fused, mask, moments, layout) / divisors
        latent = rows @ self.linear + mask @ self.offset + self.bias
        decoded: np.ndarray = (latent * mask.any(axis=1, keepdims=True)) @ self.kernel * divisors
        return decoded


def ridge_autoencoder(
    all_rows: Products, known: Products, layout: Layout, config: TrainConfig, scales: Scales
) -> LinearAutoencoder:
    """The initial model of training.

    Args:
      all_rows: sums over all training rows.
      known: sums over those that have the last modality.
      layout: the blocks; the last one is predicted from the others.
      config: only `latent` and `ridge` are used.
      scales: units of the result.
    """
    in_units = np.r_[scales.columns(layout), np.ones(len(layout.modalities) + 1)]
    all_rows, known = (Products(p.sums / np.outer(in_units, in_units), p.num_rows) for p in (all_rows, known))
    content = np.flatnonzero(np.array(scales.is_input) @ layout.membership * (np.arange(layout.width) < _first(layout)))
    numbers, map_to = layout.modalities[-1].width, _ridge_map(known, content, layout, config.ridge, scales)
    directions = _content_directions(all_rows, content, min(config.latent, len(content)))
    weights = np.zeros((len(in_units), numbers + directions.shape[1]))
    weights[:, :numbers] = map_to
    weights[content, numbers:] = directions
    width, num_modalities = layout.width, len(layout.modalities)
    kernel = _decoder(all_rows, weights, width)
    kernel[:, _first(layout) :] = np.eye(weights.shape[1], numbers)
    return LinearAutoencoder(weights[:width], weights[width : width + num_modalities], weights[-1], kernel, scales)


def _first(layout: Layout) -> int:
    """The first column of the last modality."""
    return layout.modalities[-1].offset


def _ridge_map(known: Products, content: np.ndarray, layout: Layout, ridge: float, scales: Scales) -> np.ndarray:
    """[D + M + 1, numbers]: from columns, mask and 1 to the last modality. The 1 is not penalized."""
    sums, num_rows = known.sums, max(known.num_rows, 1)
    masks = layout.width + np.arange(len(layout.modalities))
    shares = sums[-1, masks] / num_rows
    sometimes = masks[(shares > 0) & (shares < 1) & (np.array(scales.is_input) > 0)]
    inputs, targets = np.r_[content, sometimes], np.arange(_first(layout), layout.width)
    penalty = np.r_[np.full(len(content), scales.penalty), np.full(len(sometimes), ridge)]
    input_means, target_means = sums[-1, inputs] / num_rows, sums[-1, targets] / num_rows
    covariance = sums[np.ix_(inputs, inputs)] - num_rows * np.outer(input_means, input_means)
    crossed = sums[np.ix_(inputs, targets)] - num_rows * np.outer(input_means, target_means)
    weights = np.zeros((len(sums), len(targets)))
    weights[inputs] = np.linalg.solve(covariance + np.diag(penalty), crossed)
    weights[-1] = target_means - input_means @ weights[inputs]
    return weights


def _content_directions(products: Products, content: np.ndarray, count: int) -> np.ndarray:
    """[columns of content, count]: principal components, scaled so that the latent numbers have a variance of 1."""
    covariance = products.sums[np.ix_(content, content)] / products.num_rows
    components = principal_components(covariance, count)
    variance = np.einsum("ij,jk,ik->i", components, covariance, components).mean()
    directions: np.ndarray = components.T / np.sqrt(variance if variance > 0 else 1)
    return directions


def _decoder(products: Products, weights: np.ndarray, width: int) -> np.ndarray:
    """[L, D]: the columns by (nearly) least squares from the latent numbers."""
    latent = weights.T @ products.sums @ weights
    ridge = _DECODER_RIDGE * np.trace(latent) / len(latent)
    kernel: np.ndarray = np.linalg.solve(
        latent + (ridge if ridge > 0 else 1) * np.eye(len(latent)), weights.T @ products.sums[:, :width]
    )
    return kernel

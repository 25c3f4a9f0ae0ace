"""Reconstruction error of each modality, compared with principal component analysis of the same size."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from keras import ops

from model.autoencoder import Autoencoder
from model.layout import Layout
from model.ridge import LinearAutoencoder
from model.statistics import TrainingMoments, standardize

MAX_ROWS = 100_000
_CHUNK_ROWS = 4096

# (fused [n, D], mask [n, M] of the input) -> standardized rows [n, D], no modality missing.
Reconstruct = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class ModalityReport:
    """Unexplained shares of a modality's variance, 0 is perfect; None if no row could be measured.

    Attributes:
      name: of the modality.
      width: of its block.
      rows: measured rows that have it.
      error: of the autoencoder, with the complete row as input.
      pca_error: of principal component analysis of the same latent size, fitted on the training rows (missing: zeros).
      predicted_error: of the autoencoder when the modality is masked, over rows with other modalities.
      pca_predicted_error: of principal component analysis on the same rows.
      ridge_predicted_error: of the ridge map from which training started, on the same rows; None except for
        the collaborative modality.
    """

    name: str
    width: int
    rows: int
    error: float | None
    pca_error: float | None
    predicted_error: float | None
    pca_predicted_error: float | None
    ridge_predicted_error: float | None = None


def modality_reports(
    model: Autoencoder,
    components: np.ndarray,
    moments: TrainingMoments,
    rows: np.ndarray,
    ridge_map: LinearAutoencoder | None = None,
) -> tuple[ModalityReport, ...]:
    """Measures a model and principal components on rows [n, D + M], at most the first MAX_ROWS."""
    layout = model.layout
    rows = rows[:MAX_ROWS]

    def by_pca(fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return standardize(fused, mask, moments, layout) @ components.T @ components

    model_errors = _unexplained(_by_model(model), rows, moments, layout)
    pca_errors = _unexplained(by_pca, rows, moments, layout)
    counts = rows[:, layout.width :].sum(axis=0, dtype=np.float64)
    reports = [
        ModalityReport(m.name, m.width, int(counts[i]), *(e[k][i] for k in (0, 1) for e in (model_errors, pca_errors)))
        for i, m in enumerate(layout.modalities)
    ]
    if ridge_map is not None:
        by_ridge = functools.partial(ridge_map.reconstruct, moments=moments, layout=layout)
        error = _unexplained(by_ridge, rows, moments, layout)[1][-1]
        reports[-1] = dataclasses.replace(reports[-1], ridge_predicted_error=error)
    return tuple(reports)


def _by_model(model: Autoencoder) -> Reconstruct:
    widths = (model.layout.width, len(model.layout.modalities))

    @tf.function(input_signature=[tf.TensorSpec((None, width), tf.float32) for width in widths])
    def decoded(fused: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return model({"fused": fused, "mask": mask}, training=False)["decoded"]

    units = model.units @ model.layout.membership

    def reconstruct(fused: np.ndarray, mask: np.ndarray) -> np.ndarray:
        given = (tf.constant(values, tf.float32) for values in (fused, mask))
        return np.asarray(ops.convert_to_numpy(decoded(*given)), np.float64) * units

    return reconstruct


def _unexplained(
    reconstruct: Reconstruct, rows: np.ndarray, moments: TrainingMoments, layout: Layout
) -> list[list[float | None]]:
    """Per modality: unexplained shares with the complete row as input, and with the modality itself masked."""
    num_modalities = len(layout.modalities)
    errors, totals = np.zeros((2, num_modalities)), np.zeros((2, num_modalities))
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = np.asarray(rows[start : start + _CHUNK_ROWS], np.float64)
        fused, mask = chunk[:, : layout.width], chunk[:, layout.width :]
        target = standardize(fused, mask, moments, layout)
        whole = reconstruct(fused, mask)
        for index, modality in enumerate(layout.modalities):
            others = mask.copy()
            others[:, index] = 0
            present = mask[:, index] > 0
            predicted = present & others.any(axis=1)
            from_others = reconstruct(fused, others)[predicted] if predicted.any() else whole[predicted]
            pairs = ((target[present], whole[present]), (target[predicted], from_others))
            for kind, (wanted, found) in enumerate(pairs):
                errors[kind, index] += ((wanted - found)[:, modality.columns] ** 2).sum()
                totals[kind, index] += (wanted[:, modality.columns] ** 2).sum()
    shares = [errors[kind] / np.where(totals[kind] > 0, totals[kind], np.nan) for kind in (0, 1)]
    return [[None if np.isnan(share) else float(share) for share in kind] for kind in shares]

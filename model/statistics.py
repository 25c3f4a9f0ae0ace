"""Statistics of the training rows: moments, and principal components as the autoencoder's baseline."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from model.layout import Layout
from model.spool import Spool

# The spool's buckets are random samples of the rows; past this many the covariance does not get visibly better.
MAX_COVARIANCE_ROWS = 1_000_000
_CHUNK_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class TrainingMoments:
    """Moments of the training rows, each modality's over the rows that have it.

    Attributes:
      mean: [D] float64, 0 where a modality is nowhere present.
      scale: [M] float64, the root of a modality's total variance (the sum over its columns), 1 where that is 0.
      counts: [M] int64, rows that have the modality.
      present: average number of modalities of a row.
      emphasis: [D] float64, multipliers of the columns, applied first.
    """

    mean: np.ndarray
    scale: np.ndarray
    counts: np.ndarray
    present: float
    emphasis: np.ndarray

    def divisors(self, layout: Layout) -> np.ndarray:
        """Divisors that standardize centered columns, [D] float64."""
        divisors: np.ndarray = self.scale @ layout.membership.astype(np.float64) / self.emphasis
        return divisors


def moments(spool: Spool, layout: Layout, emphasis: np.ndarray | None = None) -> TrainingMoments:
    """The moments of all training rows, in two passes (a single one loses the variance next to a large mean)."""
    membership = layout.membership.astype(np.float64)
    emphasis = np.ones(layout.width) if emphasis is None else emphasis
    sums, counts = np.zeros(layout.width), np.zeros(len(layout.modalities))
    for fused, mask in _chunks(spool, layout):
        sums += _present_sums(fused, mask, layout)
        counts += mask.sum(axis=0)
    mean = sums / np.maximum(counts @ membership, 1)
    squares = np.zeros(len(layout.modalities))
    for fused, mask in _chunks(spool, layout):
        fused -= mean
        fused *= emphasis
        squares += _present_sums(np.square(fused, out=fused), mask, layout) @ membership.T
    variance = squares / np.maximum(counts, 1)
    # The residue of constant columns is rounding error, which must not be amplified to look like data.
    noise = ((mean * emphasis) ** 2) @ membership.T * 1e-13
    scale = np.sqrt(np.where(variance > noise, variance, 1.0))
    return TrainingMoments(mean, scale, counts.astype(np.int64), float(counts.sum() / spool.num_train), emphasis)


def standardize(fused: np.ndarray, mask: np.ndarray, moments: TrainingMoments, layout: Layout) -> np.ndarray:
    """[n, D] float64: centered, each modality of total variance 1, zeros where a modality is missing.

    The autoencoder's input, as numpy.
    """
    rows = fused - moments.mean
    rows /= moments.divisors(layout)
    rows *= mask @ layout.membership.astype(np.float64)
    return rows


@dataclasses.dataclass(frozen=True)
class Products:
    """Sums of products of row vectors: the standardized columns, the mask and a 1.

    Attributes:
      sums: [D + M + 1, D + M + 1] float64.
      num_rows: rows summed over.
    """

    sums: np.ndarray
    num_rows: int


def products(spool: Spool, layout: Layout, moments: TrainingMoments, having: int | None = None) -> Products:
    """The sums of products over the training rows, or those of them with the modality of that index.

    Uses whole buckets (random samples of the rows) up to MAX_COVARIANCE_ROWS.
    """
    size = layout.width + len(layout.modalities) + 1
    sums, num_rows = np.zeros((size, size)), 0
    for fused, mask in _chunks(spool, layout, MAX_COVARIANCE_ROWS):
        if having is not None:
            fused, mask = fused[mask[:, having] > 0], mask[mask[:, having] > 0]
        rows = np.hstack([standardize(fused, mask, moments, layout), mask, np.ones((len(mask), 1))])
        sums += rows.T @ rows
        num_rows += len(rows)
    return Products(sums, num_rows)


def principal_components(covariance: np.ndarray, count: int) -> np.ndarray:
    """The first components of rows with that covariance [D, D]: [count, D] float64, orthonormal rows.

    A component is zeros where the rows have no variance left. Its largest entry is positive.
    """
    values, vectors = np.linalg.eigh(covariance)
    components = vectors.T[::-1][:count]
    components = components * (values[::-1][:count, None] > 1e-10 * max(values[-1], 0))
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    return components * np.where(largest < 0, -1, 1)


def _present_sums(values: np.ndarray, mask: np.ndarray, layout: Layout) -> np.ndarray:
    """Sums of the columns over the rows that have the modality: [D] float64."""
    return np.concatenate([mask[:, i] @ values[:, m.columns] for i, m in enumerate(layout.modalities)])


def _chunks(spool: Spool, layout: Layout, max_rows: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(fused, mask) of the training rows in the spool's order, float64; whole buckets until there are enough."""
    num_rows = 0
    for index in range(len(spool.bucket_rows)):
        if max_rows is not None and num_rows >= max_rows:
            return
        bucket = spool.bucket(index)
        num_rows += len(bucket)
        for start in range(0, len(bucket), _CHUNK_ROWS):
            rows = np.asarray(bucket[start : start + _CHUNK_ROWS], np.float64)
            yield rows[:, : layout.width], rows[:, layout.width :]

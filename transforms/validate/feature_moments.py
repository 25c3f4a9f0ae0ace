"""Means and spreads of the features of many posts, made block by block."""

import dataclasses
from collections.abc import Iterable

import numpy as np


@dataclasses.dataclass(frozen=True)
class FeatureMoments:
    """Moments of the vectors of some rows.

    Attributes:
      rows: their number.
      mean: [width] float64.
      squares: [width] float64, the sums of the squared differences from the mean.
    """

    rows: int
    mean: np.ndarray
    squares: np.ndarray


def moments_of(vectors: np.ndarray) -> FeatureMoments:
    """The moments of [n, width] vectors."""
    if not len(vectors):
        return FeatureMoments(0, np.zeros(vectors.shape[1]), np.zeros(vectors.shape[1]))
    mean = vectors.mean(axis=0, dtype=np.float64)
    apart = vectors - mean
    return FeatureMoments(len(vectors), mean, np.einsum("ij,ij->j", apart, apart))


def merge(found: Iterable[FeatureMoments]) -> FeatureMoments:
    """The moments of all rows together (Chan, Golub and LeVeque 1983)."""
    total, *others = found
    for one in others:
        rows = total.rows + one.rows
        if rows:
            apart, share = one.mean - total.mean, one.rows / rows
            squares = total.squares + one.squares + apart**2 * share * total.rows
            total = FeatureMoments(rows, total.mean + apart * share, squares)
    return total

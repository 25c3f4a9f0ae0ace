"""Quantiles of the norms of many vectors by a histogram, independent of their order."""

from collections.abc import Mapping

import numpy as np

# Resolution: a quantile is exact to 1%.
BINS_PER_DOUBLING = 64
QUANTILES = {"p5": 0.05, "median": 0.5, "p95": 0.95}


def count(vectors: np.ndarray) -> dict[int, int]:
    """Norm histogram of [n, width] vectors by bin, which begins at 2^(bin / BINS_PER_DOUBLING); norm 0 is in none."""
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    bins = np.floor(np.log2(squares[squares > 0]) / 2 * BINS_PER_DOUBLING).astype(int)
    return dict(zip(*(found.tolist() for found in np.unique(bins, return_counts=True)), strict=True))


def quantiles(counted: Mapping[int, int]) -> dict[str, float]:
    """The quantiles of QUANTILES, each by the middle of its bin; 0 where nothing is counted."""
    bins = sorted(counted)
    if not bins:
        return dict.fromkeys(QUANTILES, 0.0)
    upto = np.cumsum([counted[each] for each in bins])
    places = {name: int(np.searchsorted(upto, share * upto[-1])) for name, share in QUANTILES.items()}
    return {name: 2 ** ((bins[place] + 0.5) / BINS_PER_DOUBLING) for name, place in places.items()}

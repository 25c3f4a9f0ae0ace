"""Lengths of vectors, and vectors of length one. Plain numpy."""

import numpy as np

# Shorter than this a vector is rounding errors around zero.
LEAST_LENGTH = 1e-9


def row_norms(vectors: np.ndarray) -> np.ndarray:
    """The lengths of vectors, [n, d] float32: [n] float64."""
    lengths: np.ndarray = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return lengths


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Vectors divided by their lengths: [..., d] float32 of length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: np.ndarray = (vectors / np.where(lengths > LEAST_LENGTH, lengths, 1)).astype(np.float32)
    return scaled

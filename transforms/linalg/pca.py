"""Principal components and whitening, from Gram or covariance matrices. Plain numpy."""

import numpy as np

# Singular values below this share of the largest are rounding errors around zero.
RANK_TOLERANCE = 1e-4
GRAM_TOLERANCE = 1e-13


def principal_components(gram: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of rows with this Gram or covariance matrix [w, w].

    Returns:
      singular_values: [r] float64, descending, none of them zero; r is `number`, or less where the rank is less.
      components: [w, r] float64, orthonormal columns.
    """
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    singular = np.sqrt(np.maximum(values[::-1], 0))
    number = min(number, int(np.sum(singular > RANK_TOLERANCE * singular[0])))
    return singular[:number], vectors[:, ::-1][:, :number]


def whiten(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T with T^T gram T = 1, [w, w]; roots of the eigenvalues, ascending, [w]); columns of zeros if rank-deficient.

    Orthonormalizes X with this Gram matrix as X T: Cholesky-QR with eigenvectors in place of the Cholesky factor, which
    does not exist for linearly dependent columns. Matrix products, where LAPACK's QR took 12 s instead of 2 on two busy
    cores.
    """
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    nonzero = values > GRAM_TOLERANCE * max(values[-1], np.finfo(float).tiny)
    roots = np.sqrt(np.where(nonzero, values, 0))
    return vectors * np.where(nonzero, 1 / np.where(nonzero, roots, 1), 0), roots

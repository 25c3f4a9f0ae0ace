"""Ridge regression from content to factors: the linear map that serves posts without interactions. Plain numpy."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

_ROWS = 4096


class Design(NamedTuple):
    """Design matrix of posts: modality blocks, presence indicators, intercept.

    Attributes:
      columns: [n, W] float32: the modalities' blocks, then a column of 1 and 0 for each modality that not all posts
        have, then one of ones.
      owner: [W] modality of each column, "" for the ones.
      is_block: [W] bool, True for columns of a block.
    """

    columns: np.ndarray
    owner: np.ndarray
    is_block: np.ndarray

    def scales(self, weights: Mapping[str, float]) -> np.ndarray:
        """Multipliers of the columns: [W] float64, sqrt(weight) in blocks, else 1; 0 where the weight is 0."""
        weight = np.array([weights.get(name, 0.0) if name else 1.0 for name in self.owner])
        return np.where(self.is_block, np.sqrt(weight), weight > 0)


def design(values: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray], num_rows: int) -> Design:
    """The design of modalities' blocks [num_rows, width], which are zeros where `present` [num_rows] bool is False."""
    columns = [block.astype(np.float32, copy=False) for block in values.values()]
    owner = [name for name, block in values.items() for _ in range(block.shape[1])]
    num_block = len(owner)
    partial = [name for name, has in present.items() if not has.all()]
    columns += [present[name].astype(np.float32)[:, None] for name in partial]
    columns.append(np.ones((num_rows, 1), np.float32))
    owner += [*partial, ""]
    return Design(np.hstack(columns), np.array(owner), np.arange(len(owner)) < num_block)


class Sums(NamedTuple):
    """Z^T Z [W, W] and Z^T Y [W, k] of some rows, float64."""

    gram: np.ndarray
    cross: np.ndarray


def sums(columns: np.ndarray, targets: np.ndarray, rows: np.ndarray) -> Sums:
    """Sums over the given rows (places) of the design's columns and of targets [n, k]."""
    gram = np.zeros((columns.shape[1], columns.shape[1]))
    cross = np.zeros((columns.shape[1], targets.shape[1]))
    for some in _split(rows):
        z = columns[some].astype(np.float64)
        gram += z.T @ z
        cross += z.T @ targets[some].astype(np.float64)
    return Sums(gram, cross)


def _split(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _ROWS):
        yield rows[start : start + _ROWS]


def solve(found: Sums, scales: np.ndarray, lam: float) -> np.ndarray:
    """Coefficients B [W, k] float32, so that columns @ B are the factors: min |Z S b - Y|^2 + lam |b|^2, B = S b.

    Args:
      scales: [W] of `Design.scales`: the diagonal of S.
      lam: more than 0.
    """
    used = np.flatnonzero(scales)
    scaled = scales[used]
    gram = found.gram[np.ix_(used, used)] * np.outer(scaled, scaled)
    gram[np.diag_indices_from(gram)] += lam
    coefficients = np.zeros((len(scales), found.cross.shape[1]), np.float32)
    coefficients[used] = scaled[:, None] * np.linalg.solve(gram, scaled[:, None] * found.cross[used])
    return coefficients

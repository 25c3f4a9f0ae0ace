"""Linear factor predictors to compare the autoencoder with: ridge, and PCA then ridge.

Fitted on sums over the fused vectors, which are streamed: [D + M + 1] squared numbers are held.
"""

from typing import NamedTuple

import numpy as np

from transforms.embed.embedding_space import COLLABORATIVE
from transforms.embed.parameters import Decoded
from transforms.evaluate.content_baselines import ContentMoments
from transforms.evaluate.test_set import READ_ROWS
from transforms.fuse.transform_fn import FusedLayout, read_layout
from transforms.linalg import pca, ridge
from transforms.linalg.ridge import Design, Sums
from transforms.tables import blocks, parquet


class ContentSums(NamedTuple):
    """Sums over posts with interactions: of [fused where present | mask | 1] with itself and with the factors.

    Attributes:
      layout: of the fused vectors, the collaborative modality last.
      sums: gram [D + M + 1, D + M + 1], cross [D + M + 1, F].
      num_rows: how many posts.
    """

    layout: FusedLayout
    sums: Sums
    num_rows: int

    @property
    def widths(self) -> np.ndarray:
        """Numbers of each modality, [M]."""
        return np.array([modality.width for modality in self.layout.modalities])

    @property
    def content(self) -> np.ndarray:
        """Mask of the content modalities: [M] bool."""
        return np.array([modality.name != COLLABORATIVE for modality in self.layout.modalities])


def content_sums(fused: str) -> ContentSums:
    """The sums of a table of schemas.fused that has a collaborative modality."""
    layout = read_layout(fused)
    widths = [modality.width for modality in layout.modalities]
    factors = next(modality for modality in layout.modalities if modality.name == COLLABORATIVE)
    size = layout.width + len(widths) + 1
    gram, cross, num_rows = np.zeros((size, size)), np.zeros((size, factors.width)), 0
    for block in parquet.read_blocks(fused, READ_ROWS, ["fused", "mask", "degree"]):
        chosen = np.flatnonzero(block.column("degree").to_numpy() > 0)
        values, mask = (blocks.vectors_to_numpy(block.column(name))[chosen] for name in ("fused", "mask"))
        seen = np.hstack([values * np.repeat(mask, widths, axis=1), mask, np.ones((len(mask), 1), np.float32)])
        targets = values[:, factors.offset : factors.offset + factors.width]
        added = ridge.sums(seen, targets, np.arange(len(seen)))
        gram += added.gram
        cross += added.cross
        num_rows += len(seen)
    return ContentSums(layout, Sums(gram, cross), num_rows)


def ridge_coefficients(found: ContentSums, decoded: Decoded, num_factors: int) -> np.ndarray:
    """The ridge map that tuning chose, on all posts: [D + M + 1, F'] of `latent.LinearFactorPredictor`."""
    names = [modality.name for modality in found.layout.modalities]
    shares = found.sums.gram[-1, found.layout.width : -1] / max(found.num_rows, 1)
    # As in `ridge.design`: a mask column for each modality that not all posts have.
    mask_owner = np.where((shares > 0) & (shares < 1), names, "none")
    owner = np.concatenate([np.repeat(names, found.widths), mask_owner, [""]])
    is_block = np.arange(len(owner)) < found.layout.width
    scales = Design(np.empty((0, len(owner))), owner, is_block).scales(dict(decoded.weights) | {COLLABORATIVE: 0.0})
    return ridge.solve(Sums(found.sums.gram, found.sums.cross[:, :num_factors]), scales, decoded.lam)


def pca_coefficients(
    found: ContentSums, known: ContentMoments, num_components: int, lam: float, num_factors: int
) -> np.ndarray:
    """Principal components of the content, each modality of variance 1, and a ridge map from these to the factors.

    Args:
      known: moments of the same fused vectors, of all posts.
      num_components: numbers of the latent vector.
      lam: of the ridge.

    Returns:
      [D + M + 1, F'] of `latent.LinearFactorPredictor`.
    """
    to_latent = pca_map(known, found.content, num_components)
    sums = Sums(to_latent.T @ found.sums.gram @ to_latent, to_latent.T @ found.sums.cross[:, :num_factors])
    coefficients: np.ndarray = to_latent @ ridge.solve(sums, np.ones(to_latent.shape[1]), lam)
    return coefficients


def pca_map(known: ContentMoments, content: np.ndarray, num_components: int) -> np.ndarray:
    """[D + M + 1, L + 1]: from [fused where present | mask | 1] to principal components and 1."""
    widths = np.array([modality.width for modality in known.layout.modalities])
    owner = np.repeat(np.arange(len(widths)), widths)
    variance = np.bincount(owner, np.diag(known.covariance), minlength=len(widths))
    unit = np.where(content & (variance > 0), 1 / np.sqrt(np.where(variance > 0, variance, 1)), 0)[owner]
    _, components = pca.principal_components(known.covariance * np.outer(unit, unit), num_components)
    components = components * unit[:, None]
    center = np.zeros((len(widths), len(owner)))
    center[owner, np.arange(len(owner))] = known.mean
    width, count = components.shape
    found = np.zeros((width + len(widths) + 1, count + 1))
    found[:width, :count] = components
    found[width:-1, :count] = -center @ components
    found[-1, -1] = 1
    return found

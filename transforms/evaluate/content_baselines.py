"""Baselines on the content: kNN by cosine on the fused vector, on a modality of it, or on its principal components.

A user's profile is the sum of the unit vectors of liked posts; a post's score is its cosine with the profile. Posts are
streamed, once for the profiles and once to rank.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.embed.embedding_space import COLLABORATIVE
from transforms.evaluate.test_set import READ_ROWS, HeldOutSet
from transforms.fuse.transform_fn import FusedLayout, read_layout
from transforms.linalg import pca
from transforms.linalg.vectors import unit_rows
from transforms.search.eligibility import Eligibility
from transforms.search.exclusions import Exclusions
from transforms.search.top_k import top_k
from transforms.tables import blocks, parquet

_TILE_ROWS = 8192

# ([n, D] float32 fused vectors, [n, M] float32 mask) -> [n, d] float32 unit rows, zeros where there is nothing
Project = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class ContentMoments:
    """Moments of the fused vectors in the training part.

    Attributes:
      mean: [D] float64, of each modality over the posts that have it.
      covariance: [D, D] float64, of the centered vectors, zeros where a modality is missing.
      present: [M] int64, how many posts have each modality.
    """

    layout: FusedLayout
    mean: np.ndarray
    covariance: np.ndarray
    present: np.ndarray

    @property
    def content(self) -> list[str]:
        """The modalities that some post has, without the collaborative one."""
        names = [modality.name for modality in self.layout.modalities]
        return [name for name, number in zip(names, self.present, strict=True) if number and name != COLLABORATIVE]


def moments(fused: str) -> ContentMoments:
    """The moments of a table of schemas.fused, in two passes."""
    layout = read_layout(fused)
    widths = np.array([modality.width for modality in layout.modalities])
    sums, present, count = np.zeros(layout.width), np.zeros(len(widths)), 0
    for vectors, mask in _read(fused):
        sums += vectors.sum(axis=0, dtype=np.float64)
        present += mask.sum(axis=0, dtype=np.float64)
        count += len(mask)
    mean = sums / np.repeat(np.maximum(present, 1), widths)
    covariance = np.zeros((layout.width, layout.width))
    for vectors, mask in _read(fused):
        centered = (vectors - mean) * np.repeat(mask, widths, axis=1)
        covariance += centered.T @ centered
    return ContentMoments(layout, mean, covariance / max(count, 1), present.astype(np.int64))


def _read(fused: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for block in parquet.read_blocks(fused, _TILE_ROWS, ["fused", "mask"]):
        yield blocks.vectors_to_numpy(block.column("fused")), blocks.vectors_to_numpy(block.column("mask"))


def by_modalities(known: ContentMoments, names: Sequence[str]) -> Project:
    """The blocks of these modalities, centered and each of unit length, side by side."""

    def project(vectors: np.ndarray, mask: np.ndarray) -> np.ndarray:
        pieces = []
        for number, modality in enumerate(known.layout.modalities):
            if modality.name in names:
                part = slice(modality.offset, modality.offset + modality.width)
                pieces.append(unit_rows((vectors[:, part] - known.mean[part]) * mask[:, number : number + 1]))
        return unit_rows(np.concatenate(pieces, axis=1))

    return project


def by_pca(known: ContentMoments, num_components: int) -> Project:
    """The first principal components of the whole fused vector."""
    _, components = pca.principal_components(known.covariance, num_components)
    widths = [modality.width for modality in known.layout.modalities]

    def project(vectors: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return unit_rows(((vectors - known.mean) * np.repeat(mask, widths, axis=1)) @ components)

    return project


def content_knn(test_set: HeldOutSet, fused: str, project: Project, k: int, num_threads: int = 1) -> np.ndarray:
    """Lists as of `baselines`: [u, k] int64.

    Args:
      fused: a table of schemas.fused with all posts of the catalog.
    """
    profiles: np.ndarray | None = None
    by_post = test_set.history.tocsc()
    for block in parquet.read_blocks(fused, READ_ROWS, ["post_id", "fused", "mask"]):
        place = test_set.posts.places(block.column("post_id"))
        vectors = _project(block, project)[place >= 0]
        added = by_post[:, place[place >= 0]] @ vectors
        profiles = added if profiles is None else profiles + added
    if profiles is None:
        return np.full((len(test_set.user_id), k), -1, np.int64)
    return nearest(test_set, unit_rows(profiles), _vectors(test_set, fused, project), k, num_threads)


def _project(block: pa.RecordBatch, project: Project) -> np.ndarray:
    columns = (blocks.vectors_to_numpy(block.column(name)) for name in ("fused", "mask"))
    return project(*columns)


def _vectors(test_set: HeldOutSet, fused: str, project: Project) -> Iterator[tuple[pa.Array, np.ndarray]]:
    for block in parquet.read_blocks(fused, READ_ROWS, ["post_id", "fused", "mask"]):
        yield block.column("post_id"), _project(block, project)


def nearest(
    test_set: HeldOutSet,
    queries: np.ndarray,
    posts: Iterator[tuple[pa.Array, np.ndarray]],
    k: int,
    num_threads: int = 1,
) -> np.ndarray:
    """The k eligible posts with the largest inner product that are not excluded: [u, k] int64; ties by id.

    A user whose query is zeros has no list.

    Args:
      queries: [u, d] float32.
      posts: (post_id [n], vectors [n, d]) in pieces; zeros where there is no content.
    """
    # A zero query scores the same with every post, and all would be ordered by id.
    nonzero = np.flatnonzero(queries.any(axis=1))
    excluded = test_set.excluded.tocsr()[nonzero].tocoo()
    exclusions = Exclusions(
        excluded.row.astype(np.int64),
        test_set.posts.post_id.take(pa.array(excluded.col)),
        np.empty(0, np.int64),
        pa.array([], pa.string()),
    )
    ranked = top_k(
        queries[nonzero],
        (_tile(test_set, post_id, vectors) for post_id, vectors in posts),
        k,
        eligibility=Eligibility(include_sensitive=True, include_reposts=True),
        exclusions=exclusions,
        num_threads=num_threads,
    )
    lists = np.full((len(queries), k), -1, np.int64)
    lists[nonzero[ranked.query], ranked.rank - 1] = test_set.posts.places(ranked.post_id)
    return lists


def _tile(test_set: HeldOutSet, post_id: pa.Array, vectors: np.ndarray) -> pa.RecordBatch:
    place = test_set.posts.places(post_id)
    eligible = (place >= 0) & test_set.posts.eligible[place]
    ids = post_id.filter(pa.array(eligible))
    columns = [ids, pa.nulls(len(ids), pa.string()), blocks.numpy_to_vectors(vectors[eligible])]
    return pa.RecordBatch.from_arrays(columns, names=["post_id", "author_id", "embedding"])


def embeddings_of(test_set: HeldOutSet, user_embeddings: str) -> np.ndarray:
    """The embeddings of the users: [u, d] float32, zeros where there is none."""
    width = parquet.read_schema(user_embeddings).field("embedding").type.list_size
    found = np.zeros((len(test_set.user_id), width), np.float32)
    for block in parquet.read_blocks(user_embeddings, READ_ROWS, ["user_id", "embedding"]):
        place = pc.index_in(block.column("user_id"), value_set=test_set.user_id)
        mine = blocks.valid(place)
        found[place.drop_null().to_numpy()] = blocks.vectors_to_numpy(block.column("embedding"))[mine]
    return found


def content_of_lists(
    test_set: HeldOutSet, fused: str, project: Project, lists: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(lists of any shape as rows of the vectors, the vectors [m, d] float32) of the posts in them."""
    wanted = np.unique(lists[lists >= 0])
    vectors: np.ndarray | None = None
    for post_id, made in _vectors(test_set, fused, project):
        if vectors is None:
            vectors = np.zeros((len(wanted), made.shape[1]), np.float32)
        place = test_set.posts.places(post_id)
        row = np.searchsorted(wanted, place)
        mine = (row < len(wanted)) & (place >= 0)
        mine[mine] = wanted[row[mine]] == place[mine]
        vectors[row[mine]] = made[mine]
    if vectors is None or not len(wanted):
        return np.full(lists.shape, -1, np.int64), np.zeros((1, 1), np.float32)
    return np.where(lists >= 0, np.searchsorted(wanted, lists), -1), vectors

"""Slices of a test set: parts of the users, or of their targets, that are measured separately."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse

from transforms.evaluate.content_baselines import COLLABORATIVE
from transforms.evaluate.test_set import READ_ROWS, HeldOutSet, RankedPosts
from transforms.fuse.transform_fn import read_layout
from transforms.tables import blocks, parquet

# Users with fewer posts than that in their history are new.
NEW_USER_POSTS = 5
MAX_LANGUAGES = 10


def slices(test_set: HeldOutSet, modalities: dict[str, np.ndarray]) -> Iterator[tuple[str, scipy.sparse.csr_matrix]]:
    """(name, targets [u, p] of that slice); users without a target in a slice do not count in it.

    Args:
      modalities: of `modalities_of`.
    """
    is_new = test_set.num_seen < NEW_USER_POSTS
    yield "new users", _of_users(test_set, is_new)
    yield "other users", _of_users(test_set, ~is_new)
    warm = test_set.posts.liked > 0
    yield "warm posts", _of_posts(test_set, warm)
    yield "cold posts", _of_posts(test_set, ~warm)
    for name, present in modalities.items():
        yield f"posts with {name}", _of_posts(test_set, present)
    for language in _languages(test_set):
        chosen = pc.equal(test_set.posts.language, language).to_numpy(zero_copy_only=False)
        yield f"language {language}", _of_posts(test_set, chosen)


def _of_users(test_set: HeldOutSet, users: np.ndarray) -> scipy.sparse.csr_matrix:
    return _chosen(test_set, scipy.sparse.diags(users.astype(np.float32)) @ test_set.targets)


def _of_posts(test_set: HeldOutSet, posts: np.ndarray) -> scipy.sparse.csr_matrix:
    return _chosen(test_set, test_set.targets @ scipy.sparse.diags(posts.astype(np.float32)))


def _chosen(test_set: HeldOutSet, targets: scipy.sparse.spmatrix) -> scipy.sparse.csr_matrix:
    chosen = scipy.sparse.csr_matrix(targets, shape=test_set.targets.shape)
    chosen.eliminate_zeros()
    return chosen


def _languages(test_set: HeldOutSet) -> list[str]:
    """The languages of the posts with most targets; none where there is but one."""
    targets = test_set.posts.language.take(pa.array(test_set.targets.indices))
    counted = pa.table({"language": targets}).group_by("language").aggregate([([], "count_all")])
    ordered = counted.sort_by([("count_all", "descending"), ("language", "ascending")])
    found: list[str] = ordered.column("language").to_pylist()[:MAX_LANGUAGES]
    return found if len(found) > 1 else []


def modalities_of(posts: RankedPosts, fused: str) -> dict[str, np.ndarray]:
    """Mask of the posts that have each modality: name -> [p] bool, without the collaborative one.

    Args:
      fused: a table of schemas.fused with all posts.
    """
    names = [modality.name for modality in read_layout(fused).modalities]
    present = np.zeros((len(posts.post_id), len(names)), bool)
    for block in parquet.read_blocks(fused, READ_ROWS, ["post_id", "mask"]):
        place = posts.places(block.column("post_id"))
        present[place[place >= 0]] = blocks.vectors_to_numpy(block.column("mask"))[place >= 0] > 0
    return {name: present[:, number] for number, name in enumerate(names) if name != COLLABORATIVE}

"""Slices: parts of the users, or of what was held out of them, of which the measures are told apart."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse

from transforms.evaluate.content_baselines import COLLABORATIVE
from transforms.evaluate.test_set import READ_ROWS, HeldOutSet, Posts
from transforms.fuse.transform_fn import read_layout
from transforms.tables import blocks, parquet

# Users with fewer posts than that in their history are new.
NEW_USER_POSTS = 5
MAX_LANGUAGES = 10


def slices(judged: HeldOutSet, modalities: dict[str, np.ndarray]) -> Iterator[tuple[str, scipy.sparse.csr_matrix]]:
    """(name, targets [u, p] of that slice); users without a target in a slice do not count in it.

    Args:
      modalities: of `modalities_of`.
    """
    is_new = judged.num_seen < NEW_USER_POSTS
    yield "new users", _of_users(judged, is_new)
    yield "other users", _of_users(judged, ~is_new)
    warm = judged.posts.liked > 0
    yield "warm posts", _of_posts(judged, warm)
    yield "cold posts", _of_posts(judged, ~warm)
    for name, present in modalities.items():
        yield f"posts with {name}", _of_posts(judged, present)
    for language in _languages(judged):
        chosen = pc.equal(judged.posts.language, language).to_numpy(zero_copy_only=False)
        yield f"language {language}", _of_posts(judged, chosen)


def _of_users(judged: HeldOutSet, users: np.ndarray) -> scipy.sparse.csr_matrix:
    return _chosen(judged, scipy.sparse.diags(users.astype(np.float32)) @ judged.targets)


def _of_posts(judged: HeldOutSet, posts: np.ndarray) -> scipy.sparse.csr_matrix:
    return _chosen(judged, judged.targets @ scipy.sparse.diags(posts.astype(np.float32)))


def _chosen(judged: HeldOutSet, targets: scipy.sparse.spmatrix) -> scipy.sparse.csr_matrix:
    chosen = scipy.sparse.csr_matrix(targets, shape=judged.targets.shape)
    chosen.eliminate_zeros()
    return chosen


def _languages(judged: HeldOutSet) -> list[str]:
    """The languages of the posts with most targets; none where there is but one."""
    targets = judged.posts.language.take(pa.array(judged.targets.indices))
    counted = pa.table({"language": targets}).group_by("language").aggregate([([], "count_all")])
    ordered = counted.sort_by([("count_all", "descending"), ("language", "ascending")])
    found: list[str] = ordered.column("language").to_pylist()[:MAX_LANGUAGES]
    return found if len(found) > 1 else []


def modalities_of(posts: Posts, fused: str) -> dict[str, np.ndarray]:
    """Mask of the posts that have each modality: name -> [p] bool, the collaborative one left out.

    Args:
      fused: a table of schemas.fused with all posts.
    """
    names = [modality.name for modality in read_layout(fused).modalities]
    present = np.zeros((len(posts.post_id), len(names)), bool)
    for block in parquet.read_blocks(fused, READ_ROWS, ["post_id", "mask"]):
        place = posts.places(block.column("post_id"))
        present[place[place >= 0]] = blocks.vectors_to_numpy(block.column("mask"))[place >= 0] > 0
    return {name: present[:, number] for number, name in enumerate(names) if name != COLLABORATIVE}

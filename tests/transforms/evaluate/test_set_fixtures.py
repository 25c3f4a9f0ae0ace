"""Small worlds to judge lists in, made without any pipeline."""

import numpy as np
import pyarrow as pa
import scipy.sparse

from transforms.evaluate.test_set import HeldOutSet, RankedPosts


def make_posts(num_posts: int, liked: np.ndarray | None = None, eligible: np.ndarray | None = None) -> RankedPosts:
    """Posts p000, p001, ...; recent popularity is the reverse of the other."""
    liked = np.zeros(num_posts, np.int64) if liked is None else liked
    return RankedPosts(
        post_id=pa.array([f"p{i:03d}" for i in range(num_posts)]),
        author_id=pa.nulls(num_posts, pa.string()),
        eligible=np.ones(num_posts, bool) if eligible is None else eligible,
        liked=liked,
        recent=-liked.astype(np.float64),
        language=pa.array(["en" if i % 3 else "de" for i in range(num_posts)]),
    )


def make_held_out(
    history: np.ndarray, targets: np.ndarray, others: np.ndarray, eligible: np.ndarray | None = None
) -> HeldOutSet:
    """Users u0, u1, ... of dense 0/1 matrices; what they liked is what they may not get."""
    fit = np.concatenate([history, others])
    sparse = [scipy.sparse.csr_matrix(matrix.astype(np.float32)) for matrix in (targets, history, history, fit)]
    posts = make_posts(history.shape[1], fit.sum(axis=0).astype(np.int64), eligible)
    return HeldOutSet(posts, pa.array([f"u{i}" for i in range(len(history))]), *sparse, 1.0)


def random_world(num_users: int = 30, num_posts: int = 40, seed: int = 0) -> HeldOutSet:
    """Users with tastes at random; the last posts are liked by nobody, the first one may not be ranked."""
    rng = np.random.default_rng(seed)
    taste = rng.random((2 * num_users, 3)) @ rng.random((3, num_posts))
    likes = rng.random(taste.shape) < taste / taste.max() * 0.5
    likes[:, -3:] = False
    history = likes & (rng.random(likes.shape) < 0.7)
    history[0] = False
    targets = likes & ~history
    targets[:, 5] |= ~history[:, 5]
    eligible = np.ones(num_posts, bool)
    eligible[0] = False
    targets[:, 0] = False
    return make_held_out(history[:num_users], targets[:num_users], history[num_users:], eligible)

"""Tastes: clusters of similar posts in a user's history, each with a medoid and its share of the history.

A user's single vector is a mean that the largest taste dominates (Pal et al. 2020, "PinnerSage", who use medoids too);
with the tastes separated, a list can serve each by its share (Steck 2018, "Calibrated recommendations").
"""

import dataclasses

import numpy as np

from transforms.linalg.selection import to_matrix
from transforms.linalg.vectors import unit_rows

# Most tastes of a user. Of the demo world's users of two topics 84% had a taste of mostly the smaller one with 3, 94%
# with 4, 99% with 5.
MAX_TASTES = 5
_USERS_AT_ONCE = 128


@dataclasses.dataclass(frozen=True)
class Tastes:
    """The tastes of some users.

    Attributes:
      medoid: [n, MAX_TASTES, w] float32, unit length or zeros where there is none.
      share: [n, MAX_TASTES] float64 of the history, 0 where there is none; sums to 1, or 0 of a user without
        tastes.
    """

    medoid: np.ndarray
    share: np.ndarray


def likeness_vectors(vectors: np.ndarray, parts: tuple[slice, ...]) -> np.ndarray:
    """Vectors whose inner product is the similarity of two posts: [..., w] float32, unit length or zeros.

    Args:
      vectors: [..., d] embeddings of posts.
      parts: columns of each block; the blocks that a post has count alike.
    """
    made = [unit_rows(vectors[..., part]) for part in parts]
    return unit_rows(np.concatenate(made, axis=-1)) if made else np.zeros((*vectors.shape[:-1], 0), np.float32)


def find_tastes(user: np.ndarray, post: np.ndarray, vectors: np.ndarray, weight: np.ndarray, num_users: int) -> Tastes:
    """The tastes of users by the posts that they liked.

    The medoids are chosen one after the other, each the post that makes the weighted sum of every post's likeness to
    its nearest medoid largest (greedy facility location, Nemhauser, Wolsey and Fisher 1978); a post belongs to its
    nearest medoid.

    Args:
      user: [m] int64 place of the user, ascending.
      post: [m] int64, row of `vectors`.
      vectors: [p, w] float32 of `likeness_vectors`.
      weight: [m] float64, weight of each; posts with zero vectors are dropped.
      num_users: n.
    """
    medoid = np.zeros((num_users, MAX_TASTES, vectors.shape[1]), np.float32)
    share = np.zeros((num_users, MAX_TASTES))
    known = np.flatnonzero(np.any(vectors != 0, axis=1)[post] & (weight > 0))
    starts = np.append(np.arange(0, num_users, _USERS_AT_ONCE), num_users)
    cuts = np.searchsorted(user[known], starts)
    for i, start in enumerate(starts[:-1]):
        entries = known[cuts[i] : cuts[i + 1]]
        if len(entries):
            stop = starts[i + 1]
            (place,) = to_matrix(user[entries] - start, (entries,), stop - start, (-1,))
            counted = np.where(place >= 0, weight[place], 0)
            liked = vectors[post[place]] * (place >= 0)[:, :, None]
            medoid[start:stop], share[start:stop] = _tastes(liked, counted)
    return Tastes(medoid, share)


def _tastes(vectors: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(medoids, shares) of users by their padded posts: [n, l, w] and [n, l], weight 0 where there is no post."""
    rows = np.arange(len(vectors))
    exact = vectors.astype(np.float64)
    likeness = np.maximum(exact @ exact.transpose(0, 2, 1), 0)
    nearest, code = np.zeros(weight.shape), np.full(weight.shape, -1)
    medoid = np.zeros((len(vectors), MAX_TASTES, vectors.shape[2]), np.float32)
    for taste in range(MAX_TASTES):
        gain = np.einsum("nlm,nl->nm", np.maximum(likeness - nearest[:, :, None], 0), weight)
        # Rounded, so that the order of the sums does not choose among equals: the first does, which counts most.
        best = gain.astype(np.float32).argmax(axis=1)
        gains = gain[rows, best] > 1e-6 * weight.sum(axis=1)
        medoid[gains, taste] = vectors[rows, best][gains]
        nearer = gains[:, None] & (likeness[rows, best] > nearest)
        code[nearer] = taste
        nearest = np.where(nearer, likeness[rows, best], nearest)
    share = np.stack([np.where(code == taste, weight, 0).sum(axis=1) for taste in range(MAX_TASTES)], axis=1)
    total = share.sum(axis=1, keepdims=True)
    return medoid, share / np.where(total > 0, total, 1)


def nearest_taste(vectors: np.ndarray, medoid: np.ndarray) -> np.ndarray:
    """The taste that each post is nearest to: [n, m] int64, MAX_TASTES where it is like none.

    Args:
      vectors: [n, m, w] of `likeness_vectors`.
      medoid: [n, MAX_TASTES, w].
    """
    likeness = np.matmul(vectors.astype(np.float64), medoid.transpose(0, 2, 1)).astype(np.float32)
    return np.where(likeness.max(axis=2) > 0, likeness.argmax(axis=2), MAX_TASTES)

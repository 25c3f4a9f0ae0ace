"""Baselines without content. Each returns lists: [num_users, k] int64, places of posts, -1 for none.

Simple methods beat many published ones where they are tuned alike (Ferrari Dacrema, Cremonesi and Jannach 2019, "Are We
Really Making Much Progress?"; Cañamares and Castells 2018 on popularity), so no run should be worse than one of them.
Where a method cannot rank for a user, or has fewer posts than k, popular posts fill the list.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import scipy.linalg
import scipy.sparse

from transforms.evaluate.split_rules import seeded_hash
from transforms.evaluate.test_set import HeldOutSet
from transforms.linalg.selection import top_k
from transforms.metrics.ranking import hits_of

# Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data"; chosen on MovieLens-100K.
EASE_LAMBDA = 300.0
# Neighbors of a post (Sarwar et al. 2001, Deshpande and Karypis 2004: some tens to hundreds).
NEIGHBORS = 100
# Maximum number of scores in memory.
_MAX_SCORES = 1 << 24

# Users first..last -> their scores of some posts: [last - first, m] floats, which the caller may change.
Scores = Callable[[int, int], np.ndarray]


def random(test_set: HeldOutSet, k: int, seed: int = 0) -> np.ndarray:
    """Random posts: each list starts at a random place of one random order, so that all posts are equally likely."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(test_set.posts.eligible))
    starts = rng.integers(max(len(order), 1), size=len(test_set.user_id))
    return first_allowed(order, starts, test_set.excluded, k)


def popular(test_set: HeldOutSet, k: int, popularity: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """The posts that most users liked, or those of the largest `popularity` ([p]).

    Ties, of which counts have many, by a hash of the id: ids often follow age, and their order would count as
    relevance (on tied scores McSherry and Najork 2008, "Computing Information Retrieval Performance Measures
    Efficiently in the Presence of Tied Scores").
    """
    score = test_set.posts.liked if popularity is None else popularity
    eligible = np.flatnonzero(test_set.posts.eligible)
    code = seeded_hash(test_set.posts.post_id.take(pa.array(eligible)), seed)
    order = eligible[np.lexsort((code, -score[eligible]))]
    return first_allowed(order, np.zeros(len(test_set.user_id), np.int64), test_set.excluded, k)


def first_allowed(order: np.ndarray, starts: np.ndarray, excluded: scipy.sparse.csr_matrix, k: int) -> np.ndarray:
    """The first k posts of `order` that are not excluded, from each user's start on and around."""
    lists = np.full((len(starts), k), -1, np.int64)
    sizes = np.diff(excluded.indptr)
    by_size = np.argsort(sizes, kind="stable")
    first = 0
    while first < len(starts):
        # Users with similar numbers of exclusions go together: the window is that of the one with most.
        rows = by_size[first : first + max(1, min(1024, _MAX_SCORES // (k + int(sizes[by_size[first]]) + 1)))]
        window = min(k + int(sizes[rows].max(initial=0)), len(order))
        upcoming = order[(starts[rows, None] + np.arange(window)) % max(len(order), 1)]
        allowed = ~hits_of(upcoming, excluded[rows])
        place = np.cumsum(allowed, axis=1) - 1
        row, column = np.nonzero(allowed & (place < k))
        lists[rows[row], place[row, column]] = upcoming[row, column]
        first += len(rows)
    return lists


def best(test_set: HeldOutSet, scores: Scores, posts: np.ndarray, k: int) -> np.ndarray:
    """The k posts with the highest scores that are eligible and not excluded; ties by id.

    Args:
      scores: gives the scores of `posts`; -inf is never listed.
      posts: [m] int64, ascending.
    """
    lists = np.full((len(test_set.user_id), k), -1, np.int64)
    excluded, ineligible = test_set.excluded[:, posts], ~test_set.posts.eligible[posts]
    for first, last in _user_blocks(len(test_set.user_id), len(posts)):
        made = scores(first, last)
        made[:, ineligible] = -np.inf
        rows = excluded[first:last]
        made[np.repeat(np.arange(last - first), np.diff(rows.indptr)), rows.indices] = -np.inf
        places = top_k(made, k)
        found = np.where(np.isneginf(np.take_along_axis(made, places, axis=1)), -1, posts[places])
        lists[first:last, : found.shape[1]] = found
    return lists


def _user_blocks(num_users: int, num_posts: int) -> Iterator[tuple[int, int]]:
    step = max(1, min(1024, _MAX_SCORES // max(num_posts, 1)))
    for first in range(0, num_users, step):
        yield first, min(first + step, num_users)


def fill(lists: np.ndarray, spare: np.ndarray) -> np.ndarray:
    """The lists, filled up where they are shorter than k with posts of `spare` ([n, k]) that are not in them."""
    short = np.flatnonzero((lists < 0).any(axis=1))
    filled = lists.copy()
    if len(short):
        both = np.concatenate([lists[short], spare[short]], axis=1)
        order = np.argsort(both, axis=1, kind="stable")
        ordered = np.take_along_axis(both, order, axis=1)
        repeated = np.zeros(both.shape, bool)
        np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
        wanted = np.argsort(repeated | (both < 0), axis=1, kind="stable")[:, : lists.shape[1]]
        both[repeated] = -1
        filled[short] = np.take_along_axis(both, wanted, axis=1)
    return filled


def known_posts(test_set: HeldOutSet) -> np.ndarray:
    """Posts that some user in `fit` likes: [m] int64, those that the collaborative baselines can rank."""
    return np.flatnonzero(np.bincount(test_set.fit.indices, minlength=test_set.fit.shape[1]))


def ease(test_set: HeldOutSet, k: int, lam: float = EASE_LAMBDA) -> np.ndarray:
    """EASE: scores X B, B = I - P / diag(P), P = (X^T X + lam I)^-1 (Steck 2019, equation 8).

    Holds two float32 matrices of known posts x known posts while it inverts.
    """
    posts = known_posts(test_set)
    weights = ease_weights(test_set.fit[:, posts], lam)
    history = test_set.history[:, posts]

    def scores(first: int, last: int) -> np.ndarray:
        return np.asarray(history[first:last] @ weights)

    return _of_known(test_set, best(test_set, scores, posts, k))


def ease_weights(matrix: scipy.sparse.csr_matrix, lam: float = EASE_LAMBDA) -> np.ndarray:
    """B of EASE: [m, m] float32, zeros on the diagonal.

    Args:
      matrix: [n, m], users x posts.
    """
    num_posts = matrix.shape[1]
    gram = np.zeros((num_posts, num_posts), np.float32, order="F")
    for start in range(0, num_posts, 1024):
        gram[:, start : start + 1024] = (matrix.T @ matrix[:, start : start + 1024]).toarray()
    gram[np.diag_indices(num_posts)] += lam
    factor, info = scipy.linalg.lapack.spotrf(gram, lower=1, overwrite_a=1)
    inverse, info2 = scipy.linalg.lapack.spotri(factor, lower=1, overwrite_c=1)
    if info or info2:
        raise ValueError(f"the matrix of EASE cannot be inverted (lambda {lam})")
    for start in range(0, num_posts, 1024):  # LAPACK writes the lower triangle only
        stop = min(start + 1024, num_posts)
        square = np.tril(inverse[start:stop, start:stop])
        inverse[start:stop, start:stop] = square + np.tril(square, -1).T
        inverse[start:stop, stop:] = inverse[stop:, start:stop].T
    inverse /= -inverse.diagonal().copy()
    np.fill_diagonal(inverse, 0)
    return np.asarray(inverse)


def item_knn(test_set: HeldOutSet, k: int, num_neighbors: int = NEIGHBORS) -> np.ndarray:
    """Item-kNN: a post's score is the sum of its cosines with those posts of the history that it is a neighbor of.

    The cosine is that of the columns of users x posts (Sarwar et al. 2001).
    """
    posts = known_posts(test_set)
    neighbors = cosine_neighbors(test_set.fit[:, posts], num_neighbors)
    history = test_set.history[:, posts]

    def scores(first: int, last: int) -> np.ndarray:
        made = (history[first:last] @ neighbors).toarray()
        made[made <= 0] = -np.inf
        return made

    return _of_known(test_set, best(test_set, scores, posts, k))


def cosine_neighbors(matrix: scipy.sparse.csr_matrix, num_neighbors: int) -> scipy.sparse.csr_matrix:
    """[m, m] float32: in each row the largest cosines of that column of `matrix` with the others, zeros elsewhere."""
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel())
    unit = (matrix @ scipy.sparse.diags(1 / np.where(norms > 0, norms, 1))).tocsc().astype(np.float32)
    num_posts = matrix.shape[1]
    step = max(1, _MAX_SCORES // max(num_posts, 1))
    made = []
    for start in range(0, num_posts, step):
        block = (unit[:, start : start + step].T @ unit).toarray()
        own = np.arange(len(block))
        block[own, own + start] = 0
        places = top_k(block, num_neighbors)
        values = np.take_along_axis(block, places, axis=1)
        rows = np.repeat(own, places.shape[1])
        made.append(scipy.sparse.csr_matrix((values.ravel(), (rows, places.ravel())), block.shape))
    neighbors = scipy.sparse.vstack(made, format="csr") if made else scipy.sparse.csr_matrix((0, 0), dtype=np.float32)
    neighbors.eliminate_zeros()
    return neighbors


def _of_known(test_set: HeldOutSet, lists: np.ndarray) -> np.ndarray:
    """The lists, without those of users without history, whose scores are all equal."""
    lists[test_set.num_seen == 0] = -1
    return lists

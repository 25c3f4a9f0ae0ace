"""Lower bounds on each query's k-th best score, from a partial scan: no ids, no exact scores."""

import numpy as np

from transforms.linalg import selection


class LowerBounds:
    """Lower bounds on the k largest scores seen so far, for n queries.

    Args:
      cap: maximum number of them per author; None for no limit.
    """

    def __init__(self, num_queries: int, k: int, cap: int | None) -> None:
        self._cap = cap
        self._score = np.full((num_queries, k), -np.inf, np.float32)
        self._author = np.zeros((num_queries, k), np.uint64) if cap is not None else None

    @property
    def kth(self) -> np.ndarray:
        """Lower bound on the k-th best score: [n] float32, -inf where fewer posts have been seen."""
        return self._score.min(axis=1)

    def update(self, rows: np.ndarray, score: np.ndarray, author: np.ndarray) -> None:
        """Updates the bounds with scores of some queries.

        Args:
          rows: [m] int64, each once.
          score: [m, c] float32 lower bounds, of posts that these queries have not seen before; -inf for none.
          author: [m, c] uint64, equal for the posts of one author.
        """
        k = self._score.shape[1]
        score = np.concatenate([self._score[rows], score], axis=1)
        if self._author is None:
            self._score[rows] = np.partition(score, score.shape[1] - k, axis=1)[:, -k:]
            return
        author = np.concatenate([self._author[rows], author], axis=1)
        row = np.repeat(np.arange(len(score)), score.shape[1])
        within = selection.within_cap(row, author.reshape(-1), score.reshape(-1), self._cap or 1)
        score[~within.reshape(score.shape)] = -np.inf
        best = np.argpartition(score, score.shape[1] - k, axis=1)[:, -k:]
        self._score[rows] = np.take_along_axis(score, best, 1)
        self._author[rows] = np.take_along_axis(author, best, 1)


def best_of(scores: np.ndarray, k: int) -> np.ndarray:
    """The columns of the k largest scores of each row, [m, at most k]; all where there are no more."""
    if scores.shape[1] <= k:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    best: np.ndarray = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]
    return best

"""A tile of posts prepared for many queries: scores by float32 products, or upper bounds of them from few numbers
(`transforms.search.upper_bounds`), and exact scores of single pairs.
"""

from collections.abc import Iterator

import numpy as np

from transforms.linalg import selection
from transforms.linalg.vectors import row_norms
from transforms.search import upper_bounds
from transforms.search.catalog import Tile, author_codes
from transforms.search.exclusions import TileExclusions

# Pairs whose vectors are gathered for a product in float64 at a time: they stay in the processor's cache.
_RESCORED_AT_ONCE = 512

# Rows and columns of a matrix of scores.
Places = tuple[np.ndarray, np.ndarray]


class Queries:
    """The queries of a top-K, with the vectors for each method of scoring.

    Args:
      vectors: [n, d] float32.
      capped: True if there is a limit per author.

    Attributes:
      norms: [n] float64.
      bounded: if any, bounds are computed instead of scores.
    """

    def __init__(self, vectors: np.ndarray, capped: bool) -> None:
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        self.capped = capped
        self.norms = row_norms(self.vectors)
        self.bounded: upper_bounds.Bounded | None = None


class PreparedTile:
    """A tile with its precomputed data for scoring by all queries.

    Attributes:
      num_posts: number of posts.
      authors: code of each post's author if there is a cap, [num_posts] int64.
      slack: [n] float64, margin below the k-th score within which a product's post can be in the top k.
      error: [n] float64, error bound of float32 scores against the exact ones.
    """

    def __init__(
        self,
        tile: Tile,
        exclusions: TileExclusions,
        queries: Queries,
        max_norm: float,
        bounded: upper_bounds.Bounded | None = None,
    ) -> None:
        self._vectors, self._exclusions, self._exact_queries = tile.vectors, exclusions, queries.vectors
        self.num_posts = len(tile.post_id)
        self.authors = author_codes(tile.author_id) if queries.capped else np.empty(0, np.int64)
        self.error = selection.score_error(tile.vectors.shape[1], queries.norms, max_norm)
        if queries.bounded is not None and bounded is not None:
            self._queries, self.slack = queries.bounded.vectors, upper_bounds.error(queries.bounded, bounded)
            self._posts = bounded.vectors
            return
        self._queries, self.slack, self._posts = queries.vectors, 2 * self.error, tile.vectors

    def products(self, rows: np.ndarray, columns: slice, step: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first column, scores of the queries) for `step` columns at a time; -inf for excluded pairs.

        Args:
          rows: [m] int64, ascending.
          columns: of the tile.
        """
        queries = self._queries.take(rows, axis=0)
        for part, excluded in self._steps(rows, columns, step):
            scores = queries @ self._posts[part].T
            scores[excluded] = -np.inf
            yield part.start, scores

    def _steps(self, rows: np.ndarray, columns: slice, step: int) -> Iterator[tuple[slice, Places]]:
        """Slices of columns, and their excluded pairs: places in `rows`, places among the columns."""
        excluded_row, excluded_column = self._exclusions.pairs(rows, columns)
        for start in range(columns.start, columns.stop, step):
            stop = min(start + step, columns.stop)
            low, high = np.searchsorted(excluded_column, [start, stop])
            yield slice(start, stop), (excluded_row[low:high], excluded_column[low:high] - start)

    def at_least(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Lower bounds on exact scores, from [m, c] products of these queries: [m, c] float32."""
        return selection.round_down(scores - self.error[rows, None])

    def exact(self, rows: np.ndarray, place: np.ndarray, column: np.ndarray) -> np.ndarray:
        """The scores of pairs in float64, rounded: [m] float32.

        Args:
          rows: of the queries.
          place: [m] int64, places in `rows`.
          column: [m] int64, of the tile.
        """
        if len(place) < len(rows):
            rows, place = rows[place], np.arange(len(place))
        queries = self._exact_queries.take(rows, axis=0).astype(np.float64)
        scores = np.empty(len(place), np.float32)
        for start in range(0, len(place), _RESCORED_AT_ONCE):
            part = slice(start, start + _RESCORED_AT_ONCE)
            posts = self._vectors.take(column[part], axis=0).astype(np.float64)
            scores[part] = np.vecdot(queries.take(place[part], axis=0), posts)
        return scores

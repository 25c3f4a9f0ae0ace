"""Ids, authors and vectors of the posts still in some query's running top-K."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

from transforms.search.catalog import Tile, author_codes, concat_tiles
from transforms.tables import schemas

# Number of posts from which outranked ones are dropped.
_MIN_POSTS_TO_DROP = 1 << 17


class SurvivingPosts:
    """Posts that are, or were, in some query's running top-K; numbers count the scanned posts from 0."""

    def __init__(self, with_vectors: bool = True) -> None:
        self._with_vectors = with_vectors
        self._numbers = np.empty(0, np.int64)
        self._tiles: list[Tile] = []
        self._authors: np.ndarray | None = None
        self._limit = _MIN_POSTS_TO_DROP

    def add(self, tile: Tile, columns: np.ndarray, first: int) -> None:
        """Adds these columns of a tile, whose first post has the number `first`."""
        if not self._with_vectors:
            tile = dataclasses.replace(tile, vectors=tile.vectors[:, :0])
        self._numbers = np.concatenate([self._numbers, columns + first])
        self._tiles.append(tile.take(columns))
        self._authors = None

    def drop_outranked(self, places_in_use: Callable[[], Iterable[np.ndarray]]) -> None:
        """Drops, once there are many posts, those whose rows of `tile()` are no longer in use."""
        if len(self._numbers) <= self._limit:
            return
        alive = np.zeros(len(self._numbers), bool)
        for places in places_in_use():
            alive[places] = True
        rows = np.flatnonzero(alive)
        self._tiles = [self.tile().take(rows)]
        self._numbers = self._numbers[rows]
        self._authors = None
        self._limit = 2 * len(rows) + _MIN_POSTS_TO_DROP

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """The rows of `tile()` with these numbers."""
        if not len(self._numbers) or (span := int(self._numbers[-1] - self._numbers[0]) + 1) > numbers.size:
            return np.searchsorted(self._numbers, numbers)
        # A lookup is five times as fast as a search, and the table no larger than `numbers`.
        places = np.zeros(span, np.int64)
        places[self._numbers - self._numbers[0]] = np.arange(len(self._numbers))
        return places[numbers - self._numbers[0]]

    def ids_of(self, numbers: np.ndarray) -> pa.Array:
        """The post_id of each number: [n] string."""
        ids = pa.chunked_array([tile.post_id for tile in self._tiles], pa.string())
        return ids.take(pa.array(self.places(numbers))).combine_chunks()

    def authors_of(self, numbers: np.ndarray) -> np.ndarray:
        """Number of each post's author: [n] int64."""
        if self._authors is None:
            self._authors = author_codes(pa.concat_arrays([tile.author_id for tile in self._tiles]))
        return self._authors[self.places(numbers)]

    def tile(self) -> Tile:
        """The posts in the order of their numbers."""
        if len(self._tiles) > 1:
            self._tiles = [concat_tiles(self._tiles)]
        strings, times = pa.array([], pa.string()), pa.array([], schemas.TIMESTAMP)
        return self._tiles[0] if self._tiles else Tile(strings, strings, times, np.empty((0, 0), np.float32))

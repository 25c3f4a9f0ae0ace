"""The posts that a running top-K still has to know: ids, authors and vectors, without those that have lost."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

from transforms.search.catalog import Tile, author_codes, concat_tiles
from transforms.tables import schemas

# Posts that are not worth being looked through for losers.
_FEW = 1 << 17


class Kept:
    """The posts that are, or were, among somebody's best; numbers count the scanned posts from 0."""

    def __init__(self, with_vectors: bool = True) -> None:
        self._with_vectors = with_vectors
        self._numbers = np.empty(0, np.int64)
        self._tiles: list[Tile] = []
        self._authors: np.ndarray | None = None
        self._limit = _FEW

    def add(self, tile: Tile, columns: np.ndarray, first: int) -> None:
        """Takes these columns of a tile in, whose first post has the number `first`."""
        if not self._with_vectors:
            tile = dataclasses.replace(tile, vectors=tile.vectors[:, :0])
        self._numbers = np.concatenate([self._numbers, columns + first])
        self._tiles.append(tile.take(columns))
        self._authors = None

    def forget_losers(self, racing: Callable[[], Iterable[np.ndarray]]) -> None:
        """Drops the posts whose rows of `tile()` are not racing any more, now and then."""
        if len(self._numbers) <= self._limit:
            return
        alive = np.zeros(len(self._numbers), bool)
        for places in racing():
            alive[places] = True
        rows = np.flatnonzero(alive)
        self._tiles = [self.tile().take(rows)]
        self._numbers = self._numbers[rows]
        self._authors = None
        self._limit = 2 * len(rows) + _FEW

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """The rows of `tile()` with these numbers."""
        if not len(self._numbers) or (span := int(self._numbers[-1] - self._numbers[0]) + 1) > numbers.size:
            return np.searchsorted(self._numbers, numbers)
        # Looking up is five times as fast as searching, and the table no larger than what is asked for.
        places = np.zeros(span, np.int64)
        places[self._numbers - self._numbers[0]] = np.arange(len(self._numbers))
        return places[numbers - self._numbers[0]]

    def ids_of(self, numbers: np.ndarray) -> pa.Array:
        """The post_id of each number: [n] string."""
        ids = pa.chunked_array([tile.post_id for tile in self._tiles], pa.string())
        return ids.take(pa.array(self.places(numbers))).combine_chunks()

    def authors_of(self, numbers: np.ndarray) -> np.ndarray:
        """A number for the author of each post: [n] int64."""
        if self._authors is None:
            self._authors = author_codes(pa.concat_arrays([tile.author_id for tile in self._tiles]))
        return self._authors[self.places(numbers)]

    def tile(self) -> Tile:
        """The posts in the order of their numbers."""
        if len(self._tiles) > 1:
            self._tiles = [concat_tiles(self._tiles)]
        strings, times = pa.array([], pa.string()), pa.array([], schemas.TIMESTAMP)
        return self._tiles[0] if self._tiles else Tile(strings, strings, times, np.empty((0, 0), np.float32))

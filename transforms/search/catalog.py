"""The catalog of posts as tiles: blocks of candidates, streamed from disk."""

import dataclasses
import functools
from collections.abc import Container, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.search import regions
from transforms.tables import blocks, parquet, schemas
from transforms.tables.files import FileState, join, match

# Decoding 100,000 vectors of 128 numbers takes 0.1 s, so a catalog that is small is decoded once a process.
CACHED_BYTES = 128 << 20
VECTORS = ("embedding", "profile")


@dataclasses.dataclass(frozen=True)
class Tile:
    """Ids, authors and times (null where not known) of some candidates, and vectors [num_posts, d] float32."""

    post_id: pa.Array
    author_id: pa.Array
    created_at: pa.Array
    vectors: np.ndarray

    @staticmethod
    def of(candidates: pa.RecordBatch, column: str = "embedding") -> "Tile":
        """A tile of candidates; with `column="popularity"` its vectors are of one number, the popularity.

        Without a column `created_at`, times are null.
        """
        values = candidates.column(column)
        if pa.types.is_fixed_size_list(values.type):
            vectors = blocks.vectors_to_numpy(values)
        else:
            vectors = values.to_numpy(zero_copy_only=False).astype(np.float32)[:, None]
        has_time = "created_at" in candidates.schema.names
        created_at = candidates.column("created_at") if has_time else pa.nulls(candidates.num_rows, schemas.TIMESTAMP)
        return Tile(candidates.column("post_id"), candidates.column("author_id"), created_at, vectors)

    def take(self, rows: np.ndarray) -> "Tile":
        """The tile of these rows, in this order."""
        index = pa.array(rows)
        return Tile(
            self.post_id.take(index), self.author_id.take(index), self.created_at.take(index), self.vectors[rows]
        )


def concat_tiles(tiles: Sequence[Tile]) -> Tile:
    """One tile of the rows of all tiles, of which there is at least one."""
    post_id, author_id, created_at = (
        pa.concat_arrays([getattr(tile, name) for tile in tiles]) for name in ("post_id", "author_id", "created_at")
    )
    return Tile(post_id, author_id, created_at, np.concatenate([tile.vectors for tile in tiles]))


class Catalog:
    """The candidates in a directory, to be streamed any number of times.

    Args:
      directory: parts of schemas.candidates.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def read(self, tile_rows: int, without: Container[str] = ()) -> Iterator[pa.RecordBatch]:
        """The candidates in blocks of at most `tile_rows`; a small catalog is cached in memory.

        Args:
          without: columns that are not needed: VECTORS are nearly all of the bytes.
        """
        schema = parquet.read_schema(self.directory)
        names = [name for name in schema.names if name not in without]
        width = sum(schema.field(name).type.list_size for name in VECTORS)
        if parquet.count_rows(self.directory) * width * 4 > CACHED_BYTES:
            return parquet.read_blocks(self.directory, tile_rows, names)
        parts = (part.select(names) for part in _cached(_files(self.directory)))
        return (piece for part in parts for piece in blocks.split_rows(part, tile_rows))

    def regions(self) -> regions.Regions | None:
        """Regions of similar candidates; None for a small catalog, which has none."""
        return _regions(self.directory, _files(join(self.directory, regions.REGIONS_DIR)))


def _files(directory: str) -> tuple[FileState, ...]:
    """The files with their sizes and times, so that a rewritten file is not mistaken for the old one."""
    return tuple(match(*parquet.list_files(directory)))


@functools.lru_cache(maxsize=1)
def _regions(directory: str, files: tuple[FileState, ...]) -> regions.Regions | None:
    return regions.read(directory)


@functools.lru_cache(maxsize=1)
def _cached(files: tuple[FileState, ...]) -> list[pa.RecordBatch]:
    return [parquet.read_file(path) for path, _, _ in files]


def author_codes(author_id: pa.Array) -> np.ndarray:
    """Number of each post's author, unique for posts without an author: [n] int64."""
    codes = author_id.dictionary_encode().indices
    unknown = len(author_id) + np.arange(len(author_id))
    return pc.coalesce(codes.cast(pa.int64()), pa.array(unknown)).to_numpy(zero_copy_only=False)

"""The catalog of posts as tiles: blocks of candidates, streamed from disk, and who may not be shown which of them."""

import dataclasses
import datetime
import functools
from collections.abc import Container, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems

from transforms.linalg import runs
from transforms.search import regions
from transforms.tables import blocks, parquet, schemas

# Decoding 100,000 vectors of 128 numbers takes 0.1 s, so a catalog that is small is decoded once a process.
CACHED_BYTES = 128 << 20
VECTORS = ("embedding", "profile")


@dataclasses.dataclass(frozen=True)
class Eligibility:
    """Which posts may be recommended at all, whoever asks.

    With `created_after` a post without a time is left out: nothing says that it is young enough.
    """

    include_sensitive: bool = False
    include_reposts: bool = False
    exclude_replies: bool = False
    created_after: datetime.datetime | None = None
    needs_embedding: bool = True

    def mask(self, candidates: pa.RecordBatch) -> np.ndarray:
        """Whether each candidate is eligible: [n] bool."""
        eligible = np.ones(candidates.num_rows, bool)
        if not self.include_sensitive:
            eligible &= ~_flags(candidates, "sensitive")
        if not self.include_reposts:
            eligible &= ~_flags(candidates, "is_repost")
        if self.exclude_replies:
            eligible &= ~_flags(candidates, "is_reply")
        if self.created_after is not None:
            cut = pa.scalar(self.created_after, candidates.schema.field("created_at").type)
            young = pc.fill_null(pc.greater_equal(candidates.column("created_at"), cut), False)
            eligible &= young.to_numpy(zero_copy_only=False)
        if self.needs_embedding:
            eligible &= blocks.vectors_to_numpy(candidates.column("embedding")).any(axis=1)
        return eligible


def _flags(candidates: pa.RecordBatch, name: str) -> np.ndarray:
    return candidates.column(name).to_numpy(zero_copy_only=False)


@dataclasses.dataclass(frozen=True)
class Tile:
    """Some candidates: their ids, authors and times (null where not known), and vectors [num_posts, d] float32."""

    post_id: pa.Array
    author_id: pa.Array
    created_at: pa.Array
    vectors: np.ndarray

    @staticmethod
    def of(candidates: pa.RecordBatch, column: str = "embedding") -> "Tile":
        """A tile of candidates; with `column="popularity"` its vectors are of one number, the popularity.

        They may lack `created_at`, which is then not known.
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
        """The tile of these rows, in their order."""
        index = pa.array(rows)
        return Tile(
            self.post_id.take(index), self.author_id.take(index), self.created_at.take(index), self.vectors[rows]
        )


def concat_tiles(tiles: Sequence[Tile]) -> Tile:
    """The rows of all tiles, at least one, in one."""
    post_id, author_id, created_at = (
        pa.concat_arrays([getattr(tile, name) for tile in tiles]) for name in ("post_id", "author_id", "created_at")
    )
    return Tile(post_id, author_id, created_at, np.concatenate([tile.vectors for tile in tiles]))


class Catalog:
    """The candidates in a directory, streamed as often as wanted.

    Args:
      directory: parts of schemas.candidates.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def read(self, tile_rows: int, without: Container[str] = ()) -> Iterator[pa.RecordBatch]:
        """The candidates in blocks of at most `tile_rows`; a small catalog is decoded once a process and kept.

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
        """Where alike candidates lie together; None where they do not, which is so in a small catalog."""
        return _regions(self.directory, _files(FileSystems.join(self.directory, regions.REGIONS_DIR)))


def _files(directory: str) -> tuple[tuple[str, int, float], ...]:
    """The files with their sizes and times, so that one that is written anew is not taken for the old one."""
    found = FileSystems.match(parquet.list_files(directory))
    return tuple((f.path, f.size_in_bytes, f.last_updated_in_seconds) for match in found for f in match.metadata_list)


@functools.lru_cache(maxsize=1)
def _regions(directory: str, files: tuple[tuple[str, int, float], ...]) -> regions.Regions | None:
    return regions.read(directory)


@functools.lru_cache(maxsize=1)
def _cached(files: tuple[tuple[str, int, float], ...]) -> list[pa.RecordBatch]:
    return [parquet.read_file(path) for path, _, _ in files]


class Exclusions:
    """Pairs (query, post) and (query, author) that may not be recommended.

    Args:
      post_query: [p] int64, which query each of `post_id` (string) is excluded for.
      author_query: [a] int64, likewise for `author_id`.
    """

    def __init__(
        self, post_query: np.ndarray, post_id: pa.Array, author_query: np.ndarray, author_id: pa.Array
    ) -> None:
        self._by_post = _PairsById(post_query, post_id)
        self._author_query, self._author_code, self._author_ids = _encode_pairs(author_query, author_id)

    @staticmethod
    def none() -> "Exclusions":
        """Nothing is excluded."""
        nothing, strings = np.empty(0, np.int64), pa.array([], pa.string())
        return Exclusions(nothing, strings, nothing, strings)

    def in_tile(self, tile: Tile) -> "TileExclusions":
        """The pairs that meet a tile."""
        author = _positions(tile.author_id, self._author_ids)
        by_author = np.argsort(author, kind="stable")
        starts = np.searchsorted(author[by_author], np.arange(len(self._author_ids) + 1))
        wrote = np.diff(starts)[self._author_code] > 0
        return TileExclusions(
            *self._by_post.met(tile.post_id),
            self._author_query[wrote],
            self._author_code[wrote],
            by_author,
            starts,
        )


@dataclasses.dataclass(frozen=True)
class TileExclusions:
    """Exclusions of one tile; both lists are sorted by query."""

    post_query: np.ndarray
    post_column: np.ndarray
    author_query: np.ndarray
    author_code: np.ndarray
    by_author: np.ndarray
    starts: np.ndarray

    def pairs(self, rows: np.ndarray, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """What is excluded for these queries ([n] int64, ascending) of these columns of the tile.

        Returns ([m] place in `rows`, [m] column of the tile), by column.
        """
        start, stop = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
        low, high = np.searchsorted(self.post_query, [start, stop])
        query, column = self.post_query[low:high], self.post_column[low:high]
        low, high = np.searchsorted(self.author_query, [start, stop])
        codes = self.author_code[low:high]
        if len(codes):
            pair, members = _members(self.starts, codes)
            query = np.concatenate([query, self.author_query[low:high][pair]])
            column = np.concatenate([column, self.by_author[members]])
        inside = (column >= columns.start) & (column < columns.stop)
        query, column = query[inside], column[inside]
        place = np.searchsorted(rows, query)
        asked = rows[place] == query
        place, column = place[asked], column[asked]
        order = np.argsort(column, kind="stable")
        return place[order], column[order]


class _PairsById:
    """Pairs (query, id) in such an order that those of some ids are found without a look at the others.

    Args:
      query: [p] int64.
      ids: [p] string; pairs without one are left out.
    """

    def __init__(self, query: np.ndarray, ids: pa.Array) -> None:
        query, codes, self._ids = _encode_pairs(query, ids)
        by_code = np.argsort(codes, kind="stable")
        self._query = query[by_code]
        self._starts = np.searchsorted(codes[by_code], np.arange(len(self._ids) + 1))
        hashes = blocks.stable_hash(self._ids)
        self._code = np.argsort(hashes)
        self._hash = hashes[self._code]
        # Somebody may have made ids with equal hashes.
        self._distinct = bool((self._hash[1:] != self._hash[:-1]).all())

    def met(self, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of these ids, each once among them: ([m] query, [m] place in `ids`), by query."""
        place, code = self._find(ids)
        found, members = _members(self._starts, code)
        query, place = self._query[members], place[found]
        order = np.argsort(query, kind="stable")
        return query[order], place[order]

    def _find(self, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Which of `ids` have pairs: ([m] place, [m] code)."""
        if not self._distinct or not len(self._hash):
            code = _positions(ids, self._ids)
            place = np.flatnonzero(code >= 0)
            return place, code[place]
        hashes = blocks.stable_hash(ids)
        nearest = np.minimum(np.searchsorted(self._hash, hashes), len(self._hash) - 1)
        place = np.flatnonzero(self._hash[nearest] == hashes)
        code = self._code[nearest[place]]
        same = pc.equal(ids.take(pa.array(place)), self._ids.take(pa.array(code)))
        same = pc.fill_null(same, False).to_numpy(zero_copy_only=False)
        return place[same], code[same]


def _members(starts: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All members of some groups: ([m] place in `codes`, [m] place among the members of all groups).

    Args:
      starts: [num_groups + 1] int64, where each group begins.
    """
    sizes = starts[codes + 1] - starts[codes]
    return np.repeat(np.arange(len(codes)), sizes), np.repeat(starts[codes], sizes) + runs.places_in(sizes)


def _encode_pairs(query: np.ndarray, ids: pa.Array) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """(query sorted, code of each id, the ids in the order of their codes); pairs whose id is null are left out."""
    known = blocks.valid(ids)
    encoded = ids.drop_null().dictionary_encode()
    query = np.asarray(query, np.int64)[known]
    order = np.argsort(query, kind="stable")
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return query[order], codes[order], encoded.dictionary


def _positions(ids: pa.Array, among: pa.Array) -> np.ndarray:
    """Where each id stands in `among`: [n] int64, -1 where it does not (or is null)."""
    found = pc.index_in(ids, value_set=among, skip_nulls=True)
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)

"""History -> the matrix to factorize: users x posts, normalized by their degrees, in tiles on disk.

An entry is strength / (degree of the user ^ 1/4 x degree of the post ^ 1/4), where a degree is the sum of strengths of
a row or column, at least 1. Users and posts with many interactions then count more than others, but less than
proportionally (degree ^ 1/4 on both sides was best or near it on both public data sets).
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.linalg import runs, sparse, tiled_matrix
from transforms.tables import blocks, parquet, shuffle
from transforms.tables.files import join

COLUMNS = ("user_id", "post_id", "weight", "strength", "created_at")
EXPONENT = 0.25
MAX_PARTS = 4096
# Degrees are summed in units of 1 / this, exactly and in any order.
_UNITS = 2.0**20

# Shuffled forms of an entry: to the part of its post, then back to that of its user.
_TO_POST = pa.schema([("post_id", pa.string()), ("user", pa.uint64()), ("strength", pa.float32())])
_TO_USER = pa.schema(
    [
        ("user", pa.uint64()),
        ("part", pa.int32()),
        ("column", pa.int32()),
        ("strength", pa.float32()),
        ("scale", pa.float64()),
    ]
)


class MatrixOutputs(NamedTuple):
    """Outputs of MakeMatrix.

    Attributes:
      written: one element when the matrix is complete; `tiled_matrix.open_matrix` opens it.
      counts: ("collaborative.users" | "posts" | "entries", n), and entries dropped by the caps
        ("collaborative.left_out.hot_users" | "hot_posts", n).
    """

    written: beam.PCollection[None]
    counts: beam.PCollection[tuple[str, int]]


@dataclasses.dataclass
class MakeMatrix(beam.PTransform):
    """(part, block of COLUMNS of the history) -> MatrixOutputs; a user's rows have to be in one part.

    Entries are the pairs with positive weight and strength, with two caps that bound the cost of a user and of a post:
    the `max_user_posts` newest posts of a user, and the `max_post_users` users of a post with the smallest hashes of
    their ids. Posts are numbered by id and users by hash of their id, within parts that only depend on `num_parts`.

    Example:
        rows = root | parquet.ReadParts("run/history", COLUMNS)
        rows | MakeMatrix("scratch/matrix", choose_num_parts(num_rows))

    Attributes:
      directory: output directory of the matrix, and of posts/ for `read_posts`.
      num_parts: parts of users, and as many of posts (see `choose_num_parts`).
    """

    directory: str
    num_parts: int
    max_user_posts: int = 1000
    max_post_users: int = 100_000

    def __post_init__(self) -> None:
        shuffle.check_num_parts(self.num_parts)
        for name in ("max_user_posts", "max_post_users"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def expand(self, history: beam.PCollection[tuple[int, pa.RecordBatch]]) -> MatrixOutputs:
        liked: Any = history | "SelectLiked" >> beam.FlatMap(_select_liked, self.max_user_posts).with_outputs(
            "counts", main="entries"
        )
        numbered: Any = (
            liked.entries
            | "GroupByPost" >> shuffle.GroupBlocks("post_id", self.num_parts)
            | "NumberPosts"
            >> beam.FlatMap(_number_posts, self.max_post_users).with_outputs("counts", "posts", main="entries")
        )
        rows = (
            numbered.entries
            | "GroupByUser" >> shuffle.GroupBlocks("user", self.num_parts)
            | "WriteRows" >> beam.Map(_write_rows, self.directory, self.num_parts)
        )
        posts_directory = join(self.directory, "posts")
        posts = numbered.posts | "CountPosts" >> beam.Map(lambda numbered: (numbered[0], numbered[1].num_rows))
        files = numbered.posts | "WritePosts" >> parquet.WriteParts(posts_directory, tiled_matrix.POSTS)
        written = (
            history.pipeline
            | "Matrix" >> beam.Create([self.directory])
            | "WriteSizes" >> beam.Map(_write_sizes, *map(beam.pvalue.AsList, (rows, posts, files)))
        )
        sizes = (
            rows | "CountRows" >> beam.FlatMap(_count_rows),
            posts | "CountColumns" >> beam.Map(lambda size: ("collaborative.posts", size[1])),
        )
        return MatrixOutputs(written, (liked.counts, numbered.counts, *sizes) | "AllCounts" >> beam.Flatten())


def choose_num_parts(num_entries: int) -> int:
    """Parts of users and of posts for a matrix: of one million entries each, up to eight million for large matrices.

    It depends on the data alone, so that sums are taken in the same order whatever the options of a run.

    Raises:
      ValueError: more than MAX_PARTS: one worker gathers a square matrix of each, and each reads all of the other side.
    """
    entries_per_part = min(max(num_entries / 256, 1e6), 8e6)
    num_parts = max(1, int(np.ceil(num_entries / entries_per_part)))
    if num_parts > MAX_PARTS:
        limit = int(MAX_PARTS * 8e6)
        raise ValueError(
            f"the history has {num_entries:,} rows, and the limit for factors is {limit:,}: run on fewer days"
        )
    return num_parts


def degrees(code: np.ndarray, strength: np.ndarray, number: int) -> np.ndarray:
    """Sum of strengths by code: [number] float64."""
    return np.bincount(code, np.rint(strength.astype(np.float64) * _UNITS), number) / _UNITS


def scales(degree: np.ndarray) -> np.ndarray:
    """Degree-normalization factors of rows or columns: [n] float64, 1 at most."""
    return np.maximum(degree, 1.0) ** -EXPONENT


def liked_entries(history: pa.RecordBatch, max_user_posts: int) -> tuple[pa.RecordBatch, int]:
    """(entries of users whose whole history is in the block, number of entries dropped by the cap)."""
    positive = pc.and_(pc.greater(history.column("weight"), 0), pc.greater(history.column("strength"), 0))
    liked = history.filter(positive)
    user, users = sparse.sorted_codes(liked.column("user_id"))
    selected = np.arange(len(user))
    if np.bincount(user, minlength=1).max() > max_user_posts:
        order = _newest_first(user, liked)
        user_sorted = user[order]
        selected = np.sort(order[runs.places_in_runs(user_sorted) < max_user_posts])
    keys = distinct_keys(blocks.stable_hash(users))
    rows = pa.array(selected)
    arrays = [liked.column("post_id").take(rows), pa.array(keys[user[selected]]), liked.column("strength").take(rows)]
    return pa.RecordBatch.from_arrays(arrays, schema=_TO_POST), len(user) - len(selected)


def distinct_keys(hashes: np.ndarray) -> np.ndarray:
    """The hashes, with duplicates incremented until all are distinct: [n] uint64.

    Users with the same hash are in the same part of the history, so that a key identifies one user everywhere.
    """
    keys = hashes.copy()
    while len(np.unique(keys)) < len(keys):
        order = np.argsort(keys, kind="stable")
        again = order[1:][keys[order][1:] == keys[order][:-1]]
        keys[again] += np.uint64(1)
    return keys


def _newest_first(user: np.ndarray, liked: pa.RecordBatch) -> np.ndarray:
    table = pa.table({"user": user, "time": liked.column("created_at"), "post_id": liked.column("post_id")})
    keys = [("user", "ascending"), ("time", "descending"), ("post_id", "ascending")]
    order: np.ndarray = pc.sort_indices(table, sort_keys=keys).to_numpy()
    return order.astype(np.int64)


def number_posts(entries: pa.RecordBatch, part: int, max_post_users: int) -> tuple[pa.RecordBatch, pa.RecordBatch, int]:
    """(entries by column number, block of POSTS, number of entries dropped by the cap), given all of some posts."""
    column, posts = sparse.sorted_codes(entries.column("post_id"))
    user, strength = entries.column("user").to_numpy(), entries.column("strength").to_numpy()
    num_entries = len(column)
    if np.bincount(column, minlength=1).max() > max_post_users:
        order = np.lexsort((blocks.splitmix(user), column))
        order = order[runs.places_in_runs(column[order]) < max_post_users]
        column, user, strength = column[order], user[order], strength[order]
    degree = degrees(column, strength, len(posts))
    arrays = [
        pa.array(user),
        pa.array(np.full(len(column), part, np.int32)),
        pa.array(column.astype(np.int32)),
        pa.array(strength),
        pa.array(scales(degree)[column]),
    ]
    found = pa.RecordBatch.from_arrays([posts, pa.array(degree)], schema=tiled_matrix.POSTS)
    return pa.RecordBatch.from_arrays(arrays, schema=_TO_USER), found, num_entries - len(column)


def number_users(entries: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray, int]:
    """(part of columns [n], entries [n] of tiled_matrix.ENTRY, number of users), in the order of `write_rows`."""
    user, part, column, strength, scale = (entries.column(name).to_numpy() for name in _TO_USER.names)
    users, row = np.unique(user, return_inverse=True)
    value = strength * scale * scales(degrees(row, strength, len(users)))[row]
    width = int(column.max(initial=0)) + 1
    order = np.argsort((part.astype(np.int64) * len(users) + row) * width + column, kind="stable")
    found = np.empty(len(order), tiled_matrix.ENTRY)
    found["row"], found["column"], found["value"] = row[order], column[order], value[order]
    return part[order], found, len(users)


def _select_liked(numbered: tuple[int, pa.RecordBatch], max_user_posts: int) -> Iterator[Any]:
    entries, num_dropped = liked_entries(numbered[1], max_user_posts)
    yield entries
    yield beam.pvalue.TaggedOutput("counts", ("collaborative.left_out.hot_users", num_dropped))


def _number_posts(numbered: tuple[int, pa.RecordBatch], max_post_users: int) -> Iterator[Any]:
    part, received = numbered
    entries, posts, num_dropped = number_posts(received, part, max_post_users)
    yield entries
    yield beam.pvalue.TaggedOutput("posts", (part, posts))
    yield beam.pvalue.TaggedOutput("counts", ("collaborative.left_out.hot_posts", num_dropped))


def _write_rows(numbered: tuple[int, pa.RecordBatch], directory: str, num_parts: int) -> tuple[int, int, int]:
    part, received = numbered
    column_part, entries, num_users = number_users(received)
    tiled_matrix.write_rows(directory, part, num_parts, column_part, entries)
    return part, num_users, len(entries)


def _count_rows(size: tuple[int, int, int]) -> Iterator[tuple[str, int]]:
    _, num_users, num_entries = size
    yield "collaborative.users", num_users
    yield "collaborative.entries", num_entries


def _write_sizes(
    directory: str, rows: list[tuple[int, int, int]], posts: list[tuple[int, int]], files: list[tuple[str, int]]
) -> None:
    del files  # waited for
    tiled_matrix.write_sizes(directory, {part: number for part, number, _ in rows}, dict(posts))

"""History -> the matrix that is factorized: users x posts, scaled by their degrees, in tiles on disk.

An entry is strength / (degree of the user ^ 1/4 x degree of the post ^ 1/4), where a degree is the sum of strengths of
a row or column, at least 1. A user of a thousand posts and a post of a million users then say more than those of few,
but not in proportion (DESIGN: degree ^ 1/4 on both sides was best or near it on both public data sets).
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
# A degree is summed in these units, which add up exactly in whatever order.
_UNITS = 2.0**20

# An entry on its way to the part of its post, then back to that of its user.
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
      written: one element when all is on disk; `tiled_matrix.open_matrix` then opens it.
      counts: ("collaborative.users" | "posts" | "entries", n), and of the rows of the history that are liked
        ("collaborative.left_out.hot_users" | "hot_posts", n).
    """

    written: beam.PCollection[None]
    counts: beam.PCollection[tuple[str, int]]


@dataclasses.dataclass
class MakeMatrix(beam.PTransform):
    """(part, block of COLUMNS of the history) -> MatrixOutputs; a user's rows have to be in one part.

    What is liked (weight and strength above 0) enters, with two caps, so that no user and no post costs more than it
    can teach: of a user's posts the `max_user_posts` newest, of a post's users the `max_post_users` whose ids have the
    smallest hash. Posts are numbered by id and users by the hash of theirs, within parts that only depend on
    `num_parts`.

    Attributes:
      directory: where the matrix is written, and posts/: what `read_posts` reads.
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
        liked: Any = history | "KeepLiked" >> beam.FlatMap(_keep_liked, self.max_user_posts).with_outputs(
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
    """Parts of users and of posts for a matrix: of a million entries each, of up to eight where there are many.

    It depends on the data alone, so that sums are taken in the same order whatever the options of a run.

    Raises:
      ValueError: there would be more than MAX_PARTS, of each of which one worker gathers a square matrix, and in each
        of which the other side is read.
    """
    entries_per_part = min(max(num_entries / 256, 1e6), 8e6)
    num_parts = max(1, int(np.ceil(num_entries / entries_per_part)))
    if num_parts > MAX_PARTS:
        limit = int(MAX_PARTS * 8e6)
        raise ValueError(
            f"the history has {num_entries:,} rows, and factors are made of at most {limit:,}: run on fewer days"
        )
    return num_parts


def degrees(code: np.ndarray, strength: np.ndarray, number: int) -> np.ndarray:
    """The sum of strengths by code: [number] float64."""
    return np.bincount(code, np.rint(strength.astype(np.float64) * _UNITS), number) / _UNITS


def scales(degree: np.ndarray) -> np.ndarray:
    """Degree-normalization factors of rows or columns: [n] float64, 1 at most."""
    return np.maximum(degree, 1.0) ** -EXPONENT


def liked_entries(history: pa.RecordBatch, max_user_posts: int) -> tuple[pa.RecordBatch, int]:
    """(the entries of users whose history is all in the block, how many more the cap leaves out)."""
    positive = pc.and_(pc.greater(history.column("weight"), 0), pc.greater(history.column("strength"), 0))
    liked = history.filter(positive)
    user, users = sparse.sorted_codes(liked.column("user_id"))
    kept = np.arange(len(user))
    if np.bincount(user, minlength=1).max() > max_user_posts:
        order = _newest_first(user, liked)
        user_sorted = user[order]
        kept = np.sort(order[runs.places_in_runs(user_sorted) < max_user_posts])
    keys = distinct_keys(blocks.stable_hash(users))
    rows = pa.array(kept)
    arrays = [liked.column("post_id").take(rows), pa.array(keys[user[kept]]), liked.column("strength").take(rows)]
    return pa.RecordBatch.from_arrays(arrays, schema=_TO_POST), len(user) - len(kept)


def distinct_keys(hashes: np.ndarray) -> np.ndarray:
    """The same hashes, of which those that are there before are counted up until no two are equal: [n] uint64.

    All users of one hash are in one part of the history, so that a key stands for one user everywhere.
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
    """(entries with numbers for posts, block of POSTS, how many the cap leaves out), given all entries of the posts."""
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
    """(part of columns [n], entries [n] of tiled_matrix.ENTRY, how many users), sorted as `write_rows` wants them."""
    user, part, column, strength, scale = (entries.column(name).to_numpy() for name in _TO_USER.names)
    users, row = np.unique(user, return_inverse=True)
    value = strength * scale * scales(degrees(row, strength, len(users)))[row]
    width = int(column.max(initial=0)) + 1
    order = np.argsort((part.astype(np.int64) * len(users) + row) * width + column, kind="stable")
    found = np.empty(len(order), tiled_matrix.ENTRY)
    found["row"], found["column"], found["value"] = row[order], column[order], value[order]
    return part[order], found, len(users)


def _keep_liked(numbered: tuple[int, pa.RecordBatch], max_user_posts: int) -> Iterator[Any]:
    entries, num_left_out = liked_entries(numbered[1], max_user_posts)
    yield entries
    yield beam.pvalue.TaggedOutput("counts", ("collaborative.left_out.hot_users", num_left_out))


def _number_posts(numbered: tuple[int, pa.RecordBatch], max_post_users: int) -> Iterator[Any]:
    part, met = numbered
    entries, posts, num_left_out = number_posts(met, part, max_post_users)
    yield entries
    yield beam.pvalue.TaggedOutput("posts", (part, posts))
    yield beam.pvalue.TaggedOutput("counts", ("collaborative.left_out.hot_posts", num_left_out))


def _write_rows(numbered: tuple[int, pa.RecordBatch], directory: str, num_parts: int) -> tuple[int, int, int]:
    part, met = numbered
    column_part, entries, num_users = number_users(met)
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

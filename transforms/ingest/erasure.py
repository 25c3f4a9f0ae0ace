"""Erasure of users and posts: their rows, references to them, and tables that still have their ids.

A user's rows are the user, the user's interactions and the posts with that `author_id`; a post's rows are the post and
the interactions with it. Content of others remains, without the id: a reply or repost of an erased post has an empty
`reply_to` or `repost_of`, and an erased user is removed from `blocked_authors`.
"""

import csv
import dataclasses
import functools
import gzip
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.ingest import input_files
from transforms.tables import files, parquet

# The driver and every worker have all ids in memory.
MAX_IDS = 1_000_000
USER, POST = "user_id", "post_id"
# table -> column whose id makes the row one to erase -> kind of id
OWNERS: Mapping[str, Mapping[str, str]] = {
    "posts": {"post_id": POST, "author_id": USER},
    "interactions": {"user_id": USER, "post_id": POST},
    "users": {"user_id": USER},
}
REFERENCES = ("reply_to", "repost_of")
# Columns of any table of a run that have ids -> kind of id, None if it can be either.
ID_COLUMNS: Mapping[str, str | None] = {
    "user_id": USER,
    "author_id": USER,
    "blocked_authors": USER,
    "post_id": POST,
    "neighbor_id": POST,
    "because_post_id": POST,
    "reply_to": POST,
    "repost_of": POST,
    "id": None,
}


@dataclasses.dataclass(frozen=True)
class Ids:
    """Ids to erase, each array sorted: [n] string."""

    users: pa.Array
    posts: pa.Array

    def of(self, kind: str | None) -> pa.Array:
        """Ids of users (USER), posts (POST) or both (None)."""
        if kind is None:
            return pa.concat_arrays([self.users, self.posts])
        return self.users if kind == USER else self.posts


@dataclasses.dataclass(frozen=True)
class Erasure:
    """A file of ids; the workers read it themselves.

    Attributes:
      path: on any file system that the workers can access.
      digest: of the ids in it.
    """

    path: str
    digest: str


def find(path: str) -> Erasure:
    """Erasure of the ids in a file.

    A .jsonl, .csv or .parquet file (.gz too) has the columns `user_id`, `post_id` or both; any other is text with an
    id a line, each that of a user and of a post.

    Raises:
      ValueError: it cannot be read, has no id, or more than MAX_IDS.
    """
    return Erasure(path, _digest(_read(path)))


@functools.lru_cache(maxsize=4)
def ids_of(erasure: Erasure) -> Ids:
    """The ids of an erasure.

    Raises:
      ValueError: the file was changed since `find`.
    """
    found = _read(erasure.path)
    if _digest(found) != erasure.digest:
        raise ValueError(f"{erasure.path} was changed while the run read it")
    return found


def _digest(ids: Ids) -> str:
    text = json.dumps([ids.users.to_pylist(), ids.posts.to_pylist()])
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: str) -> Ids:
    found: dict[str, set[str]] = {USER: set(), POST: set()}
    try:
        for kind, value in _pairs(path):
            if value not in (None, ""):
                found[kind].add(str(value).strip())
            if len(found[USER]) + len(found[POST]) > MAX_IDS:
                raise ValueError(f"{path} has more than {MAX_IDS:,} ids; erase in several runs")
    except (OSError, UnicodeError, pa.ArrowException, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__})") from None
    if not any(found.values()):
        raise ValueError(f"{path} has no ids")
    return Ids(*(pa.array(sorted(found[kind] - {""}), pa.string()) for kind in (USER, POST)))


def _pairs(path: str) -> Iterator[tuple[str, Any]]:
    """(USER or POST, id) of everything in the file."""
    kind = input_files.ENDINGS.get(os.path.splitext(path.removesuffix(input_files.GZIP))[1], "")
    if kind == input_files.PARQUET:
        with parquet.open_file(path) as source:
            for block in pq.ParquetFile(source).iter_batches():
                yield from _fields(path, block.to_pylist())
        return
    with files.open_read(path) as file:
        plain = gzip.GzipFile(fileobj=file) if path.endswith(input_files.GZIP) else file
        lines = io.TextIOWrapper(plain, "utf-8-sig")
        if kind == input_files.CSV:
            yield from _fields(path, csv.DictReader(lines))
        elif kind:
            yield from _fields(
                path, (_object(path, number, line) for number, line in enumerate(lines, 1) if line.strip())
            )
        else:
            yield from ((each, line.strip()) for line in lines for each in (USER, POST))


def _object(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: line {number} is not a JSON object")
    return value


def _fields(path: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(rows, 1):
        named = [(kind, row[kind]) for kind in (USER, POST) if row.get(kind) not in (None, "")]
        if not named or any(not isinstance(value, str | int) for _, value in named):
            raise ValueError(f"{path}: row {number} has neither a {USER} nor a {POST}")
        yield from named


def is_erased(ids: Ids, table: str, rows: pa.RecordBatch) -> np.ndarray:
    """Mask of an input table's rows that belong to an erased user or post: [n] bool."""
    erased = np.zeros(rows.num_rows, bool)
    for column, kind in OWNERS[table].items():
        erased |= _is_in(rows.column(column), ids.of(kind))
    return erased


def drop_references(ids: Ids, rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows without references to erased posts and users."""
    for name in REFERENCES:
        if name in rows.schema.names and (gone := _is_in(rows.column(name), ids.posts)).any():
            rows = _set(rows, name, pc.if_else(pa.array(gone), "", rows.column(name)))
    name = "blocked_authors"
    if name in rows.schema.names and _is_in(rows.column(name).flatten(), ids.users).any():
        users = set(ids.users.to_pylist())
        lists = rows.column(name).to_pylist()
        left = [None if each is None else [author for author in each if author not in users] for each in lists]
        rows = _set(rows, name, pa.array(left, rows.column(name).type))
    return rows


def _set(rows: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    index = rows.schema.get_field_index(name)
    return rows.set_column(index, rows.schema.field(index), column)


def _is_in(column: pa.Array, ids: pa.Array) -> np.ndarray:
    found: np.ndarray = pc.is_in(column, value_set=ids).to_numpy(zero_copy_only=False)
    return found


@dataclasses.dataclass
class FindErasedIds(beam.PTransform):
    """Parquet files, as (name, path) -> (name, 1) for each that still has an erased id in a column of ID_COLUMNS.

    Example:
      >>> with open("erase.txt", "w") as file:
      ...     _ = file.write("ann")
      >>> pq.write_table(pa.table({"user_id": ["ann", "ben"]}), "users.parquet")
      >>> with beam.Pipeline("FnApiRunner") as root:
      ...     paths = root | beam.Create([("users", "users.parquet")])
      ...     _ = paths | FindErasedIds(find("erase.txt")) | beam.Map(print)
      ('users', 1)
    """

    erasure: Erasure

    def expand(self, paths: beam.PCollection[tuple[str, str]]) -> beam.PCollection[tuple[str, int]]:
        return paths | "SpreadFiles" >> beam.Reshuffle() | "FindIds" >> beam.FlatMap(_find_ids, erasure=self.erasure)


def _find_ids(named: tuple[str, str], erasure: Erasure) -> Iterator[tuple[str, int]]:
    name, path = named
    if has_ids(path, ids_of(erasure)):
        yield name, 1


def has_ids(path: str, ids: Ids) -> bool:
    """True if a Parquet file has one of the ids in a column of ID_COLUMNS; it is read a row group at a time."""
    with parquet.open_file(path) as source:
        schema = pq.ParquetFile(source).schema_arrow
        names = [name for name in schema.names if name in ID_COLUMNS]
        file = pq.ParquetFile(
            source, read_dictionary=[name for name in names if schema.field(name).type == pa.string()]
        )
        for group in range(file.num_row_groups if names else 0):
            for name in names:
                column = file.read_row_group(group, columns=[name], use_threads=False).column(name)
                if _has(column, ids.of(ID_COLUMNS[name])):
                    return True
    return False


def _has(column: pa.ChunkedArray, ids: pa.Array) -> bool:
    for chunk in column.chunks:
        values = chunk.flatten() if pa.types.is_list(chunk.type) else chunk
        values = values.dictionary if pa.types.is_dictionary(values.type) else values
        if _is_in(values, ids).any():
            return True
    return False


def parquet_files(directory: str) -> list[str]:
    """All Parquet files below a directory of any file system."""
    return sorted(f"{directory}/{name}" for name in files.list_sizes(directory) if name.endswith(".parquet"))

"""Rows in the types that a reader found -> the canonical form of their table, each row validated."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.ingest import list_columns, scalar_columns, timestamps
from transforms.ingest.erasure import Erasure
from transforms.ingest.row_errors import RowErrors
from transforms.ingest.scalar_columns import Converted
from transforms.tables import blocks, schemas
from transforms.tables.rejects import AFTER_RUN_DATE

SEQUENCE = "_sequence"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the input.

    Attributes:
      name: as counts and directories call it.
      schema: of its canonical form.
      roles: column -> what it holds, a key of ROLES (and of python_values.ROLES).
      key: the column by whose hash the table is divided into parts.
      same: rows with equal values in these columns are duplicates.
      order: how the rows of a part are sorted.
      until: microseconds since 1970, UTC: rows from then on are after the run's date and rejected; None: no limit.
      erasure: the users and posts whose rows are rejected; None: no erasure.
    """

    name: str
    schema: pa.Schema
    roles: Mapping[str, str]
    key: str
    same: tuple[str, ...]
    order: tuple[str, ...]
    until: int | None = None
    erasure: Erasure | None = None

    def rank(self, column: str) -> int:
        """The rank of a column's errors; that of a missing id, or of a time after `until`, is one more."""
        return 2 * list(self.roles).index(column)


POSTS = Table(
    "posts",
    schemas.POSTS,
    {
        "post_id": "key",
        "author_id": "id",
        "created_at": "time",
        "text": "text",
        "lang": "word",
        "hashtags": "tags",
        "media": "media",
        "reply_to": "id",
        "repost_of": "id",
        "sensitive": "flag",
        "labels": "phrases",
        "vectors": "vectors",
    },
    key="post_id",
    same=("post_id",),
    order=("created_at", "post_id"),
)
INTERACTIONS = Table(
    "interactions",
    schemas.INTERACTIONS,
    {"user_id": "key", "post_id": "key", "kind": "word", "created_at": "time", "value": "number"},
    key="user_id",
    same=("user_id", "post_id", "kind", "created_at"),
    order=("created_at", "user_id", "post_id", "kind"),
)
USERS = Table(
    "users",
    schemas.USERS,
    {"user_id": "key", "interests": "phrases", "bio": "text", "lang": "word", "blocked_authors": "ids"},
    key="user_id",
    same=("user_id",),
    order=("user_id",),
)
TABLES = {table.name: table for table in (POSTS, INTERACTIONS, USERS)}


@dataclasses.dataclass(frozen=True)
class Role:
    """Content of a column: its converter, and the reject code and message (after the column's name) of bad values."""

    convert: Callable[[pa.Array], Converted]
    code: str
    message: str


_BAD_ID = f"is no string or whole number of at most {scalar_columns.MAX_ID_BYTES} bytes without control characters"
_BAD_TIME = "is no time of the years 1 to 9999 in ISO 8601 or epoch seconds, ms, us or ns"
_BAD_MEDIA = "is no list of objects with the strings kind, uri and alt"
_BAD_VECTORS = "has a vector that is no list of finite numbers"
ROLES: Mapping[str, Role] = {
    "key": Role(scalar_columns.to_ids, "id_invalid", _BAD_ID),
    "id": Role(scalar_columns.to_ids, "id_invalid", _BAD_ID),
    "ids": Role(list_columns.to_id_lists, "id_invalid", "is no list of ids"),
    "time": Role(timestamps.to_timestamps, "time_invalid", _BAD_TIME),
    "text": Role(scalar_columns.to_strings, "field_invalid", "is no string"),
    "word": Role(scalar_columns.to_words, "field_invalid", "is no string"),
    "flag": Role(scalar_columns.to_flags, "field_invalid", "is neither true nor false"),
    "number": Role(scalar_columns.to_numbers, "field_invalid", "is no finite number"),
    "tags": Role(list_columns.to_tags, "field_invalid", "is no list of strings"),
    "phrases": Role(list_columns.to_phrases, "field_invalid", "is no list of strings"),
    "media": Role(list_columns.to_media, "field_invalid", _BAD_MEDIA),
    "vectors": Role(list_columns.to_vectors, "vector_invalid", _BAD_VECTORS),
}


def reject_values(table: Table, name: str, bad: np.ndarray, errors: RowErrors) -> None:
    """Rejects the rows whose value in the column `name` is not what its role asks for: `bad`, [n] bool."""
    role = ROLES[table.roles[name]]
    errors.reject(bad, role.code, f"{name} {role.message}", table.rank(name))


def canonical(table: Table, found: Mapping[str, pa.Array], errors: RowErrors) -> pa.RecordBatch:
    """A block in the table's schema with all rows, also the bad ones: filter it by `errors.good`.

    Args:
      table: which table it is.
      found: columns by name, in any type; those that are missing become null.
      errors: of the rows; those found here are added.
    """
    num_rows = errors.num_rows
    made: dict[str, pa.Array] = {}
    for name, role in table.roles.items():
        column = scalar_columns.plain(found[name]) if name in found else pa.nulls(num_rows)
        if pa.types.is_null(column.type):
            column = column.cast(pa.bool_() if role == "flag" else table.schema.field(name).type)
            made[name] = pc.fill_null(column, False) if role == "flag" else column
        else:
            made[name], bad = ROLES[role].convert(column)
            reject_values(table, name, bad, errors)
        rank = table.rank(name)
        if role == "key":
            errors.reject(~blocks.valid(made[name]), "id_missing", f"{name} is missing or empty", rank + 1)
        if role == "time" and table.until is not None:
            later = pc.fill_null(pc.greater_equal(made[name].cast(pa.int64()), table.until), False)
            message = f"{name} is later than the end of the run's date"
            errors.reject(later.to_numpy(zero_copy_only=False), AFTER_RUN_DATE, message, rank + 1)
    if "kind" in made:
        made["kind"] = scalar_columns.to_kinds(made["kind"], blocks.valid(made["value"]))[0]
    return _block(table.schema, made)


def _block(schema: pa.Schema, made: Mapping[str, pa.Array]) -> pa.RecordBatch:
    """Not the schema itself: until they are filtered, rows without their id are still there."""
    fields = [field.with_nullable(True) for field in schema]
    arrays = [
        made[field.name] if made[field.name].type == field.type else made[field.name].cast(field.type)
        for field in fields
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

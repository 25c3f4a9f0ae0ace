"""Rows in whatever types a reader found -> the canonical form of their table, each row validated.

All three formats end here, and so do the lines that are read one at a time.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.ingest import list_columns, scalar_columns, timestamps
from transforms.ingest.erasure import Erasure
from transforms.ingest.row_errors import RowErrors
from transforms.tables import blocks, schemas
from transforms.tables.rejects import AFTER_RUN_DATE

SEQUENCE = "_sequence"
Converted = tuple[pa.Array, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the input.

    Attributes:
      name: as counts and directories call it.
      schema: of its canonical form.
      roles: column -> what it holds, a key of CONVERTERS (and of values.ROLES).
      key: the column by whose hash the table is divided into parts.
      same: rows equal in these columns are duplicates.
      order: how the rows of a part are sorted.
      until: microseconds since 1970, UTC: rows from then on lie in the run's future and are rejects; None: none do.
      erasure: the users and posts whose rows are rejects; None: nobody's.
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
        """The rank of a column's faults; that of a missing id, or of a time after `until`, is one more."""
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
    {"user_id": "key", "post_id": "key", "kind": "kind", "created_at": "time", "value": "number"},
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

CONVERTERS: Mapping[str, Callable[[pa.Array], Converted]] = {
    "key": scalar_columns.to_ids,
    "id": scalar_columns.to_ids,
    "time": timestamps.to_timestamps,
    "text": scalar_columns.to_strings,
    "word": scalar_columns.to_words,
    "kind": scalar_columns.to_words,
    "flag": scalar_columns.to_flags,
    "number": scalar_columns.to_numbers,
    "tags": list_columns.to_tags,
    "phrases": list_columns.to_phrases,
    "ids": list_columns.to_id_lists,
    "media": list_columns.to_media,
    "vectors": list_columns.to_vectors,
}

# role -> (code, what is wrong with the column that the message names)
FAULTS: Mapping[str, tuple[str, str]] = {
    "key": (
        "id_invalid",
        f"is no string or whole number of at most {scalar_columns.MAX_ID_BYTES} bytes without control characters",
    ),
    "id": (
        "id_invalid",
        f"is no string or whole number of at most {scalar_columns.MAX_ID_BYTES} bytes without control characters",
    ),
    "ids": ("id_invalid", "is no list of ids"),
    "time": ("time_invalid", "is no time of the years 1 to 9999 in ISO 8601 or epoch seconds, ms, us or ns"),
    "text": ("field_invalid", "is no string"),
    "word": ("field_invalid", "is no string"),
    "kind": ("field_invalid", "is no string"),
    "flag": ("field_invalid", "is neither true nor false"),
    "number": ("field_invalid", "is no finite number"),
    "tags": ("field_invalid", "is no list of strings"),
    "phrases": ("field_invalid", "is no list of strings"),
    "media": ("field_invalid", "is no list of objects with the strings kind, uri and alt"),
    "vectors": ("vector_invalid", "has a vector that is no list of finite numbers"),
}


def fault(role: str, name: str) -> tuple[str, str]:
    """The reject code and message where the column `name` is not what its role asks for."""
    code, what = FAULTS[role]
    return code, f"{name} {what}"


def canonical(table: Table, found: Mapping[str, pa.Array], verdicts: RowErrors) -> pa.RecordBatch:
    """A block in the table's schema with all rows, the bad ones too: filter it by `verdicts.good`.

    Args:
      table: which table it is.
      found: columns by name, in any type; those that are missing become null.
      verdicts: gets the rows' faults; existing faults are preserved.
    """
    num_rows = len(verdicts.faults)
    made: dict[str, pa.Array] = {}
    for name, role in table.roles.items():
        column = scalar_columns.plain(found[name]) if name in found else pa.nulls(num_rows)
        if pa.types.is_null(column.type):
            column = column.cast(pa.bool_() if role == "flag" else table.schema.field(name).type)
            bad = np.zeros(num_rows, bool)
            made[name] = pc.fill_null(column, False) if role == "flag" else column
        else:
            made[name], bad = CONVERTERS[role](column)
        rank = table.rank(name)
        verdicts.reject(bad, *fault(role, name), rank)
        if role == "key":
            verdicts.reject(~blocks.valid(made[name]), "id_missing", f"{name} is missing or empty", rank + 1)
        if role == "time" and table.until is not None:
            later = pc.fill_null(pc.greater_equal(made[name].cast(pa.int64()), table.until), False)
            message = f"{name} is later than the end of the run's date"
            verdicts.reject(later.to_numpy(zero_copy_only=False), AFTER_RUN_DATE, message, rank + 1)
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

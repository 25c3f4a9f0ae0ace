import datetime
from typing import Any

import pyarrow as pa
import pytest

from transforms.ingest import canonical
from transforms.ingest.deduplication import dedupe


def _block(table: canonical.Table, rows: list[dict[str, Any]]) -> pa.RecordBatch:
    fields = [*(field.with_nullable(True) for field in table.schema), pa.field(canonical.SEQUENCE, pa.int64())]
    defaults = {"sensitive": False}
    numbered = [{**defaults, canonical.SEQUENCE: n, **row} for n, row in enumerate(rows)]
    return pa.RecordBatch.from_pylist(numbered, schema=pa.schema(fields))


def _day(day: int | None) -> datetime.datetime | None:
    return None if day is None else datetime.datetime(2024, 1, day, tzinfo=datetime.UTC)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5, 6), (6, 5, 4, 3, 2, 1, 0), (3, 0, 6, 2, 5, 1, 4)])
def test_the_newest_post_stays_and_of_equally_new_the_last_read(order: tuple[int, ...]) -> None:
    rows: list[dict[str, Any]] = [
        {"post_id": "a", "created_at": _day(2), "text": "newest", "_sequence": 0},
        {"post_id": "a", "created_at": _day(1), "text": "older", "_sequence": 1},
        {"post_id": "a", "created_at": None, "text": "undated", "_sequence": 2},
        {"post_id": "b", "created_at": _day(1), "text": "first", "_sequence": 3},
        {"post_id": "b", "created_at": _day(1), "text": "second", "_sequence": 4},
        {"post_id": "c", "created_at": None, "text": "only", "_sequence": 5},
        {"post_id": "B", "created_at": _day(1), "text": "other id", "_sequence": 6},
    ]
    found = dedupe(canonical.POSTS, _block(canonical.POSTS, [rows[index] for index in order]))
    # Sorted by time, nulls last, then id.
    assert found.column("text").to_pylist() == ["other id", "second", "newest", "only"]
    assert found.schema == canonical.POSTS.schema


def test_interactions_equal_in_all_but_value_are_one() -> None:
    def row(user: str, post: str, kind: str, day: int | None, value: float) -> dict[str, Any]:
        return {"user_id": user, "post_id": post, "kind": kind, "created_at": _day(day), "value": value}

    rows = [
        row("u", "p", "like", 1, 1),
        row("u", "p", "like", 1, 2),
        row("u", "p", "like", 2, 3),
        row("u", "p", "view", 1, 4),
    ]
    rows += [row("u", "q", "like", None, 5), row("u", "q", "like", None, 6), row("v", "p", "like", 1, 7)]
    found = dedupe(canonical.INTERACTIONS, _block(canonical.INTERACTIONS, rows))
    assert found.column("value").to_pylist() == [2, 4, 7, 3, 6]


def test_the_last_user_read_stays() -> None:
    rows = [{"user_id": "b", "bio": "1"}, {"user_id": "a", "bio": "2"}, {"user_id": "b", "bio": "3"}]
    found = dedupe(canonical.USERS, _block(canonical.USERS, rows))
    assert found.column("bio").to_pylist() == ["2", "3"]


def test_no_rows() -> None:
    assert dedupe(canonical.POSTS, _block(canonical.POSTS, [])).num_rows == 0

import dataclasses
from typing import Any

import pyarrow as pa
import pytest

from transforms.tables import schemas
from transforms.validate import table_specs
from transforms.validate.table_specs import TABLE_SPECS
from transforms.validate.table_statistics import TableStatistics
from transforms.validate.violations import violations

ROWS = {"posts": 3, "users": 2, "interactions": 5, "features": 3, "item_embeddings": 3, "user_embeddings": 2}
COUNTS = {f"{name}.written": ROWS[name] for name in ("posts", "users", "interactions")}


def tables(**changes: dict[str, Any]) -> dict[str, TableStatistics]:
    made = {name: TableStatistics(rows=rows, key_sum=TABLE_SPECS[name].key == "post_id") for name, rows in ROWS.items()}
    for name in ("item_embeddings", "user_embeddings"):
        made[name].widths = {"embedding": {8}}
    return {name: dataclasses.replace(statistics, **changes.get(name, {})) for name, statistics in made.items()}


def test_tables_as_they_should_be_violate_nothing() -> None:
    assert not list(violations(tables(), ROWS, COUNTS))


@pytest.mark.parametrize(
    ("changes", "rows", "counts", "says"),
    [
        ({"posts": {"faults": {"a fault": 1200}}}, {}, {}, ["posts: a fault in 1,200 rows"]),
        ({"features": {"key_sum": 7}}, {}, {}, ["features: its post_ids are not those of posts"]),
        (
            {"features": {"rows": 2}},
            {},
            {},
            ["features: 2 rows, but its stage wrote 3", "features: its post_ids are not those of posts"],
        ),
        ({}, {"users": 4}, {}, ["users: 2 rows, but its stage wrote 4"]),
        ({}, {}, {"users.written": 4}, ["users: 2 rows, but ingest counted 4"]),
        ({"item_embeddings": {"widths": {"embedding": {8, 9}}}}, {}, {}, 2),
        (
            {"user_embeddings": {"widths": {"embedding": {9}}}},
            {},
            {},
            ["item_embeddings, user_embeddings, candidates: column embedding has vectors of 8 and 9 numbers"],
        ),
    ],
)
def test_what_does_not_hold_is_said(
    changes: dict[str, Any], rows: dict[str, int], counts: dict[str, int], says: list[str] | int
) -> None:
    found = list(violations(tables(**changes), ROWS | rows, COUNTS | counts))
    assert (len(found) if isinstance(says, int) else found) == says


def test_every_schema_is_equal_to_itself_and_differences_are_named() -> None:
    found = schemas.item_embeddings(4)
    assert table_specs.difference(found, TABLE_SPECS["item_embeddings"].schema(found)) == ""
    features = schemas.features({"image": 2, "clip": 3})
    assert table_specs.difference(features, TABLE_SPECS["features"].schema(features)) == ""
    empty = pa.schema([])
    for name, specification in TABLE_SPECS.items():
        assert table_specs.difference(empty, specification.schema(empty)).endswith("is missing"), name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.remove(1), "column embedding is missing"),
        (
            lambda s: s.set(1, pa.field("embedding", pa.list_(pa.float32()), nullable=False)),
            "column embedding is list<item: float>, not fixed_size_list<item: float>[0]",
        ),
        (lambda s: s.set(0, pa.field("post_id", pa.string())), "column post_id may be null"),
        (lambda s: s.set(3, pa.field("author_id", pa.string(), nullable=False)), "column author_id may not be null"),
        (lambda s: s.append(pa.field("more", pa.int8())), "column more is not declared"),
        (lambda s: pa.schema([s.field(1), s.field(0), *list(s)[2:]]), "columns are in the order embedding, post_id"),
    ],
)
def test_another_schema_is_told(change: Any, says: str) -> None:
    found = change(schemas.item_embeddings(4))
    assert table_specs.difference(found, TABLE_SPECS["item_embeddings"].schema(found)).startswith(says)

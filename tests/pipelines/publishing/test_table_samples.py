"""Rows of tables for the summary: the right ones, without reading the whole table."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.publishing import table_samples
from transforms.tables import parquet, schemas
from transforms.tables.parquet import FileLayout

USERS, K = 60, 3
SMALL = FileLayout(12, "zstd")  # a row group has the lists of four users


@pytest.fixture
def directory(tmp_path: Path) -> str:
    lists = [
        {"user_id": f"u{user:02d}", "rank": rank, "post_id": f"p{user:02d}", "score": 1.0, "reason": "popular"}
        for user in range(USERS)
        for rank in range(1, K + 1)
    ]
    block = pa.RecordBatch.from_pylist(lists, schema=schemas.RECOMMENDATIONS)
    parquet.write_file(str(tmp_path / "recommendations/part-00000.parquet"), block, block.schema, SMALL)
    for part in range(2):
        posts = [{"post_id": f"p{n:02d}", "text": f"text {n}", "sensitive": False} for n in range(part, USERS, 2)]
        block = pa.RecordBatch.from_pylist(posts, schema=schemas.POSTS)
        parquet.write_file(str(tmp_path / f"posts/part-0000{part}.parquet"), block, block.schema, SMALL)
    return str(tmp_path)


@pytest.mark.parametrize(("number", "users"), [(2, ["u00", "u02"]), (3, ["u00", "u01", "u02"]), (9, range(4))])
def test_examples_are_first_recommendations_of_users_spread_over_a_row_group(
    directory: str, number: int, users: list[str]
) -> None:
    found = table_samples.first_recommendations(directory, number)
    assert all(row["rank"] == 1 for row in found)
    assert [row["user_id"] for row in found] == [f"u{user:02d}" if isinstance(user, int) else user for user in users]


def test_an_empty_or_missing_table_has_no_examples(tmp_path: Path) -> None:
    assert table_samples.first_recommendations(str(tmp_path), 5) == []
    parquet.write_empty(str(tmp_path / "recommendations"), schemas.RECOMMENDATIONS)
    assert table_samples.first_recommendations(str(tmp_path), 5) == []


def test_only_row_groups_with_a_wanted_post_are_read(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[pa.RecordBatch] = []
    real = parquet.read_row_groups

    def watch(*args: object) -> object:
        for start, block in real(*args):  # type: ignore[arg-type]
            read.append(block)
            yield start, block

    monkeypatch.setattr(parquet, "read_row_groups", watch)
    assert table_samples.texts(directory, {"p02", "p59", "gone"}) == {"p02": "text 2", "p59": "text 59"}
    assert len(read) == 2
    assert table_samples.texts(directory, {"p02"}) == {"p02": "text 2"}
    assert len(read) == 3


def test_a_text_may_be_null(directory: str) -> None:
    posts = [{"post_id": "p00", "text": None, "sensitive": False}]
    block = pa.RecordBatch.from_pylist(posts, schema=schemas.POSTS)
    parquet.write_file(f"{directory}/posts/part-00000.parquet", block, block.schema)
    assert table_samples.texts(directory, {"p00"}) == {"p00": None}

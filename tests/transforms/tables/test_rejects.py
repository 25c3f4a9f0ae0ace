"""Rejects on disk: sorted within a source; in several parts, no part has to hold all of a source."""

from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import pytest

from transforms.tables import blocks, parquet, rejects

NewPipeline = Callable[[], beam.Pipeline]


@pytest.mark.parametrize("num_parts", [1, 5])
def test_rows_of_one_source_are_spread_and_sorted(
    new_pipeline: NewPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_parts: int
) -> None:
    monkeypatch.setattr(rejects, "STRETCH_ROWS", 10)
    lines = rejects.reject_block(source=["a"] * 300, stage="ingest", code="row_malformed", line=list(range(300, 0, -1)))
    record = [str(number) for number in range(100)]
    records = rejects.reject_block(source=["b"] * 100, stage="ingest", code="id_missing", record=record)
    media = rejects.reject_block(
        source=["c", "c"], stage="extract", code="media_missing", record=["media[1]", "media[0]"], id=["p", "p"]
    )
    with new_pipeline() as root:
        rows = root | beam.Create([*blocks.split_rows(lines, 7), records, media])
        _ = rows | rejects.WriteRejects(str(tmp_path), num_parts)
    parts = [parquet.read_file(path).to_pylist() for path in parquet.list_files(str(tmp_path))]
    found = [(row["source"], row["line"] or 0, row["record"] or "") for part in parts for row in part]
    assert sorted(found) == sorted(
        [("a", line, "") for line in range(1, 301)]
        + [("b", 0, number) for number in record]
        + [("c", 0, "media[0]"), ("c", 0, "media[1]")]
    )
    assert len(parts) == num_parts and max(map(len, parts)) < (403 if num_parts == 1 else 200)
    for part in parts:
        keys = [(row["source"], row["line"] or 0, row["record"] or "") for row in part]
        assert keys == sorted(keys, key=lambda key: (key[0], key[1], int(key[2]) if key[2].isdigit() else 0, key[2]))


def test_parts_follow_the_rows_that_may_be_rejected() -> None:
    assert [rejects.choose_num_parts(rows) for rows in (0, 2_000_000, 2_000_001)] == [1, 1, 2]

import datetime
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.tables import blocks, counts, parquet, rejects, schemas

NewPipeline = Callable[[], beam.Pipeline]
SCHEMA = pa.schema(
    [
        pa.field("post_id", pa.string(), nullable=False),
        pa.field("v", schemas.vector(2), nullable=False),
        schemas.optional_vector("image", 1),
    ]
)


def _block(*ids: str) -> pa.RecordBatch:
    rows = [{"post_id": i, "v": [1.0, 2.0], "image": [3.0] if i != "b" else None} for i in ids]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def test_written_parts_are_read_back(tmp_path: Path, new_pipeline: NewPipeline) -> None:
    directory = str(tmp_path / "t")
    with new_pipeline() as pipeline:
        _ = (
            pipeline
            | beam.Create([(0, _block("a", "b")), (1, _block()), (7, _block("c"))])
            | parquet.WriteParts(directory, SCHEMA)
        )
    assert [Path(p).name for p in parquet.list_files(directory)] == ["part-00000.parquet", "part-00007.parquet"]
    assert not [p for p in Path(directory).iterdir() if p.name.startswith("_")]
    assert parquet.count_rows(directory) == 3
    assert parquet.read_schema(directory).equals(SCHEMA)
    read = pq.read_table(directory)
    assert read.schema.equals(SCHEMA, check_metadata=False) and read["image"].to_pylist() == [[3], None, [3]]
    assert schemas.widths_of(parquet.read_schema(directory)) == {"image": 1}

    copy = str(tmp_path / "copy")
    with new_pipeline() as pipeline:
        _ = pipeline | parquet.ReadParts(directory) | parquet.WriteParts(copy, SCHEMA)
    assert pq.read_table(copy).equals(read)


def test_a_table_without_rows_still_tells_its_schema(tmp_path: Path, new_pipeline: NewPipeline) -> None:
    with new_pipeline() as pipeline:
        _ = pipeline | beam.Create([(0, _block())]) | parquet.WriteParts(str(tmp_path / "t"), SCHEMA)
    assert pq.read_table(tmp_path / "t").schema.equals(SCHEMA)
    assert parquet.count_rows(str(tmp_path / "t")) == 0


def test_a_null_where_none_may_be_is_an_error(tmp_path: Path) -> None:
    block = pa.RecordBatch.from_pydict({"post_id": pa.array([None], pa.string())})
    with pytest.raises(ValueError, match="1 nulls in column post_id"):
        parquet.write_file(str(tmp_path / "x.parquet"), block, SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_missing_column_is_named(tmp_path: Path) -> None:
    parquet.write_file(str(tmp_path / "x.parquet"), _block("a"), SCHEMA)
    with pytest.raises(ValueError, match="has no column w"):
        parquet.read_file(str(tmp_path / "x.parquet"), ["post_id", "w"])


def test_counts_are_summed_and_come_back(tmp_path: Path, new_pipeline: NewPipeline) -> None:
    with new_pipeline() as pipeline:
        _ = (
            pipeline
            | beam.Create([("posts.read", 2), ("posts.read", 3), ("posts.rejected", 1)])
            | counts.WriteCounts(str(tmp_path))
        )
    assert counts.read_counts(str(tmp_path)) == {"posts.read": 5, "posts.rejected": 1}
    assert counts.read_counts(str(tmp_path / "none")) == {}


def test_rejects_take_only_codes_of_the_list() -> None:
    block = rejects.reject_block(source=["f"], stage="ingest", code="id_missing", line=[3])
    assert block.to_pylist() == [
        {"source": "f", "line": 3, "record": None, "id": None, "stage": "ingest", "code": "id_missing", "message": None}
    ]
    with pytest.raises(ValueError, match="unknown reject code 'oops'"):
        rejects.reject_block(source=["f"], stage="ingest", code="oops")


def test_read_blocks_streams_in_order(tmp_path: Path) -> None:
    parquet.write_file(str(tmp_path / "a.parquet"), _block("a", "b", "c"), SCHEMA)
    parquet.write_file(str(tmp_path / "b.parquet"), _block("d"), SCHEMA)
    found = [block.column("post_id").to_pylist() for block in parquet.read_blocks(str(tmp_path), 2, ["post_id"])]
    assert found == [["a", "b"], ["c"], ["d"]]
    assert blocks.concat(list(parquet.read_blocks(str(tmp_path), 2))).num_rows == 4


def test_only_row_groups_with_rows_that_are_wanted_are_read(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    parquet.write_file(path, _block(*"abcdefg"), SCHEMA, layout=parquet.FileLayout(2, "zstd"))

    def read(*ranges: tuple[int, int]) -> list[tuple[int, list[str]]]:
        starts, stops = np.array(ranges, np.int64).reshape(-1, 2).T
        groups = parquet.read_row_groups(path, starts, stops, ["post_id"])
        return [(start, block.column("post_id").to_pylist()) for start, block in groups]

    assert read() == []
    assert read((2, 3)) == [(2, ["c", "d"])]
    assert read((1, 3), (6, 7)) == [(0, ["a", "b"]), (2, ["c", "d"]), (6, ["g"])]
    assert read((0, 7)) == [(0, ["a", "b"]), (2, ["c", "d"]), (4, ["e", "f"]), (6, ["g"])]


def test_the_newest_time_is_told_by_the_footers(tmp_path: Path) -> None:
    schema = pa.schema(
        [("tags", pa.list_(pa.struct([("a", pa.string()), ("b", pa.string())]))), ("t", schemas.TIMESTAMP)]
    )
    times = [[None, datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC)], [None], [datetime.datetime(2026, 1, 1)], []]
    for part, column in enumerate(times):
        block = pa.RecordBatch.from_pylist([{"t": time} for time in column], schema)
        parquet.write_file(parquet.part_path(str(tmp_path), part), block, schema)
    assert parquet.newest(str(tmp_path), "t") == times[0][1]
    parquet.write_file(parquet.part_path(str(tmp_path / "none"), 0), pa.RecordBatch.from_pylist([{}], schema), schema)
    assert parquet.newest(str(tmp_path / "none"), "t") is None

from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that

from transforms.tables import blocks, schemas, shuffle, spill

NewPipeline = Callable[[], beam.Pipeline]


def _events(num_rows: int, seed: int = 0) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    return pa.RecordBatch.from_pydict(
        {"user_id": [f"u{i}" for i in rng.integers(0, 40, num_rows)], "n": np.arange(num_rows)}
    )


@pytest.mark.parametrize(("block_rows", "num_parts"), [(7, 1), (100, 5), (1000, 13)])
def test_grouped_rows_equal_an_in_memory_group_by(new_pipeline: NewPipeline, block_rows: int, num_parts: int) -> None:
    events = _events(1000)
    expected = pa.table(events).group_by("user_id").aggregate([("n", "sum")]).to_pydict()

    def check(parts: list[tuple[int, pa.RecordBatch]]) -> None:
        assert len({part for part, _ in parts}) == len(parts) <= num_parts
        sums = {}
        for _, block in parts:
            grouped = pa.table(block).group_by("user_id").aggregate([("n", "sum")]).to_pydict()
            assert not sums.keys() & set(grouped["user_id"])
            sums |= dict(zip(grouped["user_id"], grouped["n_sum"], strict=True))
        assert sums == dict(zip(expected["user_id"], expected["n_sum"], strict=True))

    with new_pipeline() as pipeline:
        parts = (
            pipeline
            | beam.Create([0])
            | beam.FlatMap(lambda _: list(blocks.split_rows(events, block_rows)))
            | shuffle.GroupBlocks("user_id", num_parts)
        )
        assert_that(parts, check, label="SameAsGroupBy")


def test_cogroup_joins_and_fills_what_is_missing(new_pipeline: NewPipeline) -> None:
    users = pa.RecordBatch.from_pylist([{"user_id": "a"}, {"user_id": "z"}], schema=schemas.USERS)
    events = pa.RecordBatch.from_pylist([{"user_id": "a", "post_id": "p"}] * 3, schema=schemas.INTERACTIONS)

    def check(parts: list[tuple[int, dict[str, pa.RecordBatch]]]) -> None:
        found = {
            user: block["events"].num_rows
            for _, block in parts
            for user in block["users"].column("user_id").to_pylist()
        }
        assert found == {"a": 3, "z": 0}
        assert all(block["events"].schema.equals(schemas.INTERACTIONS) for _, block in parts)

    with new_pipeline() as pipeline:
        collections = {
            "users": pipeline | "Users" >> beam.Create([users]),
            "events": pipeline | "Events" >> beam.Create([events]),
        }
        parts = collections | shuffle.CoGroupBlocks(
            keys={"users": "user_id", "events": "user_id"},
            schemas={"users": schemas.USERS, "events": schemas.INTERACTIONS},
            num_parts=64,
        )
        assert_that(parts, check, label="Joined")


def test_num_parts_is_checked_when_built() -> None:
    with pytest.raises(ValueError, match="num_parts must be at least 1, got 0"):
        shuffle.GroupBlocks("user_id", 0)


def test_a_part_that_no_worker_holds_is_told(new_pipeline: NewPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    block = pa.RecordBatch.from_pydict({"post_id": ["hot"] * 100 + ["x"], "user_id": ["u"] * 101})
    data = blocks.to_ipc(block)
    piece = "", data, "", 0, len(data)
    monkeypatch.setattr(shuffle, "MAX_PART_BYTES", 4 * len(data))
    assert shuffle._concat((0, [piece] * 4), "post_id")[1].num_rows == 404
    with pytest.raises(shuffle.PartTooLarge, match="a part of the shuffle by post_id has more than 6"):
        shuffle._concat((0, [piece] * 5), "post_id")
    with pytest.raises(shuffle.PartTooLarge, match="the shuffle by post_id"), new_pipeline() as pipeline:
        rows = pipeline | beam.Create([block] * 5)
        keys, kinds = dict.fromkeys("ab", "post_id"), dict.fromkeys("ab", block.schema)
        _ = {"a": rows, "b": rows} | shuffle.CoGroupBlocks(keys, kinds, 2)


def test_what_is_spilled_comes_back(new_pipeline: NewPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "MIN_BYTES", 5_000)
    rng = np.random.default_rng(0)
    large, small = (
        pa.RecordBatch.from_pydict(
            {"user_id": [f"u{n}" for n in rng.integers(0, 99, size)], "number": rng.random(size)}
        )
        for size in (1_000, 50)
    )

    whole = blocks.concat([large, small, large.slice(10, 500)])
    expected = {
        part: blocks.sort(rows, "user_id", "number").to_pylist() for part, rows in blocks.partition(whole, "user_id", 7)
    }

    def check(parts: list[tuple[int, pa.RecordBatch]]) -> None:
        assert {part: blocks.sort(rows, "user_id", "number").to_pylist() for part, rows in parts} == expected

    for directory, num_files in (("", 0), (str(tmp_path), 2)):  # a file for each large block
        with spill.into(directory), new_pipeline() as pipeline:
            rows = pipeline | beam.Create([large, small, large.slice(10, 500)])
            assert_that(rows | shuffle.GroupBlocks("user_id", 7), check)
        assert len(list(tmp_path.iterdir())) == num_files
    assert spill.directory() == ""


def test_a_spilled_piece_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    block = pa.RecordBatch.from_pydict({"id": ["a"]})
    ((_, piece),) = spill.pieces("", [(0, block)], str(tmp_path))
    assert piece.read() == block
    (tmp_path / piece.path).unlink()
    with pytest.raises(OSError, match="No such file"):
        piece.read()


def test_columns_of_few_strings_are_compact_and_come_back() -> None:
    num_rows = 1000
    block = pa.RecordBatch.from_arrays(
        [
            pa.array([f"u{n}" for n in range(num_rows)]),
            pa.array(["like", None, ""] * 333 + ["view"]),
            # Few values at first, too many in all.
            pa.array(["en"] * 300 + [f"x{n}" for n in range(num_rows - 300)]),
        ],
        schema=pa.schema([pa.field("id", pa.string(), nullable=False), ("kind", pa.string()), ("lang", pa.string())]),
    )
    compact = shuffle.compact(block)
    assert [pa.types.is_dictionary(kind) for kind in compact.schema.types] == [False, True, False]
    assert len(blocks.to_ipc(compact)) < len(blocks.to_ipc(block))
    for rows in (slice(0, num_rows), slice(5, 12)):
        sent = blocks.from_ipc(blocks.to_ipc(compact[rows]))
        assert shuffle.expand(sent).equals(block[rows]) and shuffle.expand(sent).schema == block.schema


def test_pieces_with_other_dictionaries_go_together(new_pipeline: NewPipeline) -> None:
    kinds = [["like"] * 5, ["view"] * 5, [f"k{n}" for n in range(300)], [None] * 3]

    def check(parts: list[tuple[int, pa.RecordBatch]]) -> None:
        found = [kind for _, block in parts for kind in block.column("kind").to_pylist()]
        assert sorted(found, key=str) == sorted((kind for some in kinds for kind in some), key=str)

    with new_pipeline() as pipeline:
        sent = [
            pa.RecordBatch.from_arrays([pa.array(["a"] * len(some)), pa.array(some, pa.string())], ["id", "kind"])
            for some in kinds
        ]
        parts = pipeline | beam.Create(sent) | shuffle.GroupBlocks("id", 3)
        assert_that(parts, check, label="AllKinds")

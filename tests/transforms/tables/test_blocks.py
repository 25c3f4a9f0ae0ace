import numpy as np
import pyarrow as pa
import pytest

from transforms.tables import blocks


def test_a_slice_is_sent_without_its_parent() -> None:
    whole = pa.RecordBatch.from_pydict({"x": pa.array(np.arange(100_000))})
    data = blocks.to_ipc(whole.slice(10, 5))
    assert len(data) < 2_000
    assert blocks.from_ipc(data).column(0).to_pylist() == [10, 11, 12, 13, 14]


def test_coder_round_trip_of_every_kind_of_column() -> None:
    block = pa.RecordBatch.from_pylist(
        [{"a": "é", "b": [1.0, 2.0], "c": {"d": None}}, {"a": None, "b": None, "c": {"d": 3}}]
    )
    coder = blocks.BlockCoder()
    assert coder.decode(coder.encode(block)).equals(block)


def test_stable_hash_is_the_documented_function() -> None:
    """The same sum worked out in Python's whole numbers, so that the hash can never change unseen."""

    def expected(value: bytes) -> int:
        mask = 2**64 - 1
        x = len(value)
        for index, byte in enumerate(value):
            x += (byte + 1) * pow(6364136223846793005, len(value) - index, 2**64)
        x = (x + 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    # Long strings, and short ones in a column with long ones, are hashed in another way.
    for values in (["", "a", "b", "ab", "ba", "日本語", "x" * 300], ["b", "", "y" * 600, "ab"], ["z" * 512], [""]):
        assert blocks.stable_hash(pa.array(values)).tolist() == [expected(v.encode()) for v in values]


def test_stable_hash_of_slices_dictionaries_and_nulls() -> None:
    column = pa.array(["u1", "u2", None, "", "u3"])
    whole = blocks.stable_hash(column)
    assert blocks.stable_hash(column.slice(1, 3)).tolist() == whole[1:4].tolist()
    assert blocks.stable_hash(column.dictionary_encode()).tolist() == whole.tolist()
    assert whole[2] == whole[3]
    assert blocks.stable_hash(column, seed=1)[0] != whole[0]
    assert blocks.stable_hash(pa.array([], pa.string())).tolist() == []


def test_hash_spreads_consecutive_ids_evenly() -> None:
    ids = pa.array([f"user-{i:07d}" for i in range(64_000)])
    parts = np.bincount((blocks.stable_hash(ids) % np.uint64(64)).astype(int), minlength=64)
    assert parts.min() > 850 and parts.max() < 1_150


@pytest.mark.parametrize("num_parts", [1, 3, 100])
def test_partition_keeps_every_row_once_and_keys_together(num_parts: int) -> None:
    rng = np.random.default_rng(0)
    keys = [f"k{i}" for i in rng.integers(0, 50, 500)]
    block = pa.RecordBatch.from_pydict({"key": keys, "row": np.arange(500)})
    seen: dict[str, int] = {}
    rows = []
    for part, piece in blocks.partition(block, "key", num_parts):
        assert piece.num_rows > 0 and 0 <= part < num_parts
        assert piece.column("row").to_pylist() == sorted(piece.column("row").to_pylist())
        for key in piece.column("key").to_pylist():
            assert seen.setdefault(key, part) == part
        rows += piece.column("row").to_pylist()
    assert sorted(rows) == list(range(500))


def test_numbers_are_the_parts_themselves() -> None:
    block = pa.RecordBatch.from_pydict({"part": pa.array([2, 0, 2, 5], pa.int32()), "row": [0, 1, 2, 3]})
    found = {part: piece.column("row").to_pylist() for part, piece in blocks.partition(block, "part", 6)}
    assert found == {0: [1], 2: [0, 2], 5: [3]}


def test_run_starts_takes_null_for_a_value() -> None:
    first = pa.array(["a", "a", None, None, "b"])
    second = pa.array([1, 1, 1, 2, 2])
    assert blocks.run_starts(first).tolist() == [0, 2, 4]
    assert blocks.run_starts(first, second).tolist() == [0, 2, 3, 4]
    assert blocks.run_starts(pa.array([], pa.string())).tolist() == []


def test_vectors_there_and_back_in_slices() -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    column = blocks.numpy_to_vectors(values)
    assert column.type == pa.list_(pa.float32(), 3)
    assert blocks.vectors_to_numpy(column.slice(1, 2)).tolist() == [[3, 4, 5], [6, 7, 8]]


def test_optional_vectors_there_and_back_with_nulls() -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    present = np.array([True, False, True, False])
    column = blocks.numpy_to_optional(values, present)
    assert column.to_pylist() == [[0, 1, 2], None, [6, 7, 8], None]
    back, there = blocks.optional_to_numpy(column.slice(1, 3), 3)
    assert back.tolist() == [[0, 0, 0], [6, 7, 8], [0, 0, 0]] and there.tolist() == [False, True, False]
    with pytest.raises(ValueError, match="expected 4"):
        blocks.optional_to_numpy(column, 4)
    assert blocks.optional_to_numpy(column.slice(1, 1), 3)[0].tolist() == [[0, 0, 0]]


def test_rebatch_gives_blocks_of_the_size_asked_for() -> None:
    pieces = [pa.RecordBatch.from_pydict({"x": list(range(a, b))}) for a, b in [(0, 3), (3, 3), (3, 10), (10, 11)]]
    pieces = [p if p.num_rows else pieces[0].slice(0, 0) for p in pieces]
    sizes = [b.num_rows for b in blocks.rebatch(pieces, 4)]
    assert sizes == [4, 4, 3]
    assert [x for b in blocks.rebatch(pieces, 4) for x in b.column(0).to_pylist()] == list(range(11))

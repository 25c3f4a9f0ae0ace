from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.transforms.ingest.ingest_fixtures import places, read_file


def _read(tmp_path: Path, table: pa.Table, name: str = "posts", **kwargs: Any) -> Any:
    path = tmp_path / "p.parquet"
    pq.write_table(table, path, **kwargs)
    return read_file(path, name)


def test_types_that_writers_use(tmp_path: Path) -> None:
    table = pa.table(
        {
            "post_id": pa.array([1, 2, 3]),
            "author_id": pa.array([7.0, None, 8.0]),
            "created_at": pa.array([1_700_000_000_000_000_000, None, 0], pa.timestamp("ns")),
            "text": pa.array(["a", "b", "a"]).dictionary_encode(),
            "lang": pa.array([b"en", None, b"de"]),
            "hashtags": pa.array([["a"], None, ["b", "b"]], pa.large_list(pa.large_string())),
            "media": pa.array([[{"uri": "u", "kind": "Image", "w": 1}], None, []]),
            "vectors": pa.array([{"v": [1.0, 2.0]}, None, {"v": None}]),
            "sensitive": pa.array([1, 0, None], pa.int8()),
            "labels": pa.nulls(3),
            "likes": pa.array([1, None, 3]),
            "geo": pa.array([{"lat": 1.0}, None, None]),
        }
    )
    rows, rejects, counts = _read(tmp_path, table, row_group_size=2)
    assert rejects == [] and [row["_sequence"] for row in rows] == [1, 2, 3]
    assert [row["author_id"] for row in rows] == ["7", None, "8"]
    assert rows[0]["created_at"].isoformat() == "2023-11-14T22:13:20+00:00" and rows[1]["created_at"] is None
    assert [row["lang"] for row in rows] == ["en", None, "de"] and [row["hashtags"] for row in rows] == [
        ["a"],
        None,
        ["b"],
    ]
    assert rows[0]["media"] == [{"kind": "image", "uri": "u", "alt": None}] and rows[2]["media"] is None
    assert rows[0]["vectors"] == [("v", [1.0, 2.0])] and rows[2]["vectors"] is None
    assert [row["sensitive"] for row in rows] == [True, False, False]
    assert counts["posts.fields_ignored.likes"] == 2 and counts["posts.read"] == 3


def test_bad_rows_are_rejected_with_their_record(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 4, pa.array(["a", "\u00e9", "c", "d"]).buffers())
    data = bytearray(broken.buffers()[2].to_pybytes())
    data[1] = 0xFF
    buffers = [None, broken.buffers()[1], pa.py_buffer(bytes(data))]
    table = pa.table(
        {
            "post_id": ["1", "2", None, "4"],
            "text": pa.Array.from_buffers(pa.string(), 4, buffers),
            "created_at": [1.0, 1.0, 1.0, float("inf")],
        }
    )
    rows, rejects, counts = _read(tmp_path, table, row_group_size=3)
    assert [row["post_id"] for row in rows] == ["1"]
    assert places(rejects) == [("2", "encoding_invalid"), ("3", "id_missing"), ("4", "time_invalid")]
    assert rejects[2]["id"] == "4" and rejects[2]["line"] is None and counts["posts.rejected"] == 3


def test_a_column_of_the_wrong_type_rejects_its_rows(tmp_path: Path) -> None:
    _, rejects, _ = _read(tmp_path, pa.table({"post_id": ["a", "b"], "text": [1, None]}))
    assert places(rejects) == [("1", "field_invalid")] and rejects[0]["message"] == "text is no string"


def test_what_is_no_parquet_is_one_reject(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"post_id": [str(n) for n in range(1000)]}), path, row_group_size=500)
    whole = path.read_bytes()
    for data in (whole[:-20], b"", b"x" * 100, whole[:100]):
        path.write_bytes(data)
        rows, rejects, counts = read_file(path)
        assert rows == [] and places(rejects) == [("1", "file_unreadable")] and counts["posts.read"] == 1
    path.write_bytes(whole[:10] + b"\xff" * 200 + whole[210:])
    rows, rejects, _ = read_file(path)
    assert places(rejects) == [("1", "file_unreadable")] and [row["post_id"] for row in rows][:1] == ["500"]


def test_a_table_without_rows(tmp_path: Path) -> None:
    assert _read(tmp_path, pa.table({"post_id": pa.array([], pa.string())})) == ([], [], {})

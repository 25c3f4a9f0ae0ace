import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.transforms.ingest.ingest_fixtures import places, read_file
from transforms.ingest import canonical, input_files, json_line_reader, json_reader
from transforms.ingest.line_reader import LineLimits

GOOD = b'{"post_id":"good","text":"a good one"}'
LONE = '"\\ud800"'


def _read(tmp_path: Path, data: bytes, **kwargs: Any) -> Any:
    path = tmp_path / "p.jsonl"
    path.write_bytes(data)
    return read_file(path, **kwargs)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"post_id":"a"', "row_malformed"),
        (b'{"post_id":"a"}{"post_id":"b"}', "row_malformed"),
        (b'{"post_id":"a"}\r{"post_id":"b"}', "row_malformed"),
        (b'{"post_id":"a",}', "row_malformed"),
        (b"{'post_id':'a'}", "row_malformed"),
        (b'{"post_id":"a"} // note', "row_malformed"),
        (b'{"post_id":"a","value":Infinity}', "row_malformed"),
        (b'{"post_id":"a","value":-Inf }', "row_malformed"),
        (b'{"post_id":"a","x":1e400}', "row_malformed"),
        (b'{"post_id":"a","x":01}', "row_malformed"),
        (b'{"post_id":"a","text":' + LONE.encode() + b"}", "row_malformed"),
        (b'{"post_id":"a","text":"x\0y"}', "row_malformed"),
        (b'{"post_id":"a","text":"x\ty"}', "row_malformed"),
        (b'{"post_id":"a"}\0', "row_malformed"),
        (b"[1]", "row_not_object"),
        (b"null", "row_not_object"),
        (b'"text"', "row_not_object"),
        (b'{"post_id":"a","text":"\xff"}', "encoding_invalid"),
        (b'{"post_id":"a","\xed\xa0\x80":1}', "encoding_invalid"),
        (b"{}", "id_missing"),
        (b'{"post_id":null}', "id_missing"),
        (b'{"post_id":""}', "id_missing"),
        (b'{"post_id":1.5}', "id_invalid"),
        (b'{"post_id":123456789012345678901234}', "id_invalid"),
        (b'{"post_id":true}', "id_invalid"),
        (b'{"post_id":["a"]}', "id_invalid"),
        (b'{"post_id":"a\\nb"}', "id_invalid"),
        (b'{"post_id":"a\\u0000"}', "id_invalid"),
        (b'{"post_id":"' + b"x" * 513 + b'"}', "id_invalid"),
        (b'{"post_id":"a","author_id":{}}', "id_invalid"),
        (b'{"post_id":"a","created_at":"soon"}', "time_invalid"),
        (b'{"post_id":"a","created_at":true}', "time_invalid"),
        (b'{"post_id":"a","created_at":[]}', "time_invalid"),
        (b'{"post_id":"a","created_at":1e30}', "time_invalid"),
        (b'{"post_id":"a","text":5}', "field_invalid"),
        (b'{"post_id":"a","hashtags":5}', "field_invalid"),
        (b'{"post_id":"a","hashtags":[{}]}', "field_invalid"),
        (b'{"post_id":"a","media":[5]}', "field_invalid"),
        (b'{"post_id":"a","media":[{"uri":5}]}', "field_invalid"),
        (b'{"post_id":"a","sensitive":"perhaps"}', "field_invalid"),
        (b'{"post_id":"a","vectors":{"c":[1,"x"]}}', "vector_invalid"),
        (b'{"post_id":"a","vectors":{"c":[NaN]}}', "vector_invalid"),
        (b'{"post_id":"a","vectors":{"c":[1e39]}}', "vector_invalid"),
        (b'{"post_id":"a","vectors":{"c":[null]}}', "vector_invalid"),
        (b'{"post_id":"a","vectors":[1]}', "vector_invalid"),
        (b'{"post_id":"a","x":' + b"[" * 70 + b"]" * 70 + b"}", "row_too_deep"),
        (b'{"post_id":"a","text":"' + b"x" * 5000 + b'"}', "row_too_long"),
    ],
)
def test_a_bad_line_is_rejected_and_its_neighbors_are_not(tmp_path: Path, line: bytes, code: str) -> None:
    limits = LineLimits(max_line_bytes=4000)
    data = b"\n".join([GOOD, b"", line, b" \t\r", GOOD, b"\r", GOOD])
    for block_bytes in (64, 1 << 20):
        rows, rejects, counts = _read(tmp_path, data, block_bytes=block_bytes, limits=limits)
        assert [row["post_id"] for row in rows] == ["good"] * 3
        assert [row["_sequence"] for row in rows] == [1, 5, 7]
        assert places(rejects) == [(3, code)]
        assert (counts["posts.read"], counts["posts.rejected"], counts[f"rejects.{code}"]) == (4, 1, 1)
        assert rejects[0]["source"] == str(tmp_path / "p.jsonl")
    alone, rejects, _ = _read(tmp_path, line, limits=limits)
    assert alone == [] and places(rejects) == [(1, code)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"post_id": 5, "author_id": 9007199254740993}, {"post_id": "5", "author_id": "9007199254740993"}),
        ({"post_id": 2**64 - 1, "reply_to": 7.0}, {"post_id": "18446744073709551615", "reply_to": "7"}),
        ({"post_id": "a", "author_id": ""}, {"author_id": None}),
        ({"post_id": "a", "created_at": 1700000000}, {"created_at": "2023-11-14T22:13:20+00:00"}),
        ({"post_id": "a", "created_at": 1700000000.5}, {"created_at": "2023-11-14T22:13:20.500000+00:00"}),
        ({"post_id": "a", "created_at": "1700000000123"}, {"created_at": "2023-11-14T22:13:20.123000+00:00"}),
        ({"post_id": "a", "created_at": 1700000000123456789}, {"created_at": "2023-11-14T22:13:20.123456+00:00"}),
        ({"post_id": "a", "created_at": "2024-01-01"}, {"created_at": "2024-01-01T00:00:00+00:00"}),
        ({"post_id": "a", "text": "x\0y"}, {"text": "x\0y"}),
        ({"post_id": "a", "text": "2024-01-01"}, {"text": "2024-01-01"}),
        ({"post_id": "a", "text": "日本語 😀 \u2028 NaN, Inf]"}, {"text": "日本語 😀 \u2028 NaN, Inf]"}),
        ({"post_id": "a", "text": "[" * 200}, {"text": "[" * 200}),
        ({"post_id": "a", "text": float("nan"), "author_id": float("nan")}, {"text": None, "author_id": None}),
        ({"post_id": "a", "hashtags": ["#x", "x", "", None, "y"]}, {"hashtags": ["x", "y"]}),
        ({"post_id": "a", "hashtags": "#x y"}, {"hashtags": ["x", "y"]}),
        ({"post_id": "a", "hashtags": ["2024-01-01"]}, {"hashtags": ["2024-01-01"]}),
        ({"post_id": "a", "hashtags": []}, {"hashtags": None}),
        ({"post_id": "a", "sensitive": 1}, {"sensitive": True}),
        ({"post_id": "a", "sensitive": "true"}, {"sensitive": True}),
        ({"post_id": "a", "sensitive": None}, {"sensitive": False}),
        ({"post_id": "a", "media": [{"uri": "u", "w": [1]}]}, {"media": [{"kind": None, "uri": "u", "alt": None}]}),
        ({"post_id": "a", "media": ["u"]}, {"media": [{"kind": None, "uri": "u", "alt": None}]}),
        ({"post_id": "a", "vectors": {"c": [1, 2.5], "d": [], "e": None}}, {"vectors": [("c", [1.0, 2.5])]}),
        ({"post_id": "a", "vectors": {}}, {"vectors": None}),
    ],
)
def test_values_are_the_same_from_pyarrow_and_line_by_line(
    tmp_path: Path, line: dict[str, Any], expected: dict[str, Any]
) -> None:
    data = json.dumps(line, ensure_ascii=False).encode()
    chunks = [data, data + b"\n" + GOOD, GOOD + b"\n" + data, GOOD + b"\n" + data + b"\nno JSON"]
    for chunk in chunks:
        rows, rejects, _ = _read(tmp_path, chunk)
        (row,) = [row for row in rows if row["post_id"] != "good"]
        shown = {**row, "created_at": row["created_at"] and row["created_at"].isoformat()}
        assert {name: shown[name] for name in expected} == expected
        assert places(rejects) == ([(3, "row_malformed")] if chunk.endswith(b"no JSON") else [])


def test_plain_lines_are_parsed_by_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("line by line")

    monkeypatch.setattr(json_line_reader, "parse", refuse)
    plain = [{"post_id": n, "text": "Infinity [{", "x": {"y": [n]}, "media": [{"uri": "u"}]} for n in range(50)]
    data = "\r\n".join(json.dumps(row) for row in plain).encode() + b"\r\n\r\n"
    rows, rejects, counts = _read(tmp_path, data, block_bytes=500)
    assert [row["post_id"] for row in rows] == [str(n) for n in range(50)]
    assert rejects == [] and counts["posts.fields_ignored.x"] == 50


def test_pyarrow_and_line_by_line_give_the_same(tmp_path: Path) -> None:
    lines = [{"post_id": str(n), "created_at": n, "hashtags": ["a"] * (n % 3), "likes": n or None} for n in range(20)]
    data = "\n".join(json.dumps(row) for row in lines).encode()
    path = tmp_path / "p.jsonl"
    path.write_bytes(data)
    split, *_ = input_files.plan_splits(input_files.find_files(str(path))[0], 1 << 20)
    whole = json_reader.JsonReader(canonical.POSTS, split, LineLimits()).parse(data, 1)
    single = json_line_reader.parse(canonical.POSTS, data, 1, LineLimits(), utf8=True)
    assert whole.ignored == single.ignored == {"likes": 19}
    blocks = [canonical.canonical(canonical.POSTS, rows.columns, rows.errors) for rows in (whole, single)]
    assert blocks[0].equals(blocks[1])


def test_mixed_types_meet_in_one_column(tmp_path: Path) -> None:
    data = b'{"post_id":5}\n{"post_id":"5x","created_at":1}\n{"post_id":7,"created_at":"1970-01-01"}\n'
    rows, rejects, _ = _read(tmp_path, data)
    assert [row["post_id"] for row in rows] == ["5", "5x", "7"] and rejects == []
    # An integer of nanoseconds among doubles keeps its digits.
    data = b'{"post_id":1,"created_at":0.5}\n{"post_id":2,"created_at":1700000000123456999}\n'
    rows, _, _ = _read(tmp_path, data)
    assert rows[1]["created_at"].microsecond == 123456


def test_of_a_key_that_stands_twice_the_last_counts(tmp_path: Path) -> None:
    rows, rejects, _ = _read(tmp_path, b'{"post_id":"a","post_id":"b","x":1,"x":2}\n' + GOOD)
    assert [row["post_id"] for row in rows] == ["b", "good"] and rejects == []


def test_byte_order_mark_and_missing_last_newline(tmp_path: Path) -> None:
    for block_bytes in (2, 7, 1 << 20):
        rows, rejects, _ = _read(tmp_path, b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD, block_bytes=block_bytes)
        assert [row["_sequence"] for row in rows] == [1, 2] and rejects == []
    assert _read(tmp_path, b"\xef\xbb\xbf") == ([], [], {})
    assert _read(tmp_path, b"") == ([], [], {})
    assert _read(tmp_path, b"\n \n")[0] == []


def test_very_deep_nesting_does_not_end_the_process(tmp_path: Path) -> None:
    deep = b'{"post_id":"a","x":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"
    rows, rejects, _ = _read(tmp_path, b"\n".join([GOOD, deep, b"[" * 1_000_000, GOOD]))
    assert len(rows) == 2 and places(rejects) == [(2, "row_too_deep"), (3, "row_too_deep")]
    just = b'{"post_id":"a","x":' + b"[" * 63 + b"]" * 63 + b"}"
    assert _read(tmp_path, just)[1] == []


def test_unknown_fields_are_counted_by_name(tmp_path: Path) -> None:
    lines = [
        {"post_id": "a", "likes": 1, "geo": {"lat": 1}},
        {"post_id": "b", "likes": "many"},
        {"post_id": "c", "geo": None},
    ]
    _, rejects, counts = _read(tmp_path, "\n".join(map(json.dumps, lines)).encode())
    assert rejects == []
    ignored = {name: rows for name, rows in counts.items() if "ignored" in name}
    assert ignored == {"posts.fields_ignored.likes": 2, "posts.fields_ignored.geo": 1}


def test_fields_that_are_data_take_no_column_each(tmp_path: Path) -> None:
    lines = [{"post_id": str(n), "by user": {f"u{n}-{i}": 1 for i in range(20)}, f"{n}": 1} for n in range(2000)]
    rows, rejects, counts = _read(tmp_path, "\n".join(map(json.dumps, lines)).encode())
    assert len(rows) == 2000 and rejects == []
    assert counts["posts.fields_ignored.(other)"] == 4000


def test_rejects_never_quote_the_post(tmp_path: Path) -> None:
    secret = "SECRET"
    lines = [
        f'{{"post_id":"a","text":"{secret}"',
        f'{{"post_id":"a","created_at":"{secret}"}}',
        f'["{secret}"]',
        f'{{"post_id":"a","hashtags":{{"{secret}":1}}}}',
        f'{{"post_id":"a","vectors":{{"c":"{secret}"}}}}',
        f'{{"post_id":"a","text":"{secret}\\x"}}',
    ]
    _, rejects, _ = _read(tmp_path, "\n".join(lines).encode())
    assert len(rejects) == len(lines)
    assert secret not in json.dumps(rejects)


def test_gzip_cut_off_gives_its_good_lines(tmp_path: Path) -> None:
    import random

    noise = random.Random(0)
    lines = [json.dumps({"post_id": str(n), "text": str(noise.random())}).encode() for n in range(3000)]
    whole = gzip.compress(b"\n".join(lines))
    path = tmp_path / "p.jsonl.gz"
    for data in (whole[: len(whole) // 2], whole[:5000] + b"\xff" * 500 + whole[5500:], b"not gzip at all", whole[:5]):
        path.write_bytes(data)
        rows, rejects, counts = read_file(path, block_bytes=10_000)
        assert [row["post_id"] for row in rows] == [str(n) for n in range(len(rows))]
        assert places(rejects) == [(len(rows) + 1, "file_unreadable")]
        assert counts["posts.read"] == len(rows) + 1
    # Members one after another, and zeros as padding, are one file.
    half = len(lines) // 2
    path.write_bytes(
        gzip.compress(b"\n".join(lines[:half]) + b"\n") + gzip.compress(b"\n".join(lines[half:])) + b"\0" * 512
    )
    rows, rejects, _ = read_file(path)
    assert [row["post_id"] for row in rows] == [str(n) for n in range(3000)] and rejects == []


def test_a_long_line_is_not_held(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD + b"\n" + b"x" * (100 << 20) + b"\n" + GOOD, 1))
    tracemalloc.start()
    rows, rejects, _ = read_file(
        path, block_bytes=1 << 16, limits=LineLimits(max_line_bytes=1 << 20, max_gzip_ratio=2000)
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row["_sequence"] for row in rows] == [1, 3] and places(rejects) == [(2, "row_too_long")]
    assert peak < 20 << 20

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.transforms.ingest.ingest_fixtures import places, read_file
from transforms.ingest import csv_reader
from transforms.ingest.line_reader import LineLimits

SIZES = (1, 7, 64, 1 << 20)


def _read(tmp_path: Path, data: str | bytes, **kwargs: Any) -> Any:
    path = tmp_path / "p.csv"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_file(path, **kwargs)


@pytest.mark.parametrize("size", SIZES)
def test_quoted_fields_keep_commas_quotes_and_newlines(tmp_path: Path, size: int) -> None:
    data = 'post_id, text ,likes\r\n1,"a, ""b""\nc",3\r\n\r\n"2",,\n3,d,0'
    rows, rejects, counts = _read(tmp_path, data, block_bytes=size)
    assert [(row["post_id"], row["text"], row["_sequence"]) for row in rows] == [
        ("1", 'a, "b"\nc', 2),
        ("2", None, 5),
        ("3", "d", 6),
    ]
    assert rejects == [] and counts["posts.read"] == 3 and counts["posts.fields_ignored.likes"] == 2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("record", "code", "lines"),
    [
        (b"1,a,b", "row_malformed", 1),
        (b"1", "row_malformed", 1),
        (b'"1" x,a', "row_malformed", 1),
        (b'1,"a" b', "row_malformed", 1),
        (b"1,a\rb", "row_malformed", 1),
        (b"\r1,a", "row_malformed", 1),
        (b"1,\xff", "encoding_invalid", 1),
        (b",a", "id_missing", 1),
        (b'"",a', "id_missing", 1),
        (b'"x\ny",a', "id_invalid", 2),
        (b"1," + b"x" * 300, "row_too_long", 1),
        (b'1,"' + b"x\n" * 150 + b'"', "row_too_long", 151),
    ],
)
def test_a_bad_record_is_rejected_alone(tmp_path: Path, record: bytes, code: str, lines: int, size: int) -> None:
    data = b"post_id,text\nx,y\n" + record + b'\nz,"w"\n'
    rows, rejects, counts = _read(tmp_path, data, block_bytes=size, limits=LineLimits(max_line_bytes=256))
    good = [(row["post_id"], row["_sequence"]) for row in rows]
    if lines < 100:
        assert good == [("x", 2), ("z", 3 + lines)] and places(rejects) == [(3, code)]
    assert good[0] == ("x", 2) and good[-1] == ("z", 3 + lines)
    assert places(rejects)[0] == (3, code) and counts["posts.read"] == len(rows) + len(rejects)


@pytest.mark.parametrize("size", SIZES)
def test_a_quote_in_the_middle_of_a_field_is_a_character(tmp_path: Path, size: int) -> None:
    rows, rejects, _ = _read(tmp_path, 'post_id,text\n1,5" by 6" disk\n2,"b"\n', block_bytes=size)
    assert [row["text"] for row in rows] == ['5" by 6" disk', "b"] and rejects == []


@pytest.mark.parametrize("size", SIZES)
def test_an_open_quote_costs_its_row_and_not_the_file(tmp_path: Path, size: int) -> None:
    rows, rejects, _ = _read(tmp_path, 'post_id,text\n1,a\n2,"open\n3,c\n4,d', block_bytes=size)
    assert [row["post_id"] for row in rows] == ["1", "3", "4"]
    assert places(rejects) == [(3, "row_malformed")]


def test_cells_with_lists(tmp_path: Path) -> None:
    data = (
        "post_id,hashtags,media,vectors,sensitive,created_at\n"
        '1,"#a b,c","[{""kind"":""image"",""uri"":""u""}]","{""v"":[1,2]}",1,1700000000\n'
        '2,"[""x""]",u.png,,false,2023-11-14\n'
        "3,,,{,,\n"
    )
    rows, rejects, _ = _read(tmp_path, data)
    assert rows[0]["hashtags"] == ["a", "b", "c"] and rows[0]["media"] == [{"kind": "image", "uri": "u", "alt": None}]
    assert rows[0]["vectors"] == [("v", [1.0, 2.0])] and rows[0]["sensitive"]
    assert rows[1]["hashtags"] == ["x"] and rows[1]["media"][0]["uri"] == "u.png" and not rows[1]["sensitive"]
    assert rows[0]["created_at"].isoformat() == "2023-11-14T22:13:20+00:00"
    assert places(rejects) == [(4, "vector_invalid")]


def test_interactions(tmp_path: Path) -> None:
    data = "user_id,post_id,kind,value,created_at\n1,2,LIKE,,881250949\n1,2,,4.5,\n1,,view,,\n,2,view,,\n1,2,view,x,\n"
    rows, rejects, _ = _read(tmp_path, data, table="interactions")
    assert [(row["kind"], row["value"]) for row in rows] == [("like", None), ("rating", 4.5)]
    assert places(rejects) == [(4, "id_missing"), (5, "id_missing"), (6, "field_invalid")]
    assert rejects[0]["message"] == "post_id is missing or empty"


def test_headers(tmp_path: Path) -> None:
    assert _read(tmp_path, "") == ([], [], {})
    assert _read(tmp_path, "post_id,text\n") == ([], [], {})
    assert _read(tmp_path, b"\xef\xbb\xbfpost_id\n1\n")[0][0]["post_id"] == "1"
    assert [row["post_id"] for row in _read(tmp_path, "text,post_id,text\na,1,b\n")[0]] == ["1"]
    assert places(_read(tmp_path, "id\n1\n")[1]) == [(2, "id_missing")]
    assert _read(tmp_path, '"post_id","a\nb"') == ([], [], {})
    rows, _, _ = _read(tmp_path, '"post_id","a\nb"\n1,2\n')
    assert rows[0]["_sequence"] == 3


def test_gzip(tmp_path: Path) -> None:
    path = tmp_path / "p.csv.gz"
    whole = gzip.compress(b"post_id,text\n" + b"".join(b"%d,%d\n" % (n, n * 7919 % 10007) for n in range(5000)))
    path.write_bytes(whole)
    rows, rejects, _ = read_file(path, block_bytes=1000)
    assert [row["post_id"] for row in rows] == [str(n) for n in range(5000)] and rejects == []
    path.write_bytes(whole[: len(whole) // 2])
    rows, rejects, _ = read_file(path, block_bytes=1000)
    assert [row["post_id"] for row in rows] == [str(n) for n in range(len(rows))] and len(rows) > 1000
    assert places(rejects) == [(len(rows) + 2, "file_unreadable")]


def test_random_records_are_found_as_pythons_csv_finds_them(tmp_path: Path) -> None:
    import csv
    import io

    random = np.random.default_rng(0)
    for trial in range(30):
        texts = ["".join(random.choice(list('ab",\n '), 6)) for _ in range(40)]
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(
            [["post_id", "text"], *([f"p{n}", t] for n, t in enumerate(texts))]
        )
        rows, rejects, _ = _read(tmp_path, out.getvalue(), block_bytes=int(random.integers(1, 200)))
        assert rejects == [] and [row["text"] for row in rows] == texts, trial


def test_stray_quotes_and_returns_mean_the_same_in_chunks_of_any_size(tmp_path: Path) -> None:
    for seed in range(60):
        random = np.random.default_rng(seed)
        body = "".join(random.choice(list('ab,,"\n\r '), int(random.integers(0, 200))))
        found = []
        for size in (1 << 20, 1, 50):
            rows, rejects, _ = _read(tmp_path, "post_id,text\n" + body, block_bytes=size)
            found.append(([(row["post_id"], row["text"], row["_sequence"]) for row in rows], places(rejects)))
        assert found[1] == found[0] and found[2] == found[0], seed


def test_clean_data_is_read_by_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("record by record")

    monkeypatch.setattr(csv_reader, "_parse_record", refuse)
    rows, _, _ = _read(tmp_path, 'post_id,text\r\n1,"a\n""b"""\r\n\r\n2,"c"')
    assert [row["text"] for row in rows] == ['a\n"b"', "c"]


@pytest.mark.parametrize("size", SIZES)
def test_a_byte_order_mark_inside_a_file_is_text(tmp_path: Path, size: int) -> None:
    rows, rejects, _ = _read(tmp_path, "post_id,text\n1,a\n\ufeff2,b\n", block_bytes=size)
    assert [row["post_id"] for row in rows] == ["1", "\ufeff2"] and rejects == []

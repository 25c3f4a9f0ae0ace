import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.ingest import canonical, ingest_table, input_files
from transforms.ingest.line_reader import LineLimits
from transforms.tables import counts, parquet, schemas
from transforms.tables.rejects import WriteRejects

NewPipeline = Callable[[], beam.Pipeline]
LIMITS = LineLimits(max_line_bytes=2000, max_nesting=20)


def _ingest(
    new_pipeline: NewPipeline, out: Path, globs: str, table: str = "posts", **kwargs: Any
) -> tuple[Any, Any, Any]:
    """(posts, rejects, counts) as written; checks what must hold for every run."""
    schema = canonical.TABLES[table].schema
    with new_pipeline() as root:
        done = root | ingest_table.IngestTable(table, input_files.find_files(globs), limits=LIMITS, **kwargs)
        _ = done.parts | "WriteParts" >> parquet.WriteParts(str(out / table), schema)
        _ = done.rejects | WriteRejects(str(out / "rejects"))
        _ = done.counts | counts.WriteCounts(str(out))
    tallies = counts.read_counts(str(out))
    ingest_table.reconcile(tallies)
    written, rejected = pq.read_table(out / table), pq.read_table(out / "rejects")
    assert written.schema.equals(schema) and written.num_rows == tallies.get(f"{table}.written", 0)
    assert rejected.num_rows == tallies.get(f"{table}.rejected", 0)
    for path in parquet.list_files(str(out / table)):
        _check_order(parquet.read_file(path), canonical.TABLES[table].order)
    return sorted(written.to_pylist(), key=str), rejected.to_pylist(), tallies


def _check_order(block: pa.RecordBatch, names: Sequence[str]) -> None:
    keys = [tuple((value is None, value) for value in row.values()) for row in block.select(list(names)).to_pylist()]
    assert keys == sorted(keys)


def _random_line(random: np.random.Generator) -> bytes:
    post: dict[str, Any] = {"post_id": f"p{random.integers(60)}"}
    options: dict[str, list[Any]] = {
        "post_id": [int(random.integers(50)), "", None, 1.5, "x\n", "é"],
        "author_id": ["u", 7, None, True],
        "created_at": [
            "2024-01-01T00:00:00Z",
            "2024-01-02",
            1700000000,
            1700000000.5,
            "1700000001",
            "never",
            None,
            -1e30,
        ],
        "text": ["hello", "日本語 [[[", 5, None, "x" * 3000, "NaN"],
        "hashtags": [["#a", "b", "a"], [], ["c", None], "x y", 4],
        "media": [[{"kind": "image", "uri": "u"}], ["v"], None, [3], []],
        "sensitive": [True, False, 1, "true", "so so", None],
        "vectors": [{"v": [1, 2]}, {"v": [1.5], "w": [2]}, {"v": ["x"]}, {}, None],
        "extra": [1, "one", None, {"deep": [[[[1]]]]}],
    }
    for name, choices in options.items():
        if random.random() < 0.25:
            post[name] = choices[random.integers(len(choices))]
    line = json.dumps(post, ensure_ascii=bool(random.integers(2))).encode()
    damages = [line[:-1], line + line, b"[" * 30 + b"]" * 30, b"\xff" + line, b"", b"  \t", b"7", line + b"\r", b"{\0}"]
    return damages[random.integers(len(damages))] if random.random() < 0.2 else line


@pytest.mark.parametrize("seed", range(2))
def test_block_size_and_parts_change_nothing(tmp_path: Path, new_pipeline: NewPipeline, seed: int) -> None:
    random = np.random.default_rng(seed)
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(b"\n".join(_random_line(random) for _ in range(150)))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b"\n".join(_random_line(random) for _ in range(50))))
    found = []
    for run, (block_bytes, num_parts) in enumerate([(1 << 20, 1), (64, 7), (int(random.integers(500, 9999)), 3)]):
        found.append(
            _ingest(
                new_pipeline, tmp_path / str(run), f"{tmp_path}/*.jsonl*", block_bytes=block_bytes, num_parts=num_parts
            )
        )
    posts, rejects, tallies = found[0]
    assert len(posts) > 40 and len(rejects) > 50 and tallies["posts.duplicates"] > 50
    places = [(row["source"], row["line"]) for row in rejects]
    assert places == sorted(places) and len(set(places)) == len(places)
    for others, other_rejects, other_tallies in found[1:]:
        assert others == posts
        assert sorted(other_rejects, key=str) == sorted(rejects, key=str)
        assert other_tallies == tallies


POSTS: list[dict[str, Any]] = [
    {
        "post_id": f"p{n}",
        "author_id": f"u{n % 3}" if n % 4 else None,
        "created_at": f"2024-01-{n % 28 + 1:02}T00:00:{n % 60:02}Z" if n % 5 else None,
        "text": f'line, "{n}"\nnext' if n % 6 else None,
        "lang": "en",
        "hashtags": ["a", f"t{n}"] if n % 2 else None,
        "media": [{"kind": "image", "uri": f"{n}.png", "alt": None}] if n % 3 == 0 else None,
        "reply_to": None,
        "repost_of": f"p{n - 1}" if n % 7 == 0 else None,
        "sensitive": n % 9 == 0,
        "labels": None,
        "vectors": {"v": [n, 0.5]} if n % 2 else None,
    }
    for n in range(100)
]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    name = path.name.removesuffix(".gz")
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=33)
        return
    if name.endswith("csv"):
        cells = [[_cell(value) for value in row.values()] for row in rows]
        text = "\n".join(",".join(row) for row in [list(rows[0]), *cells])
    else:
        text = "\n".join(json.dumps(row) for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith("gz") else text.encode())


def _cell(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return '"' + text.replace('"', '""') + '"'


@pytest.mark.parametrize("name", ["p.jsonl.gz", "p.csv", "p.csv.gz", "p.parquet", "p.ndjson"])
def test_every_format_gives_the_same(tmp_path: Path, new_pipeline: NewPipeline, name: str) -> None:
    _write(tmp_path / "p.jsonl", POSTS)
    _write(tmp_path / name, POSTS)
    expected, none, _ = _ingest(new_pipeline, tmp_path / "0", str(tmp_path / "p.jsonl"))
    found, rejects, _ = _ingest(new_pipeline, tmp_path / "1", str(tmp_path / name), block_bytes=500, num_parts=3)
    assert found == expected and len(found) == 100 and rejects == none == []
    by_id = {row["post_id"]: row for row in found}
    assert by_id["p7"]["vectors"] == [("v", [7.0, 0.5])] and by_id["p7"]["text"] == 'line, "7"\nnext'


def test_of_two_files_the_later_path_wins(tmp_path: Path, new_pipeline: NewPipeline) -> None:
    _write(
        tmp_path / "a.jsonl", [{"post_id": "x", "text": "first"}, {"post_id": "y", "created_at": 5, "text": "dated"}]
    )
    _write(tmp_path / "b.csv", [{"post_id": "x", "text": "second"}, {"post_id": "y", "text": "undated"}])
    globs = f"{tmp_path}/b.csv,{tmp_path}/a.jsonl"
    posts, _, tallies = _ingest(new_pipeline, tmp_path / "out", globs)
    assert {row["post_id"]: row["text"] for row in posts} == {"x": "second", "y": "dated"}
    assert (tallies["posts.read"], tallies["posts.written"], tallies["posts.duplicates"]) == (4, 2, 2)


def test_interactions_and_users(tmp_path: Path, new_pipeline: NewPipeline) -> None:
    rows = [{"user_id": n % 5, "post_id": f"p{n % 4}", "kind": "Like", "created_at": n % 2} for n in range(100)]
    _write(tmp_path / "i.jsonl", rows)
    found, _, tallies = _ingest(new_pipeline, tmp_path / "i", str(tmp_path / "i.jsonl"), "interactions", block_bytes=99)
    assert len(found) == 20 and tallies["interactions.duplicates"] == 80
    users: list[dict[str, Any]] = [
        {"user_id": "a", "interests": ["x"], "bio": "b"},
        {"user_id": "a", "blocked_authors": [1, 2, 1]},
    ]
    _write(tmp_path / "u.jsonl", users)
    found, _, _ = _ingest(new_pipeline, tmp_path / "u", str(tmp_path / "u.jsonl"), "users")
    assert found == [{"user_id": "a", "interests": None, "bio": None, "lang": None, "blocked_authors": ["1", "2"]}]


def test_widths_of_supplied_vectors_are_counted(tmp_path: Path, new_pipeline: NewPipeline) -> None:
    vectors = [{"clip": [1, 2]}, {"clip": [1, 2, 3]}, {"clip": [3, 4], "sound": [1]}, None]
    _write(tmp_path / "p.jsonl", [{"post_id": n, "vectors": vector} for n, vector in enumerate(vectors)])
    _, _, tallies = _ingest(new_pipeline, tmp_path / "out", str(tmp_path / "p.jsonl"), num_parts=2)
    widths = {name: rows for name, rows in tallies.items() if "vectors" in name}
    assert widths == {"posts.vectors.clip.2": 2, "posts.vectors.clip.3": 1, "posts.vectors.sound.1": 1}


def test_no_files_give_a_table_without_rows(tmp_path: Path, new_pipeline: NewPipeline) -> None:
    with new_pipeline() as root:
        done = root | ingest_table.IngestTable("users", [])
        _ = done.parts | parquet.WriteParts(str(tmp_path), schemas.USERS)
    assert pq.read_table(tmp_path).schema.equals(schemas.USERS)


def test_rows_that_do_not_reconcile_are_an_error() -> None:
    good = {"posts.read": 6, "posts.written": 3, "posts.rejected": 2, "posts.duplicates": 1}
    ingest_table.reconcile(good)
    ingest_table.reconcile({})
    with pytest.raises(ValueError, match=r"7 rows read, but 3 written \+ 2 rejected \+ 1 duplicates = 6"):
        ingest_table.reconcile({**good, "posts.read": 7})


def test_bad_parameters_are_errors_before_work() -> None:
    for kwargs, message in (
        ({"table": "likes"}, "table must be one of posts, interactions, users, got 'likes'"),
        ({"table": "posts", "block_bytes": 0}, "block_bytes must be at least 1, got 0"),
        ({"table": "posts", "num_parts": -1}, "num_parts must be at least 1, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            ingest_table.IngestTable(files=[], **kwargs)

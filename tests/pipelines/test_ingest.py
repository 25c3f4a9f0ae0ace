import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import cli
from transforms.tables import schemas

POSTS = [
    {"post_id": "a", "author_id": "u", "created_at": "2024-01-02T00:00:00Z", "text": "hello", "hashtags": ["#x"]},
    {"post_id": "b", "created_at": "2024-01-01", "text": "no author", "likes": 3},
    {"post_id": "a", "author_id": "u", "created_at": "2024-01-01", "text": "older"},
    {"post_id": "", "text": "no id"},
]


def _write_inputs(directory: Path) -> list[str]:
    (directory / "posts.jsonl").write_text("\n".join(map(json.dumps, POSTS)) + "\n{broken\n")
    with gzip.open(directory / "likes.csv.gz", "wt") as file:
        file.write("user_id,post_id,kind,created_at\nv,a,like,1704067200\nv,a,like,1704067200\nv,b,view,soon\n")
    pq.write_table(pa.table({"user_id": ["v"], "interests": [["cats"]]}), directory / "users.parquet")
    words = {"posts": "posts.jsonl", "interactions": "*.csv.gz", "users": "users.parquet"}
    return [word for name, glob in words.items() for word in (f"--{name}", f"{directory}/{glob}")]


def test_every_row_is_written_rejected_or_a_duplicate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    argv = [*_write_inputs(tmp_path), "--output", str(out), "--run_date", "2024-05-05", "--num_parts", "2"]
    assert cli.main(["ingest", *argv]) == 0
    run = out / "runs" / "2024-05-05"
    tables = {name: pq.read_table(run / name) for name in ("posts", "interactions", "users", "rejects/ingest")}
    for name, schema in (("posts", schemas.POSTS), ("interactions", schemas.INTERACTIONS), ("users", schemas.USERS)):
        assert tables[name].schema.equals(schema)
    assert {row["post_id"]: row["text"] for row in tables["posts"].to_pylist()} == {"a": "hello", "b": "no author"}
    assert tables["interactions"].num_rows == 1 and tables["users"]["interests"].to_pylist() == [["cats"]]
    rejects = [(Path(row["source"]).name, row["line"], row["code"]) for row in tables["rejects/ingest"].to_pylist()]
    assert sorted(rejects) == [
        ("likes.csv.gz", 4, "time_invalid"),
        ("posts.jsonl", 4, "id_missing"),
        ("posts.jsonl", 5, "row_malformed"),
    ]
    report = json.loads((run / "_stages" / "ingest.json").read_text())
    assert report["rows"] == {"posts": 2, "interactions": 1, "users": 1, "rejects/ingest": 3}
    assert report["counts"] == {
        "posts.read": 5,
        "posts.written": 2,
        "posts.rejected": 2,
        "posts.duplicates": 1,
        "posts.fields_ignored.likes": 1,
        "interactions.read": 3,
        "interactions.written": 1,
        "interactions.rejected": 1,
        "interactions.duplicates": 1,
        "users.read": 1,
        "users.written": 1,
        "rejects.id_missing": 1,
        "rejects.row_malformed": 1,
        "rejects.time_invalid": 1,
    }
    assert "posts: 2 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("posts", "none.jsonl", "--posts: no file matches"),
        ("posts", "", "--posts is missing"),
        ("interactions", "posts.txt", "posts.txt has no known file extension"),
        ("num_parts", "-1", "--num_parts must be at least"),
    ],
)
def test_input_that_cannot_be_read_at_all_is_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: str, message: str
) -> None:
    (tmp_path / "posts.txt").write_text("x")
    path = str(tmp_path / value) if "." in value else value
    assert cli.main(["ingest", *_write_inputs(tmp_path), "--output", str(tmp_path / "out"), f"--{name}", path]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.glob("out/runs/*/posts"))


def test_without_interactions_and_users_their_tables_are_empty(tmp_path: Path) -> None:
    argv = [*_write_inputs(tmp_path)[:2], "--output", str(tmp_path / "out"), "--run_date", "2024-05-05"]
    assert cli.main(["ingest", *argv]) == 0
    assert pq.read_table(tmp_path / "out/runs/2024-05-05/interactions").num_rows == 0
    assert pq.read_table(tmp_path / "out/runs/2024-05-05/users").schema.equals(schemas.USERS)


def test_a_past_date_knows_nothing_of_later_rows(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli.main(["ingest", *_write_inputs(tmp_path), "--output", str(out), "--run_date", "2024-01-01"]) == 0
    run = out / "runs" / "2024-01-01"
    texts = {row["post_id"]: row["text"] for row in pq.read_table(run / "posts").to_pylist()}
    assert texts == {"a": "older", "b": "no author"}  # the newer version of a is of the next day
    counts = json.loads((run / "_stages" / "ingest.json").read_text())["counts"]
    assert counts["rejects.after_run_date"] == 1 and counts["posts.rejected"] == 3
    assert counts["posts.read"] == counts["posts.written"] + counts["posts.rejected"] == 5
    rejects = pq.read_table(run / "rejects/ingest").to_pylist()
    assert [(row["line"], row["id"]) for row in rejects if row["code"] == "after_run_date"] == [(1, "a")]

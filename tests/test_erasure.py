"""A user and a post are planted in the demo world, then forgotten: every byte of the next run is searched for them."""

import dataclasses
import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.demo_world import make_world

ROOT = Path(__file__).resolve().parents[1]
USER, POST = "planteduser77", "plantedpost77"
# In several posts, so that it becomes a term of the vocabulary; in what the user says, too.
WORD = "xylozenquark"
FIRST, SECOND = "2026-01-31", "2026-02-01"

pytestmark = pytest.mark.timeout(900)


@dataclasses.dataclass
class Erased:
    """An output with two runs, the second made with --erase, and what that printed."""

    output: Path
    forget: Path
    printed: str
    flags: list[str]


def _fusefeed(*words: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *words], capture_output=True, text=True, env=environment
    )


def _append(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def erased(tmp_path_factory: pytest.TempPathFactory) -> Erased:
    folder = tmp_path_factory.mktemp("erased")
    world = make_world(str(folder / "world"), num_posts=150, num_users=40)
    posts, interactions, users = (folder / f"{name}.jsonl" for name in ("posts", "interactions", "users"))
    when = "2026-01-30T12:00:00Z"
    own = [
        {"post_id": f"of{USER}{i}", "author_id": USER, "created_at": when, "text": f"{WORD} says hello"}
        for i in range(3)
    ]
    forgotten = {"post_id": POST, "author_id": "someone", "created_at": when, "text": f"a {WORD} for everybody"}
    reply = {"post_id": "reply77", "author_id": "other", "created_at": when, "text": "I see", "reply_to": POST}
    repost = {"post_id": "repost77", "author_id": "other", "created_at": when, "repost_of": POST}
    broken = {"post_id": POST, "created_at": "not a time", "text": WORD}
    _append(posts, [*own, forgotten, reply, repost, broken])
    _append(
        interactions,
        [
            *({"user_id": USER, "post_id": f"p{i:05d}", "kind": "like", "created_at": when} for i in range(20)),
            *({"user_id": f"u{i:04d}", "post_id": POST, "kind": "like", "created_at": when} for i in range(10)),
            {"user_id": USER, "post_id": POST, "created_at": "never"},
        ],
    )
    _append(users, [{"user_id": USER, "interests": [WORD], "bio": WORD}, {"user_id": "x", "blocked_authors": [USER]}])
    flags = ["--posts", f"{world.posts},{posts}", "--interactions", f"{world.interactions},{interactions}"]
    flags += ["--users", f"{world.users},{users}", "--media_root", world.media_root, "--output", str(folder / "out")]
    flags += ["--k", "10", "--epochs", "3", "--no_evaluate"]
    forget = folder / "forget.csv"
    forget.write_text(f"user_id,post_id\n{USER},\n,{POST}\n")
    first = _fusefeed("run", *flags, "--run_date", FIRST)
    assert first.returncode == 0, first.stderr[-4000:]
    second = _fusefeed("run", *flags, "--run_date", SECOND, "--erase", str(forget))
    assert second.returncode == 0, second.stderr[-4000:]
    return Erased(folder / "out", forget, second.stdout + second.stderr, flags)


def _searched(path: Path) -> list[bytes]:
    """The bytes of a file, and those that are packed in it."""
    data = path.read_bytes()
    found = [data, str(path).encode()]
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        found.append(sink.getvalue())
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            found += [packed.read(name) for name in packed.namelist()]
    elif path.suffix == ".gz":
        found.append(gzip.decompress(data))
    return found


def _files_with(folder: Path, *words: str) -> dict[str, list[str]]:
    """For each word the tables and files below a folder in whose bytes it stands."""
    held: dict[str, list[str]] = {word: [] for word in words}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        pieces = _searched(path)
        for word, files in held.items():
            if any(word.encode() in piece for piece in pieces):
                files.append(str(path.relative_to(folder)))
    return held


def test_the_search_finds_what_is_there(erased: Erased) -> None:
    held = _files_with(erased.output / "runs" / FIRST, USER, POST, WORD)
    tables = {word: {file.split("/")[0] for file in files} for word, files in held.items()}
    assert {"posts", "interactions", "users", "rejects", "user_embeddings", "recommendations"} <= tables[USER]
    assert {"posts", "interactions", "rejects", "features", "item_embeddings", "similar_posts"} <= tables[POST]
    assert {"posts", "users", "features", "transform_fn"} <= tables[WORD]


def test_nothing_of_what_is_erased_is_in_the_run(erased: Erased) -> None:
    assert _files_with(erased.output / "runs" / SECOND, USER, POST, WORD) == {USER: [], POST: [], WORD: []}


def test_erased_rows_are_counted_and_references_stay(erased: Erased) -> None:
    run = erased.output / "runs" / SECOND
    counts = json.loads((run / "metrics.json").read_text())["stages"]["ingest"]["counts"]
    assert (counts["posts.erased"], counts["interactions.erased"], counts["users.erased"]) == (5, 31, 1)
    rejects = pq.read_table(run / "rejects").to_pylist()
    assert {row["id"] for row in rejects if row["code"] == "erased"} == {None}
    posts = {row["post_id"]: row for row in pq.read_table(run / "posts").to_pylist()}
    assert (posts["reply77"]["reply_to"], posts["repost77"]["repost_of"]) == ("", "")


def test_a_space_that_was_fitted_on_erased_posts_is_not_taken_over(erased: Erased) -> None:
    lineage = json.loads((erased.output / "runs" / SECOND / "transform_fn" / "_lineage.json").read_text())
    assert lineage["previous"] == ""
    assert "--erase" in lineage["why_new"]


def test_purge_removes_the_runs_that_still_hold_it(erased: Erased) -> None:
    assert FIRST in erased.printed
    assert f"fusefeed purge --output {erased.output} --erase {erased.forget}" in erased.printed
    done = _fusefeed("purge", "--output", str(erased.output), "--erase", str(erased.forget))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (erased.output / "runs").iterdir()) == [SECOND]
    assert _files_with(erased.output, USER, POST, WORD) == {USER: [], POST: [], WORD: []}
    assert (erased.output / "LATEST").read_text().strip() == SECOND


def test_purge_leaves_the_run_that_latest_names_and_says_so(erased: Erased, tmp_path: Path) -> None:
    forget = tmp_path / "forget.txt"
    forget.write_text("reply77\n")
    done = _fusefeed("purge", "--output", str(erased.output), "--erase", str(forget))
    assert done.returncode == 1
    assert f"{SECOND} has ids of --erase" in done.stderr
    assert (erased.output / "runs" / SECOND / "manifest.json").exists()

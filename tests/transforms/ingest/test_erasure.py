import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.ingest import erasure
from transforms.tables import schemas

IDS = erasure.Ids(pa.array(["u1"]), pa.array(["p1"]))


def _write(path: Path, text: str) -> str:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("name", "text", "users", "posts"),
    [
        ("forget.txt", "u1\n\n p1 \nu1\n", ["p1", "u1"], ["p1", "u1"]),
        ("forget.csv", "user_id,post_id,why\nu1,,asked\n,p1,law\n7,p2,\n", ["7", "u1"], ["p1", "p2"]),
        ("forget.jsonl", '{"user_id": "u1"}\n{"post_id": 7}\n', ["u1"], ["7"]),
        ("forget.jsonl.gz", '{"user_id": "u1", "post_id": "p1"}\n', ["u1"], ["p1"]),
    ],
)
def test_ids_are_read_in_every_form(tmp_path: Path, name: str, text: str, users: list[str], posts: list[str]) -> None:
    ids = erasure.ids_of(erasure.find(_write(tmp_path / name, text)))
    assert (ids.users.to_pylist(), ids.posts.to_pylist()) == (users, posts)


def test_ids_are_read_from_parquet(tmp_path: Path) -> None:
    path = str(tmp_path / "forget.parquet")
    pq.write_table(pa.table({"user_id": ["u2", "u1", None], "post_id": [None, None, 3]}), path)
    ids = erasure.ids_of(erasure.find(path))
    assert (ids.users.to_pylist(), ids.posts.to_pylist()) == (["u1", "u2"], ["3"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("forget.txt", "\n", "has no ids"),
        ("forget.csv", "user,post\nu1,p1\n", "row 1 has neither a user_id nor a post_id"),
        ("forget.jsonl", '{"user_id": "u1"}\n["p1"]\n', "line 2 is not a JSON object"),
        ("forget.jsonl", '{"user_id": ["u1"]}\n', "row 1 has neither"),
        ("forget.parquet", "no parquet", "cannot be read"),
    ],
)
def test_an_unusable_file_is_an_error(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        erasure.find(_write(tmp_path / name, text))


def test_a_missing_file_and_a_changed_one_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        erasure.find(str(tmp_path / "nowhere.txt"))
    found = erasure.find(_write(tmp_path / "forget.txt", "u1\n"))
    _write(tmp_path / "forget.txt", "u2\n")
    with pytest.raises(ValueError, match="was changed"):
        erasure.ids_of(found)


def test_too_many_ids_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "MAX_IDS", 3)
    with pytest.raises(ValueError, match="more than 3 ids"):
        erasure.find(_write(tmp_path / "forget.txt", "u1\nu2\n"))


def test_rows_of_an_erased_user_or_post_are_found() -> None:
    posts = pa.RecordBatch.from_pylist(
        [{"post_id": p, "author_id": a, "sensitive": False} for p, a in (("p1", "u2"), ("p2", "u1"), ("p3", None))],
        schema=schemas.POSTS,
    )
    assert erasure.is_erased(IDS, "posts", posts).tolist() == [True, True, False]
    pairs = [("u1", "p9"), ("u2", "p1"), ("u2", "p2")]
    interactions = pa.RecordBatch.from_pylist(
        [{"user_id": user, "post_id": post} for user, post in pairs], schema=schemas.INTERACTIONS
    )
    assert erasure.is_erased(IDS, "interactions", interactions).tolist() == [True, True, False]
    users = pa.RecordBatch.from_pylist([{"user_id": "p1"}, {"user_id": "u1"}], schema=schemas.USERS)
    assert erasure.is_erased(IDS, "users", users).tolist() == [False, True]


def test_references_lose_the_id_but_stay_references() -> None:
    rows = [
        {"post_id": "p2", "sensitive": False, "reply_to": "p1", "repost_of": None},
        {"post_id": "p3", "sensitive": False, "reply_to": None, "repost_of": "p1"},
        {"post_id": "p4", "sensitive": False, "reply_to": "p2", "repost_of": "p3"},
    ]
    left = erasure.drop_references(IDS, pa.RecordBatch.from_pylist(rows, schema=schemas.POSTS))
    assert left.column("reply_to").to_pylist() == ["", None, "p2"]
    assert left.column("repost_of").to_pylist() == [None, "", "p3"]
    assert left.schema == schemas.POSTS
    blocked = [
        {"user_id": "a", "blocked_authors": ["u1", "u2"]},
        {"user_id": "b"},
        {"user_id": "c", "blocked_authors": []},
    ]
    users = erasure.drop_references(IDS, pa.RecordBatch.from_pylist(blocked, schema=schemas.USERS))
    assert users.column("blocked_authors").to_pylist() == [["u2"], None, []]


@pytest.mark.parametrize(
    ("columns", "held"),
    [
        ({"post_id": ["p2", "p1"]}, True),
        ({"post_id": ["u1"], "user_id": ["p1"]}, False),
        ({"author_id": [None, "u1"]}, True),
        ({"blocked_authors": [["u2"], None, ["u3", "u1"]]}, True),
        ({"blocked_authors": [["p1"]]}, False),
        ({"id": ["p1"]}, True),
        ({"text": ["p1 u1"], "rank": [1]}, False),
    ],
)
def test_a_file_with_an_id_is_found(tmp_path: Path, columns: dict[str, list[object]], held: bool) -> None:
    path = str(tmp_path / "part.parquet")
    pq.write_table(pa.table(columns), path, row_group_size=1)
    assert erasure.has_ids(path, IDS) is held


def test_no_id_is_in_what_travels_to_workers(tmp_path: Path) -> None:
    found = erasure.find(_write(tmp_path / "forget.txt", "planted\n"))
    assert "planted" not in json.dumps([found.path.rsplit("/", 1)[1], found.digest])

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from transforms.evaluate import split_interactions, test_set
from transforms.search.eligibility import Eligibility
from transforms.tables import blocks, parquet, schemas

POSTS = {
    # author, language, sensitive
    "a": ("ann", "en", False),
    "b": ("bob", None, False),
    "c": ("cat", "en", True),
    "d": (None, "de", False),
    "e": ("eve", "de", False),
}
CANDIDATES = pa.schema(
    [
        ("post_id", pa.string()),
        ("author_id", pa.string()),
        ("created_at", schemas.TIMESTAMP),
        ("sensitive", pa.bool_()),
        ("is_repost", pa.bool_()),
        ("is_reply", pa.bool_()),
        ("popularity", pa.float64()),
    ]
)
HISTORY = pa.schema([("user_id", pa.string()), ("post_id", pa.string()), ("weight", pa.float32())])


def write(directory: Path, table: str, rows: list[dict[str, Any]], schema: pa.Schema) -> str:
    block = pa.RecordBatch.from_pylist(rows, schema=schema)
    for number, piece in enumerate(list(blocks.split_rows(block, 2)) or [block]):
        parquet.write_file(str(directory / table / f"part-{number:05d}.parquet"), piece, schema)
    return str(directory / table)


def pairs(text: str, **more: Any) -> list[dict[str, Any]]:
    """ "ann:a bob:b" as rows."""
    return [dict(zip(("user_id", "post_id"), pair.split(":"), strict=True)) | more for pair in text.split()]


@pytest.fixture
def world(tmp_path: Path) -> dict[str, str]:
    reverse = sorted(POSTS.items(), reverse=True)
    rows = [
        {
            "post_id": post,
            "author_id": author,
            "sensitive": sensitive,
            "is_repost": False,
            "is_reply": False,
            "popularity": i,
        }
        for i, (post, (author, _, sensitive)) in enumerate(reverse)
    ]
    history = pairs("ann:b zoe:a zoe:b zoe:d yan:d", weight=1.0) + pairs("ann:d zoe:gone xia:e", weight=-1.0)
    return {
        "candidates": write(tmp_path, "candidates", rows, CANDIDATES),
        "posts": write(
            tmp_path, "posts", [{"post_id": p, "lang": v[1], "sensitive": v[2]} for p, v in reverse], schemas.POSTS
        ),
        "history": write(tmp_path, "history", history, HISTORY),
        "users": write(tmp_path, "users", [{"user_id": "bob", "blocked_authors": ["eve", "nobody"]}], schemas.USERS),
        "held_out": write(
            tmp_path, "held_out", pairs("ann:a ann:b ann:e bob:a bob:b bob:e bob:d cat:c"), split_interactions.HELD_OUT
        ),
    }


def read(world: dict[str, str], **flags: Any) -> test_set.RankedPosts:
    return test_set.read_posts(world["candidates"], world["posts"], world["history"], Eligibility(**flags))


def dense(matrix: Any) -> list[list[int]]:
    found: list[list[int]] = matrix.toarray().astype(int).tolist()
    return found


def test_the_catalog_is_in_the_order_of_ids(world: dict[str, str]) -> None:
    posts = read(world)
    assert posts.post_id.to_pylist() == list("abcde")
    assert posts.author_id.to_pylist() == ["ann", "bob", "cat", None, "eve"]
    assert posts.eligible.tolist() == [True, True, False, True, True]
    assert posts.liked.tolist() == [1, 2, 0, 2, 0]
    assert posts.recent.tolist() == [4, 3, 2, 1, 0]
    assert posts.language.to_pylist() == ["en", "none", "en", "de", "de"]
    assert posts.places(pa.array(["e", "gone", "a"])).tolist() == [4, -1, 0]
    assert read(world, include_sensitive=True).eligible.all()


def test_only_allowed_posts_are_ranked(world: dict[str, str]) -> None:
    posts = test_set.read_posts(
        world["candidates"],
        world["posts"],
        world["history"],
        Eligibility(),
        lambda ids: np.array([post in "acd" for post in ids.to_pylist()]),
    )
    assert posts.eligible.tolist() == [True, False, False, True, False]


def test_targets_are_what_may_be_listed(world: dict[str, str]) -> None:
    users = test_set.sample_users(world["held_out"], 10, 0)
    assert users.to_pylist() == ["ann", "bob", "cat"]
    found = test_set.read_test_set(
        read(world), users, world["held_out"], world["history"], world["users"], max_fit=100, seed=0
    )
    assert found.user_id.to_pylist() == ["ann", "bob"]  # cat's only target may not be recommended
    #                                  a  b  c  d  e
    assert dense(found.history) == [[0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert dense(found.excluded) == [[1, 1, 0, 1, 0], [0, 1, 0, 0, 1]]
    assert dense(found.targets) == [[0, 0, 0, 0, 1], [1, 0, 0, 1, 0]]
    assert found.num_seen.tolist() == [1, 0]
    assert dense(found.fit)[:2] == dense(found.history)
    assert sorted(dense(found.fit)[2:]) == [[0, 0, 0, 1, 0], [1, 1, 0, 1, 0]]
    assert found.fit_share == 1


def test_users_and_histories_are_sampled_by_hash(tmp_path: Path) -> None:
    names = [f"u{i}" for i in range(300)]
    held_out = write(tmp_path, "held_out", pairs(" ".join(f"{n}:a" for n in names)), split_interactions.HELD_OUT)
    history = write(tmp_path, "history", pairs(" ".join(f"{n}:b" for n in names), weight=1.0), HISTORY)
    users = write(tmp_path, "users", [], schemas.USERS)
    few = test_set.sample_users(held_out, 40, 7)
    assert len(few) == 40 and set(few.to_pylist()) < set(names)
    assert few.to_pylist() == sorted(few.to_pylist())
    assert set(test_set.sample_users(held_out, 20, 7).to_pylist()) < set(few.to_pylist())
    posts = test_set.RankedPosts(
        pa.array(["a", "b"]), pa.nulls(2, pa.string()), np.ones(2, bool), np.zeros(2), np.zeros(2), pa.array(["", ""])
    )
    found = test_set.read_test_set(posts, few, held_out, history, users, max_fit=150, seed=7)
    assert found.fit_share == 0.5
    assert 40 + 90 < found.fit.shape[0] < 40 + 170
    np.testing.assert_array_equal(found.fit.toarray()[:, 1], 1)


def test_lists_are_read_by_rank(world: dict[str, str], tmp_path: Path) -> None:
    users = pa.array(["ann", "bob"])
    found = test_set.read_test_set(
        read(world), users, world["held_out"], world["history"], world["users"], max_fit=9, seed=0
    )
    rows = [
        {"user_id": user, "rank": rank, "post_id": post, "score": 0.0, "reason": "history"}
        for user, rank, post in [("bob", 2, "d"), ("bob", 1, "a"), ("zoe", 1, "e"), ("bob", 3, "e"), ("bob", 4, "gone")]
    ]
    lists = test_set.read_lists(write(tmp_path, "lists", rows, schemas.RECOMMENDATIONS), found, 3)
    assert lists.tolist() == [[-1, -1, -1], [0, 3, 4]]

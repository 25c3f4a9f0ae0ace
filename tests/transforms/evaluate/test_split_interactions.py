import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from transforms.evaluate import split_interactions
from transforms.evaluate.split_rules import HOLDOUT, Split, time_of
from transforms.ingest import input_files
from transforms.interactions.weights import InteractionWeights
from transforms.tables import blocks, counts, parquet, schemas

NewPipeline = Callable[[], beam.Pipeline]
SECOND = 1_000_000


def at(second: int | None) -> datetime.datetime | None:
    return None if second is None else time_of(second * SECOND)


def act(user: str, post: str, second: int | None = None, kind: str = "like") -> dict[str, Any]:
    return {"user_id": user, "post_id": post, "kind": kind, "created_at": at(second)}


POSTS: list[dict[str, Any]] = [
    {"post_id": "old", "text": "a", "created_at": at(0), "sensitive": False},
    {"post_id": "old2", "text": "a", "created_at": at(0), "sensitive": False},
    {"post_id": "timeless", "text": "a", "sensitive": False},
    {"post_id": "new", "text": "a", "created_at": at(60), "sensitive": False},
    {"post_id": "repost", "repost_of": "old2", "created_at": at(0), "sensitive": False},
]
USERS: list[dict[str, Any]] = [{"user_id": "stranger"}]


def split(
    new_pipeline: NewPipeline,
    directory: Path,
    how: Split,
    interactions: list[dict[str, Any]],
    holdout: list[dict[str, Any]] | None = None,
    num_parts: int = 3,
) -> tuple[list[dict[str, Any]], set[tuple[str, str]], dict[str, int]]:
    """The training rows, the pairs that are held out, the counts."""
    given = {
        "posts": pa.RecordBatch.from_pylist(POSTS, schema=schemas.POSTS).select(list(split_interactions.POST_COLUMNS)),
        "users": pa.RecordBatch.from_pylist(USERS, schema=schemas.USERS).select(["user_id"]),
        "interactions": pa.RecordBatch.from_pylist(interactions, schema=schemas.INTERACTIONS),
    }
    if holdout is not None:
        given["holdout"] = pa.RecordBatch.from_pylist(holdout, schema=schemas.INTERACTIONS)
    with new_pipeline() as pipeline:
        inputs = {
            name: pipeline | name >> beam.Create(list(blocks.split_rows(block, 2))) for name, block in given.items()
        }
        made = inputs | split_interactions.SplitInteractions(how, InteractionWeights(), num_parts)
        _ = made.train | "Train" >> parquet.WriteParts(str(directory / "train"), schemas.INTERACTIONS)
        _ = made.held_out | "HeldOut" >> parquet.WriteParts(str(directory / "held_out"), split_interactions.HELD_OUT)
        _ = made.counts | counts.WriteCounts(str(directory / "held_out"))
    train = [row for b in parquet.read_blocks(str(directory / "train"), 100) for row in b.to_pylist()]
    held_out = [row for b in parquet.read_blocks(str(directory / "held_out"), 100) for row in b.to_pylist()]
    pairs = {(row["user_id"], row["post_id"]) for row in held_out}
    assert len(pairs) == len(held_out)
    return train, pairs, counts.read_counts(str(directory / "held_out"))


def test_a_time_split_cuts_everybody_at_once(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    interactions = [
        act("ann", "old", 10),
        act("ann", "old2", 50),  # the cut itself still counts as before
        act("ann", "timeless", 51),
        act("ann", "new", 70),
        act("ann", "old", 80),  # known already
        act("ann", "gone", 80),  # not in the input
        act("bob", "old2", None),  # who knows when
        act("bob", "old", 80, "hide"),  # against it
        act("bob", "timeless", 80, "view"),
        act("bob", "timeless", 81, "hide"),  # in the end against it
        act("bob", "new", 101),  # later than the run: a wrong time
        act("cat", "new", 20),  # before the post was made: a wrong time
        act("dan", "new", 80),  # dan is not known to the run
        act("stranger", "new", 80),  # in users/
    ]
    how = Split("time", cut=50 * SECOND, until=100 * SECOND)
    train, held_out, found = split(new_pipeline, tmp_path, how, interactions)
    assert sorted((row["user_id"], row["post_id"]) for row in train) == [
        ("ann", "old"),
        ("ann", "old2"),
        ("bob", "old2"),
    ]
    assert held_out == {("ann", "timeless"), ("ann", "new"), ("stranger", "new")}
    assert found == {"train": 3, "held_out": 3, "of_unknown_users": 1, "neither": 2}


def test_what_is_done_with_a_repost_is_held_out_as_its_original(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    interactions = [act("ann", "old", 10), act("ann", "repost", 60), act("bob", "repost", 10), act("bob", "old2", 60)]
    train, held_out, _ = split(new_pipeline, tmp_path, Split("time", cut=50 * SECOND), interactions)
    assert held_out == {("ann", "old2")}
    assert {row["post_id"] for row in train} == {"old", "repost"}


def test_a_user_split_takes_the_newest_of_each(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    interactions = [
        *[act("ann", name, 100 - i) for i, name in enumerate(["new", "timeless", "old2", "old", "repost"])],
        act("bob", "old", 5),
    ]
    train, held_out, _ = split(new_pipeline, tmp_path, Split("user"), interactions)
    assert held_out == {("ann", "new")}  # int(.8 * 5) = 4 stay; bob's only one is held out, and bob not known
    assert len(train) == 4


@pytest.mark.parametrize("num_parts", [1, 4])
def test_splits_do_not_depend_on_parts_or_the_order_of_arrival(
    new_pipeline: NewPipeline, tmp_path: Path, num_parts: int
) -> None:
    ids = [post["post_id"] for post in POSTS]
    interactions = [act(f"u{u}", post, None if i % 2 else 7) for u in range(6) for i, post in enumerate(ids)]
    made = [
        split(new_pipeline, tmp_path / str(i), Split("user", seed=5), rows, num_parts=num_parts)
        for i, rows in enumerate([interactions, interactions[::-1]])
    ]
    reference = split(new_pipeline, tmp_path / "reference", Split("user", seed=5), interactions, num_parts=2)
    key = lambda row: (row["user_id"], row["post_id"])  # noqa: E731
    for train, held_out, _ in made:
        assert held_out == reference[1]
        assert sorted(train, key=key) == sorted(reference[0], key=key)


def test_a_cold_split_takes_posts_from_everybody(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    from transforms.evaluate.split_rules import by_post, cold_codes

    ids = pa.array([post["post_id"] for post in POSTS])
    how = by_post(lambda: iter([cold_codes(ids, 1)]), share=0.4, seed=1)
    cold = set(ids.filter(pa.array(how.is_cold(ids))).to_pylist())
    assert len(cold) == 2
    interactions = [act(user, post) for user in ("ann", "bob") for post in ids.to_pylist() if post != "repost"]
    train, held_out, _ = split(new_pipeline, tmp_path, how, interactions)
    assert not {row["post_id"] for row in train} & cold
    assert held_out == {(user, post) for user in ("ann", "bob") for post in cold - {"repost"}}


def test_a_table_of_its_own_is_held_out_as_it_is(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    train, held_out, _ = split(
        new_pipeline, tmp_path, Split(HOLDOUT), [act("ann", "old", 70)], [act("ann", "old", 1), act("ann", "new", 1)]
    )
    assert [row["post_id"] for row in train] == ["old"]
    assert held_out == {("ann", "new")}


def test_a_held_out_file_is_read_as_interactions_are(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text('{"user_id": "ann", "post_id": "old", "kind": "LIKE"}\n{"user_id": "ann"}\n')
    with new_pipeline() as pipeline:
        files = input_files.find_files(str(path))
        rows, tallies = pipeline | split_interactions.ReadHoldout(files, 1)
        _ = (
            rows
            | "Number" >> beam.Map(lambda block: (0, block))
            | parquet.WriteParts(str(tmp_path / "out"), schemas.INTERACTIONS)
        )
        _ = tallies | counts.WriteCounts(str(tmp_path / "out"))
    (block,) = parquet.read_blocks(str(tmp_path / "out"), 10)
    assert [(row["user_id"], row["post_id"], row["kind"]) for row in block.to_pylist()] == [("ann", "old", "like")]
    found = counts.read_counts(str(tmp_path / "out"))
    assert found["holdout.read"] == 2 and found["holdout.rejected"] == 1


def test_ids_of_digits_are_in_the_order_of_numbers() -> None:
    ids = ["10", "9", "x1", "009", "100", "", "a"]
    number, text = split_interactions.natural_order(pa.array(ids))
    order = sorted(range(len(ids)), key=lambda i: (number[i], text[i].as_py(), ids[i]))
    assert [ids[i] for i in order] == ["009", "9", "10", "100", "", "a", "x1"]


def test_equal_times_are_in_the_order_of_numbers() -> None:
    rows = [act("ann", str(post), 5) | {"original": str(post), "known": True, "role": 0} for post in (30, 4, 5, 200, 1)]
    marked = pa.RecordBatch.from_pylist(rows, schema=split_interactions._MARKED)
    found = split_interactions.own_newest(marked, Split("user", 0.4))
    roles = dict(zip(found.column("post_id").to_pylist(), found.column("role").to_pylist(), strict=True))
    assert roles == {"1": 0, "4": 0, "5": 0, "30": 1, "200": 1}


def test_what_has_no_time_is_spread_by_hash() -> None:
    posts = np.arange(1000)
    rows = [act("ann", f"{post:04d}") | {"original": f"{post}", "known": True, "role": 0} for post in posts]
    found = split_interactions.own_newest(
        pa.RecordBatch.from_pylist(rows, schema=split_interactions._MARKED), Split("user", 0.2)
    )
    test = np.array([int(row["post_id"]) for row in found.to_pylist() if row["role"] == split_interactions.TEST])
    assert len(test) == 200
    assert 400 < test.mean() < 600


def test_what_has_no_time_is_held_out_of_other_posts_for_each_user() -> None:
    rows = [act(user, f"p{i}") | {"original": "", "known": True, "role": 0} for user in "ab" for i in range(100)]
    found = split_interactions.own_newest(
        pa.RecordBatch.from_pylist(rows, schema=split_interactions._MARKED), Split("user", 0.2)
    )
    last = {user: set() for user in "ab"}
    for row in found.to_pylist():
        if row["role"] == split_interactions.TEST:
            last[row["user_id"]].add(row["post_id"])
    assert len(last["a"]) == len(last["b"]) == 20 and len(last["a"] & last["b"]) < 12

import datetime
import math
import tempfile
from collections.abc import Callable
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from transforms.interactions import reposts
from transforms.interactions.history import MakeHistory, recency
from transforms.interactions.weights import InteractionWeights, parse_kind_weights, rating_factors
from transforms.tables import blocks, parquet, schemas

NewPipeline = Callable[[], beam.Pipeline]
Rows = list[dict[str, Any]]
NOW = datetime.datetime(2024, 6, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def make_history(
    new_pipeline: NewPipeline,
    interactions: Rows,
    posts: Rows | None = None,
    block_rows: int = 3,
    num_parts: int = 4,
    half_life_days: float = 10,
    until: datetime.datetime | None = None,
) -> Rows:
    found = pa.RecordBatch.from_pylist(interactions, schema=schemas.INTERACTIONS)
    known = pa.RecordBatch.from_pylist(
        [{"sensitive": False, **post} for post in posts or [{"post_id": "p"}]], schema=schemas.POSTS
    )
    with tempfile.TemporaryDirectory() as directory:
        with new_pipeline() as pipeline:
            parts = {
                "interactions": pipeline | "I" >> beam.Create(list(blocks.split_rows(found, block_rows))),
                "posts": pipeline | "P" >> beam.Create(list(blocks.split_rows(known.select(reposts.COLUMNS), 2))),
            } | MakeHistory(InteractionWeights(half_life_days=half_life_days), num_parts, until)
            _ = parts | parquet.WriteParts(directory, schemas.HISTORY)
        written = [parquet.read_file(path).to_pylist() for path in parquet.list_files(directory)]
    for rows in written:
        keys = [(row["user_id"], row["post_id"]) for row in rows]
        assert keys == sorted(set(keys))
    return sorted((row for rows in written for row in rows), key=lambda row: (row["user_id"], row["post_id"]))


def act(user: str, post: str, kind: str | None = "like", days_ago: float | None = 0, **more: object) -> dict:
    when = None if days_ago is None else NOW - days_ago * DAY
    return {"user_id": user, "post_id": post, "kind": kind, "created_at": when, **more}


def test_weights_add_up_over_kinds_and_fade_with_age(new_pipeline: NewPipeline) -> None:
    rows = make_history(
        new_pipeline,
        [
            act("u", "a", "like", 10),
            act("u", "a", "View", 0),
            act("u", "b", "hide", 20),
            act("u", "b", "unheard of", None),
            act("v", "elsewhere", "BOOKMARK", 0),
            act("v", "old", None, 100_000),
        ],
    )
    got = {(row["user_id"], row["post_id"]): (row["weight"], row["num_interactions"]) for row in rows}
    assert got == {
        ("u", "a"): (pytest.approx(0.5 + 0.2), 2),
        ("u", "b"): (pytest.approx(-0.25 + 0.1), 2),
        ("v", "elsewhere"): (1.5, 1),
        ("v", "old"): (pytest.approx(0.2 * 2.0**-60), 1),
    }
    assert [row["created_at"] for row in rows][:2] == [NOW, NOW - 20 * DAY]


@pytest.mark.parametrize(("block_rows", "num_parts"), [(1, 1), (7, 3), (1000, 16)])
def test_blocks_and_parts_do_not_change_a_bit(new_pipeline: NewPipeline, block_rows: int, num_parts: int) -> None:
    rng = np.random.default_rng(0)
    kinds = ["like", "view", "rating", "hide"]
    interactions = [
        act(
            f"u{rng.integers(9)}",
            f"p{rng.integers(12)}",
            kinds[rng.integers(4)],
            float(rng.uniform(0, 50)),
            value=float(rng.integers(1, 6)),
        )
        for _ in range(150)
    ]
    reference = make_history(new_pipeline, interactions, block_rows=150, num_parts=2)
    shuffled = [interactions[i] for i in rng.permutation(150)]
    assert make_history(new_pipeline, shuffled, block_rows=block_rows, num_parts=num_parts) == reference
    assert sum(int(str(row["num_interactions"])) for row in reference) == 150


def test_reposts_count_for_the_original_where_it_is_known(new_pipeline: NewPipeline) -> None:
    chain: Rows = [{"post_id": f"r{i}", "repost_of": f"r{i - 1}" if i > 1 else "o"} for i in range(1, 9)]
    posts: Rows = [
        {"post_id": "o", "text": "hello"},
        *chain,
        {"post_id": "quote", "text": "look", "repost_of": "o"},
        {"post_id": "picture", "media": [{"kind": "image", "uri": "x", "alt": None}], "repost_of": "o"},
        {"post_id": "orphan", "text": "  ", "repost_of": "gone"},
        {"post_id": "ring1", "repost_of": "ring2"},
        {"post_id": "ring2", "repost_of": "ring1"},
        {"post_id": "self", "repost_of": "self"},
    ]
    seen = ["o", "r1", "r3", "r8", "quote", "picture", "orphan", "self", "gone"]
    rows = make_history(new_pipeline, [act("u", post) for post in seen], posts)
    assert {row["post_id"]: row["num_interactions"] for row in rows} == {
        "o": 4, "quote": 1, "picture": 1, "orphan": 1, "self": 1, "gone": 1,
    }  # fmt: skip


def test_a_time_in_the_future_does_not_make_the_others_old(new_pipeline: NewPipeline) -> None:
    interactions = [act("u", "a", days_ago=-30_000), act("u", "b", days_ago=0), act("u", "c", days_ago=10)]
    rows = make_history(new_pipeline, interactions, until=NOW + DAY)
    assert [row["weight"] for row in rows] == [1.0, 1.0, 0.5]


def test_without_times_age_does_not_matter(new_pipeline: NewPipeline) -> None:
    rows = make_history(new_pipeline, [act("u", "a", days_ago=None), act("u", "b", "view", days_ago=None)])
    assert [row["weight"] for row in rows] == [1.0, pytest.approx(0.2)]
    assert rows[0]["created_at"] is None


def test_strength_leaves_age_and_rating_out_and_is_bounded(new_pipeline: NewPipeline) -> None:
    rows = make_history(
        new_pipeline,
        [
            act("u", "low", "rating", 10, value=1.0),
            act("u", "high", "rating", 0, value=5.0),
            act("u", "twice", "view", 20),
            act("u", "twice", "click", 0),
            *(act("u", "often", "share", days) for days in range(5)),
            act("u", "hidden", "like", 0),
            act("u", "hidden", "block", 50),
        ],
    )
    got = {row["post_id"]: (row["weight"], row["strength"]) for row in rows}
    assert got["low"] == (0.25, 1)
    assert got["high"] == (1, 1)
    assert got["twice"][1] == pytest.approx(0.5)
    assert got["often"][0] > 2 and got["often"][1] == 2
    assert got["hidden"] == (pytest.approx(1 - 2 / 32), 0)


def test_recency_is_the_place_in_the_users_own_history(new_pipeline: NewPipeline) -> None:
    rows = make_history(
        new_pipeline,
        [
            act("u", "old", days_ago=900),
            act("u", "new", days_ago=300),
            act("u", "same", days_ago=800),
            act("u", "time", days_ago=800),
            act("u", "unknown", days_ago=None),
            act("u", "again", days_ago=1000),
            act("u", "again", days_ago=200),
            act("v", "a", days_ago=None),
            act("v", "b", days_ago=None),
            act("w", "only"),
        ],
    )
    got = {row["post_id"]: row["recency"] for row in rows}
    sixths = {"again": 0, "new": 1, "same": 2.5, "time": 2.5, "old": 4, "unknown": 5}
    assert got == pytest.approx({post: place / 6 for post, place in sixths.items()} | {"a": 0, "b": 0, "only": 0})


def test_recency_takes_rows_in_any_order() -> None:
    user = np.array([1, 0, 1, 0, 1])
    time = np.array([5, 7, -3, 9, 5])
    assert recency(user, time).tolist() == pytest.approx([0.5 / 3, 0.5, 2 / 3, 0, 0.5 / 3])
    assert recency(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


def test_no_interactions_no_history(new_pipeline: NewPipeline) -> None:
    assert make_history(new_pipeline, []) == []


def test_ratings_are_read_on_the_users_own_scale() -> None:
    user = np.array([0, 0, 0, 1, 1, 2, 3])
    rating = np.array([1.0, 3.0, 5.0, 80.0, 80.0, math.nan, 0.3])
    assert rating_factors(user, rating).tolist() == [0.5, 1, 1, 1, 1, 1, 1]


def test_kind_weights_replace_the_default_ones() -> None:
    weights = parse_kind_weights(" Like=2, boost = 1.25,hide=-3,")
    assert (weights["like"], weights["boost"], weights["hide"], weights["view"]) == (2, 1.25, -3, 0.2)


@pytest.mark.parametrize("text", ["like", "like=", "=1", "like=x", "like=nan", "like=1,like=2"])
def test_bad_kind_weights_are_named(text: str) -> None:
    with pytest.raises(ValueError, match="kind_weights"):
        parse_kind_weights(text)


def test_half_life_is_checked() -> None:
    with pytest.raises(ValueError, match="half_life_days must be at least 0, got -1"):
        InteractionWeights(half_life_days=-1)

"""embed and recommend on a world of two topics: fused by the real fuse stage, an encoder that is the identity."""

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines import embed, fuse, recommend, stage
from pipelines.options import Options
from transforms import blocks, counts, schemas, tables
from transforms.text import text_terms

NOW = datetime.datetime(2024, 5, 31, tzinfo=datetime.UTC)
WORDS = {"football": "football goal match striker league", "cooking": "cooking soup onion butter oven"}
TOPICS = list(WORDS)
NUM_POSTS = 40


def make_posts() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    posts: list[dict[str, Any]] = []
    for i in range(NUM_POSTS):
        topic = TOPICS[i % 2]
        words = rng.choice(WORDS[topic].split(), 4)
        posts.append(
            {
                "post_id": f"{topic}{i:02d}",
                "author_id": f"author{i % 5}",
                "created_at": NOW - datetime.timedelta(days=i),
                "text": f"{topic} " + " ".join(words),
                "sensitive": i in (4, 5),
                "reply_to": "football00" if i in (6, 7) else None,
            }
        )
    posts.append({"post_id": "repost", "repost_of": "cooking01", "created_at": NOW, "sensitive": False})
    posts.append({"post_id": "empty", "author_id": "author9", "created_at": NOW, "sensitive": False})
    return posts


def act(user: str, post: str, kind: str = "like") -> dict[str, Any]:
    return {"user_id": user, "post_id": post, "kind": kind, "created_at": NOW}


INTERACTIONS = [
    *[act("fan", f"football{i:02d}") for i in (0, 2, 8)],
    act("cook", "repost"),
    act("hater", "football00", "hide"),
    act("fan", "not_in_the_input"),
]
USERS: list[dict[str, Any]] = [
    {"user_id": "says_cooking", "interests": ["cooking"], "bio": "soup and butter"},
    {"user_id": "says_nothing_known", "bio": "zxqw"},
    {"user_id": "fan", "blocked_authors": ["author2"]},
    {"user_id": "author1"},
]


def write(directory: Path, table: str, rows: list[dict[str, Any]], schema: pa.Schema, part_rows: int) -> None:
    block = pa.RecordBatch.from_pylist(rows, schema=schema)
    pieces = list(blocks.split_rows(block, part_rows)) or [block]
    for i, piece in enumerate(pieces):
        tables.write_file(str(directory / table / f"part-{i:05d}.parquet"), piece, schema)


def write_features(directory: Path, posts: list[dict[str, Any]]) -> None:
    block = pa.RecordBatch.from_pylist(posts, schema=schemas.POSTS)
    terms, term_counts = text_terms(block.column("text"))
    columns = [block.column(name) for name in ("post_id", "author_id", "created_at")]
    schema = schemas.features({})
    features = pa.RecordBatch.from_arrays([*columns, terms, term_counts], schema=schema)
    tables.write_file(str(directory / "features" / "part-00000.parquet"), features, schema)


def write_model(directory: Path) -> int:
    """An encoder whose latent vector is the fused one."""
    import tensorflow as tf

    layout = json.loads((directory / "fused" / "_layout.json").read_text())
    width, num_modalities = layout["width"], len(layout["modalities"])

    class Identity(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, width], tf.float32, name="fused"),
                tf.TensorSpec([None, num_modalities], tf.float32, name="mask"),
            ]
        )
        def serve(self, fused: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"latent": fused + 0 * tf.reduce_sum(mask)}

    module = Identity()
    tf.saved_model.save(module, str(directory / "model" / "encoder"), signatures=module.serve)
    (directory / "model" / "model.json").write_text(json.dumps({"latent": width}))
    return int(width)


@pytest.fixture(scope="module")
def fused_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory that has everything but what embed and recommend write."""
    output = tmp_path_factory.mktemp("out")
    directory = output / "runs" / "2024-05-31"
    posts = make_posts()
    write(directory, "posts", posts, schemas.POSTS, 15)
    write(directory, "interactions", INTERACTIONS, schemas.INTERACTIONS, 2)
    write(directory, "users", USERS, schemas.USERS, 3)
    write_features(directory, posts)
    stage.execute(fuse.STAGE, options_of(output, text_width=8, min_document_frequency=1))
    write_model(directory)
    return output


def options_of(output: Path, **flags: Any) -> Options:
    return Options(output=str(output), run_date="2024-05-31", **flags)


def run(output: Path, **flags: Any) -> dict[str, list[dict[str, Any]]]:
    options = options_of(output, **flags)
    for each in (embed.STAGE, recommend.STAGE):
        stage.execute(each, options)
    found = {}
    for table in (*embed.STAGE.writes, *recommend.STAGE.writes):
        directory = str(output / "runs" / "2024-05-31" / table)
        found[table] = [row for block in tables.read_blocks(directory, 1000) for row in block.to_pylist()]
    return found


def lists(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    by_user: dict[str, list[dict[str, Any]]] = {}
    for row in found["recommendations"]:
        by_user.setdefault(row["user_id"], []).append(row)
    return by_user


def topics(rows: list[dict[str, Any]]) -> set[str]:
    return {row["post_id"].rstrip("0123456789") for row in rows}


def test_everybody_gets_what_is_known_of_them(fused_run: Path) -> None:
    found = run(fused_run, k=6)
    sources = {row["user_id"]: row["source"] for row in found["user_embeddings"]}
    assert sources == {
        "fan": "history",
        "cook": "history",
        "hater": "none",
        "says_cooking": "interests",
        "says_nothing_known": "none",
        "author1": "none",
    }
    by_user = lists(found)
    assert topics(by_user["fan"]) == {"football"}
    assert topics(by_user["cook"]) == topics(by_user["says_cooking"]) == {"cooking"}
    authors = {row["post_id"]: row["author_id"] for row in found["candidates"]}
    assert "author2" not in {authors[row["post_id"]] for row in by_user["fan"]}
    assert {row["because_post_id"] for row in by_user["cook"]} == {"cooking01"}
    assert {row["reason"] for row in by_user["says_cooking"]} == {"interests"}
    assert {row["reason"] for row in by_user["hater"]} == {"popular"}
    assert "football00" not in {row["post_id"] for row in by_user["hater"]}
    assert by_user["author1"][0]["post_id"] in ("cooking01", "football00", "football02", "football08")
    assert "author1" not in {authors[row["post_id"]] for row in by_user["author1"]}


def test_the_contracts_hold(fused_run: Path) -> None:
    found = run(fused_run, k=100, num_parts=3)
    users = {row["user_id"]: np.array(row["embedding"]) for row in found["user_embeddings"]}
    items = {row["post_id"]: np.array(row["embedding"]) for row in found["item_embeddings"]}
    assert len(items) == NUM_POSTS + 2
    assert [row["modalities"] for row in found["item_embeddings"] if row["post_id"] == "empty"] == [[]]
    seen = {(row["user_id"], row["post_id"]) for row in found["history"]}
    assert ("cook", "cooking01") in seen and ("fan", "not_in_the_input") in seen
    hidden = {"repost", "football04", "cooking05"}
    for user, rows in lists(found).items():
        assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
        assert not {(user, row["post_id"]) for row in rows} & seen
        assert not {row["post_id"] for row in rows} & hidden
        for row in rows:
            if row["reason"] != "popular":
                assert row["score"] == pytest.approx(users[user] @ items[row["post_id"]], rel=1e-4, abs=1e-6)
    for row in found["similar_posts"]:
        assert row["post_id"] != row["neighbor_id"]
        assert not {row["post_id"], row["neighbor_id"]} & hidden
    nearest = [row for row in found["similar_posts"] if row["rank"] == 1]
    assert len(nearest) == NUM_POSTS - 2
    assert all(topics([row]) == {row["neighbor_id"].rstrip("0123456789")} for row in nearest)
    directory = fused_run / "runs" / "2024-05-31" / "history"
    assert counts.read_counts(str(directory))["profiles.liked.entries_without_vector"] == 1


def test_flags_reach_the_lists(fused_run: Path) -> None:
    found = run(
        fused_run, k=50, max_age_days=10, max_per_author=1, exclude_replies=True, include_sensitive=True,
        include_seen=True, similar_k=0, kind_weights="like=3", half_life_days=0.0,
    )  # fmt: skip
    assert found["similar_posts"] == []
    assert {row["weight"] for row in found["history"]} == {3.0, -1.0}
    rows = {row["post_id"]: row for row in found["candidates"]}
    by_user = lists(found)
    shown = {row["post_id"] for row in found["recommendations"]}
    assert all(rows[post]["created_at"] >= datetime.datetime(2024, 5, 22, tzinfo=datetime.UTC) for post in shown)
    assert shown & {"football04", "cooking05"} and not shown & {"football06", "cooking07"}
    assert "football00" in {row["post_id"] for row in by_user["fan"]}
    for listed in by_user.values():
        authors = [rows[row["post_id"]]["author_id"] for row in listed]
        assert len(set(authors)) == len(authors)


def test_bad_kind_weights_are_bad_usage(fused_run: Path) -> None:
    with pytest.raises(stage.UsageError, match="--kind_weights must be like like=1,hide=-1, got 'like'"):
        stage.execute(embed.STAGE, options_of(fused_run, kind_weights="like"))

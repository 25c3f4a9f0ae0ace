import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from transforms.recommend import candidates
from transforms.tables import blocks, parquet, schemas

NewPipeline = Callable[[], beam.Pipeline]
THEN = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
POSTS: list[dict[str, Any]] = [
    {"post_id": "plain", "text": "hello", "author_id": "ann", "created_at": THEN, "lang": "pt-BR"},
    {"post_id": "sensitive", "text": "x", "sensitive": True},
    {"post_id": "reply", "text": "yes", "reply_to": "plain"},
    {"post_id": "repost", "repost_of": "plain"},
    {"post_id": "quote", "text": "look", "repost_of": "plain"},
    {"post_id": "bare"},
]


def did(user: str, post: str, weight: float) -> dict[str, Any]:
    counts = {"strength": 1.0, "recency": 0.0, "num_interactions": 1}
    return {"user_id": user, "post_id": post, "weight": weight} | counts


def make_candidates(
    new_pipeline: NewPipeline, directory: Path, history: list[dict], num_parts: int, block_rows: int
) -> pa.Table:
    items = [{"post_id": "plain", "embedding": [0.6, 0.8]}, {"post_id": "quote", "embedding": [1.0, 0.0]}]
    profiles = [{"post_id": "reply", "profile": [7.0, 8.0, 9.0]}, {"post_id": "plain", "profile": [1.0, 2.0, 3.0]}]
    posts = pa.RecordBatch.from_pylist([{"sensitive": False, **post} for post in POSTS], schema=schemas.POSTS)
    given = {
        "posts": posts.select(candidates.COLUMNS),
        "items": pa.RecordBatch.from_pylist(items, schema=schemas.item_embeddings(2)),
        "profiles": pa.RecordBatch.from_pylist(profiles, schema=schemas.post_profiles(3)),
        "history": pa.RecordBatch.from_pylist(history, schema=schemas.HISTORY),
    }
    with new_pipeline() as pipeline:
        _ = (
            {name: pipeline | name >> beam.Create(list(blocks.split_rows(b, block_rows))) for name, b in given.items()}
            | candidates.MakeCandidates(2, 3, num_parts)
            | parquet.WriteParts(str(directory), schemas.candidates(2, 3))
        )
    table = pa.Table.from_batches(list(parquet.read_blocks(str(directory), 1000)))
    assert table.schema.equals(schemas.candidates(2, 3))
    return table.sort_by("post_id")


def test_every_post_once_with_its_flags_and_popularity(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    weights = [("u", "plain", 1.0), ("v", "plain", 0.5), ("w", "plain", -2.0), ("u", "gone", 1.0), ("u", "reply", -1.0)]
    history = [did(*row) for row in weights]
    rows = {row["post_id"]: row for row in make_candidates(new_pipeline, tmp_path, history, 3, 2).to_pylist()}
    assert rows.keys() == {post["post_id"] for post in POSTS}
    assert {name for name, row in rows.items() if row["is_repost"]} == {"repost"}
    assert {name for name, row in rows.items() if row["is_reply"]} == {"reply"}
    assert {name for name, row in rows.items() if row["sensitive"]} == {"sensitive"}
    assert {name: row["popularity"] for name, row in rows.items() if row["popularity"]} == {"plain": 1.5}
    np.testing.assert_allclose(rows["plain"]["embedding"], [0.6, 0.8])
    assert rows["bare"]["embedding"] == rows["reply"]["embedding"] == [0, 0]
    assert rows["plain"]["profile"] == [1, 2, 3] and rows["reply"]["profile"] == [7, 8, 9]
    assert rows["bare"]["profile"] == rows["quote"]["profile"] == [0, 0, 0]
    assert (rows["plain"]["author_id"], rows["plain"]["created_at"]) == ("ann", THEN)
    assert {name: row["lang"] for name, row in rows.items() if row["lang"]} == {"plain": "pt"}


@pytest.mark.parametrize(("num_parts", "block_rows"), [(1, 1000), (9, 3)])
def test_popularity_does_not_depend_on_parts(
    new_pipeline: NewPipeline, tmp_path: Path, num_parts: int, block_rows: int
) -> None:
    rng = np.random.default_rng(0)
    history = [did(f"u{i}", POSTS[i % 6]["post_id"], float(rng.uniform(0, 3))) for i in range(200)]
    first = make_candidates(new_pipeline, tmp_path / "a", history, 4, 50)
    shuffled = [history[i] for i in rng.permutation(200)]
    assert make_candidates(new_pipeline, tmp_path / "b", shuffled, num_parts, block_rows).equals(first)

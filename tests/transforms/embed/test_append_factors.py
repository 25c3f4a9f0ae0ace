from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from transforms.embed.append_factors import AppendFactors
from transforms.embed.parameters import Trend
from transforms.tables import blocks, parquet, schemas

NewPipeline = Callable[[], beam.Pipeline]
NUM_POSTS, WIDTH, RANK = 60, 4, 3
NUM_USERS = 9
DAY = 86_400_000_000


def make_tables() -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Posts in no order; factors of some of them and of posts that are not in the input."""
    rng = np.random.default_rng(2)
    ids = [f"p{i:02d}" for i in rng.permutation(NUM_POSTS)]
    fused = pa.RecordBatch.from_arrays(
        [
            pa.array(ids),
            pa.array([None if i % 7 == 0 else f"a{i}" for i in range(NUM_POSTS)]),
            pa.array([None if i % 5 == 0 else (60 + i % 39) * DAY for i in range(NUM_POSTS)], schemas.TIMESTAMP),
            blocks.numpy_to_vectors(rng.normal(size=(NUM_POSTS, WIDTH))),
            blocks.numpy_to_vectors(rng.integers(0, 2, (NUM_POSTS, 2))),
            *[pa.array(np.zeros(NUM_POSTS))] * 2,
        ],
        schema=schemas.fused(WIDTH, 2),
    )
    liked = [*rng.permutation(ids)[:25], "gone1", "gone2"]
    values, _ = np.linalg.qr(rng.normal(size=(len(liked), RANK)))
    degree = pa.array(rng.integers(1, 9, len(liked)).astype(float))
    columns = [pa.array(liked), blocks.numpy_to_vectors(values), degree]
    return fused, pa.RecordBatch.from_arrays(columns, schema=schemas.collaborative(RANK))


def append(
    new_pipeline: NewPipeline,
    directory: Path,
    rank: int,
    num_parts: int,
    block_rows: int,
    trend: Trend | None = None,
    history: pa.RecordBatch | None = None,
) -> list[dict]:
    fused, factors = make_tables()
    given = {"fused": fused, "factors": factors if rank else factors.slice(0, 0)}
    if history is not None:
        given["history"] = history
    if not rank:
        given["factors"] = schemas.empty(schemas.collaborative(1))
    with new_pipeline() as pipeline:
        _ = (
            {
                name: pipeline | name >> beam.Create(list(blocks.split_rows(block, block_rows)) or [block])
                for name, block in given.items()
            }
            | AppendFactors(WIDTH, 2, rank, factors.num_rows, NUM_USERS, num_parts, trend)
            | parquet.WriteParts(str(directory), schemas.fused(WIDTH + rank, 2 + (rank > 0)))
        )
    parts = [parquet.read_file(path) for path in parquet.list_files(str(directory))]
    for part in parts:
        ids = part.column("post_id").to_pylist()
        assert ids == sorted(ids)
    return sorted((row for part in parts for row in part.to_pylist()), key=lambda row: row["post_id"])


@pytest.mark.parametrize(("num_parts", "block_rows"), [(1, 1000), (5, 7)])
def test_every_post_once_with_its_factors(
    new_pipeline: NewPipeline, tmp_path: Path, num_parts: int, block_rows: int
) -> None:
    fused, factors = make_tables()
    found = append(new_pipeline, tmp_path, RANK, num_parts, block_rows)
    posts = {row["post_id"]: row for row in fused.to_pylist()}
    known = {row["post_id"]: row for row in factors.to_pylist()}
    assert [row["post_id"] for row in found] == sorted(posts)
    root = np.float32(np.sqrt(len(known)))
    for row in found:
        post, own = posts[row["post_id"]], known.get(row["post_id"])
        added = np.zeros(RANK) if own is None else np.array(own["factors"], np.float32) * root
        assert row["fused"] == [*post["fused"], *added.tolist()]
        assert row["mask"] == [*post["mask"], float(own is not None)]
        assert row["degree"] == (own["degree"] if own else 0)
        assert (row["author_id"], row["created_at"]) == (post["author_id"], post["created_at"])
    assert sum(row["mask"][-1] for row in found) == 25


def test_the_numbers_of_factors_have_mean_square_one() -> None:
    _, factors = make_tables()
    values = blocks.vectors_to_numpy(factors.column("factors")).astype(float) * np.sqrt(factors.num_rows)
    np.testing.assert_allclose((values**2).mean(axis=0), 1, rtol=1e-5)


def test_without_factors_nothing_is_added(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    fused, _ = make_tables()
    found = append(new_pipeline, tmp_path, 0, 3, 11)
    assert found == sorted(fused.to_pylist(), key=lambda row: row["post_id"])


def test_what_is_liked_lately_is_told_by_the_history(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    days, strength = rng.uniform(80, 100, 300), rng.choice([0.0, 1.0], 300).astype(np.float32)
    posts = [f"p{i:02d}" for i in rng.integers(0, 40, 300)]
    times = [None if i % 9 == 0 else int(day * DAY) for i, day in enumerate(days)]
    arrays = [pa.array(posts), pa.array(strength), pa.array(times, schemas.TIMESTAMP)]
    history = pa.RecordBatch.from_arrays(arrays, names=["post_id", "strength", "created_at"])
    lately = Trend(half_life=5.0, newness=2.0, weight=1.0, away=None, newest=99.0, per_user=0.7)
    one, many = (
        append(new_pipeline, tmp_path / str(number), RANK, number, rows, lately, history)
        for number, rows in ((1, 1000), (5, 7))
    )
    _, factors = make_tables()
    mean = 0.7 * NUM_USERS / factors.num_rows
    heat = dict.fromkeys((row["post_id"] for row in one), 0.0)
    for post, day, time, liked in zip(posts, days, times, strength, strict=True):
        heat[post] += 0.5 ** (max(99.0 - day, 0) / 5.0) if time is not None and liked else 0.0
    for row in one:
        hot, made = np.log(1 + heat[row["post_id"]] / mean), row["created_at"]
        age = np.inf if made is None else 99.0 - made.timestamp() / 86_400
        assert row["trend"] == pytest.approx(hot + 2 * 0.5 ** (age / 5), rel=1e-6, abs=1e-9)
    assert [row["trend"] for row in one] == [row["trend"] for row in many]
    assert 0 < sum(row["trend"] == 0 for row in one) < NUM_POSTS


def test_the_number_of_parts_is_checked() -> None:
    with pytest.raises(ValueError, match="num_parts must be at least 1, got 0"):
        AppendFactors(WIDTH, 2, RANK, 10, NUM_USERS, 0)

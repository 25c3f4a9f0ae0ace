import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.transforms.evaluate.test_set_fixtures import random_world
from transforms.evaluate import baselines, content_baselines, evaluation
from transforms.evaluate.test_set import HeldOutSet
from transforms.fuse import transform_fn
from transforms.fuse.tft_graph import ModalityBlock
from transforms.metrics import ranking
from transforms.tables import blocks, parquet, schemas


@pytest.fixture
def held_out() -> HeldOutSet:
    return random_world(60, 80)


@pytest.fixture
def fused(held_out: HeldOutSet, tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    num_posts = len(held_out.posts.post_id)
    schema = pa.schema([schemas.fused(4, 2).field(name) for name in ("post_id", "fused", "mask")])
    columns = [
        held_out.posts.post_id,
        blocks.numpy_to_vectors(rng.normal(size=(num_posts, 4))),
        blocks.numpy_to_vectors(np.tile([1.0, 0.0], (num_posts, 1))),
    ]
    parquet.write_file(str(tmp_path / "part-0.parquet"), pa.RecordBatch.from_arrays(columns, schema=schema), schema)
    layout = transform_fn.FusedLayout((ModalityBlock("text", 0, 3, 3), ModalityBlock("collaborative", 3, 1, 1)))
    transform_fn.write_layout(layout, str(tmp_path))
    return str(tmp_path)


def perfect(held_out: HeldOutSet) -> np.ndarray:
    lists = np.full((len(held_out.user_id), evaluation.MAX_K), -1)
    for user in range(len(lists)):
        wanted = held_out.targets[user].indices
        lists[user, : len(wanted)] = wanted
    return lists


def test_every_method_is_measured_on_the_same_users(held_out: HeldOutSet, fused: str) -> None:
    known = content_baselines.moments(fused)
    lists, skipped = evaluation.baseline_lists(held_out, fused, known, False, num_components=2, seed=0)
    names = {"random", "popular", "recent popular", "content kNN (text)", "PCA kNN", "item kNN", "EASE"}
    assert set(lists) == names and not skipped
    found = evaluation.measure(held_out, {evaluation.OURS: perfect(held_out), **lists}, fused, known, 1)
    assert json.loads(json.dumps(found)) == found
    ours = found["methods"]["fusefeed"]
    assert ours["measures"]["ndcg@50"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    popular = found["methods"]["popular"]
    hits = ranking.hits_of(lists["popular"], held_out.targets)
    mean = np.mean(hits[:, :20].sum(axis=1) / np.diff(held_out.targets.indptr))
    measured = popular["measures"]["recall@20"]
    assert measured["mean"] == pytest.approx(mean, abs=1e-6) and measured["low"] < mean < measured["high"]
    lead = popular["lead"]["recall@20"]
    assert lead["mean"] == pytest.approx(ours["measures"]["recall@20"]["mean"] - mean, abs=2e-6)
    assert lead["low"] > 0 and "lead" not in ours
    assert found["slices"]["posts with text"] == len(held_out.user_id)
    assert found["slices"]["new users"] + found["slices"]["other users"] == len(held_out.user_id)
    assert "posts with collaborative" not in found["slices"]
    assert ours["slices"]["language de"]["recall@20"]["mean"] == 1
    assert set(ours["lists"]) == {"coverage@10", "gini@10", "aplt@10", "novelty@10", "diversity@10"}
    assert found["methods"]["random"]["lists"]["coverage@10"] > popular["lists"]["coverage@10"]
    assert found["methods"]["random"]["lists"]["gini@10"] < popular["lists"]["gini@10"]
    assert found["methods"]["random"]["lists"]["novelty@10"] > popular["lists"]["novelty@10"]
    assert evaluation.about(held_out)["users"] == len(held_out.user_id)


def test_baselines_too_large_or_without_interactions_are_skipped_with_a_reason(
    held_out: HeldOutSet, fused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = content_baselines.moments(fused)
    monkeypatch.setattr(evaluation, "EASE_MAX_POSTS", 5)
    lists, skipped = evaluation.baseline_lists(held_out, fused, known, False, num_components=2, seed=0)
    assert "EASE" not in lists
    assert skipped == {"EASE": f"{len(baselines.known_posts(held_out))} posts with interactions, more than 5"}
    lists, skipped = evaluation.baseline_lists(held_out, fused, known, True, num_components=2, seed=0)
    assert set(skipped) == {"item kNN", "EASE"} and not set(skipped) & set(lists)


def test_cold_posts_are_ranked_by_the_inner_product(held_out: HeldOutSet, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    users, items = (
        rng.normal(size=(len(held_out.user_id), 3)),
        rng.normal(size=(len(held_out.posts.post_id), 3)),
    )
    users[4] = 0
    for name, key, ids, vectors in (
        ("users", "user_id", held_out.user_id, users),
        ("items", "post_id", held_out.posts.post_id, items),
    ):
        schema = pa.schema([(key, pa.string()), ("embedding", schemas.vector(3))])
        block = pa.RecordBatch.from_arrays([ids, blocks.numpy_to_vectors(vectors)], schema=schema)
        parquet.write_file(str(tmp_path / name / "part-0.parquet"), block, schema)
    found = evaluation.embedding_lists(held_out, str(tmp_path / "users"), str(tmp_path / "items"))
    for user in (0, 7):
        allowed = np.setdiff1d(np.flatnonzero(held_out.posts.eligible), held_out.excluded[user].indices)
        expected = allowed[np.argsort(-(items[allowed] @ users[user]))][: evaluation.MAX_K]
        assert found[user, : len(expected)].tolist() == expected.tolist()
    recent = baselines.popular(held_out, evaluation.MAX_K, held_out.posts.recent)
    assert found[4].tolist() == recent[4].tolist()  # of whom nothing is known

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.transforms.evaluate.test_set_fixtures import random_world
from transforms.evaluate import content_baselines
from transforms.evaluate.test_set import HeldOutSet
from transforms.fuse import transform_fn
from transforms.fuse.tft_graph import ModalityBlock
from transforms.tables import blocks, parquet, schemas

LAYOUT = transform_fn.FusedLayout(
    (ModalityBlock("text", 0, 3, 3), ModalityBlock("image", 3, 2, 2), ModalityBlock("collaborative", 5, 2, 2))
)


@pytest.fixture
def held_out() -> HeldOutSet:
    return random_world()


def vectors_of(held_out: HeldOutSet, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    num_posts = len(held_out.posts.post_id)
    mask = (rng.random((num_posts, 3)) < 0.8).astype(np.float32)
    mask[7] = 0
    fused = rng.normal(1, 1, (num_posts, 7)).astype(np.float32) * np.repeat(mask, (3, 2, 2), axis=1)
    return fused, mask


@pytest.fixture
def fused(held_out: HeldOutSet, tmp_path: Path) -> str:
    values, mask = vectors_of(held_out)
    schema = pa.schema([schemas.fused(7, 3).field(name) for name in ("post_id", "fused", "mask")])
    columns = [held_out.posts.post_id, blocks.numpy_to_vectors(values), blocks.numpy_to_vectors(mask)]
    block = pa.RecordBatch.from_arrays(columns, schema=schema)
    block = block.take(pa.array(np.random.default_rng(5).permutation(block.num_rows)))
    for number, piece in enumerate(blocks.split_rows(block, 15)):
        parquet.write_file(str(tmp_path / "fused" / f"part-{number:05d}.parquet"), piece, schema)
    transform_fn.write_layout(LAYOUT, str(tmp_path / "fused"))
    return str(tmp_path / "fused")


def unit(values: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(norms > 0, norms, 1)


def slow_lists(held_out: HeldOutSet, vectors: np.ndarray, k: int) -> list[list[int]]:
    profiles = unit(held_out.history.toarray() @ vectors)
    lists = []
    for user, scores in enumerate(profiles @ vectors.T):
        excluded = held_out.excluded[user].indices
        posts = [
            post
            for post in np.argsort(-scores, kind="stable")
            if held_out.posts.eligible[post] and post not in excluded and vectors[post].any() and profiles[user].any()
        ]
        lists.append(posts[:k] + [-1] * (k - len(posts)))
    return lists


def centered(held_out: HeldOutSet) -> tuple[np.ndarray, np.ndarray]:
    values, mask = vectors_of(held_out)
    wide = np.repeat(mask, (3, 2, 2), axis=1)
    return (values - values.sum(axis=0) / wide.sum(axis=0)) * wide, wide


def test_moments_are_of_what_is_present(held_out: HeldOutSet, fused: str) -> None:
    known = content_baselines.moments(fused)
    values, wide = centered(held_out)
    raw, mask = vectors_of(held_out)
    np.testing.assert_allclose(known.mean, raw.sum(axis=0) / wide.sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(known.covariance, values.T @ values / len(values), atol=1e-6)
    assert known.present.tolist() == mask.sum(axis=0).tolist()
    assert known.content == ["text", "image"]
    assert dataclasses.replace(known, present=np.array([0, 1, 1])).content == ["image"]


@pytest.mark.parametrize("names", [["text"], ["text", "image"]])
def test_content_knn_ranks_by_the_cosine_with_what_was_liked(
    held_out: HeldOutSet, fused: str, names: list[str]
) -> None:
    project = content_baselines.by_modalities(content_baselines.moments(fused), names)
    values, _ = centered(held_out)
    pieces = {"text": unit(values[:, :3]), "image": unit(values[:, 3:5])}
    vectors = unit(np.concatenate([pieces[name] for name in names], axis=1))
    found = content_baselines.content_knn(held_out, fused, project, 8)
    assert found.tolist() == slow_lists(held_out, vectors, 8)
    assert found[0].tolist() == [-1] * 8  # liked nothing


def test_pca_knn_sees_the_first_components(held_out: HeldOutSet, fused: str) -> None:
    project = content_baselines.by_pca(content_baselines.moments(fused), 2)
    values, _ = centered(held_out)
    _, _, components = np.linalg.svd(values, full_matrices=False)
    found = content_baselines.content_knn(held_out, fused, project, 8)
    assert found.tolist() == slow_lists(held_out, unit(values @ components[:2].T), 8)


def test_vectors_of_lists_are_those_of_their_posts(held_out: HeldOutSet, fused: str) -> None:
    project = content_baselines.by_modalities(content_baselines.moments(fused), ["text"])
    lists = np.array([[30, 2, -1], [2, 7, 11]])
    rows, vectors = content_baselines.content_of_lists(held_out, fused, project, lists)
    expected = unit(centered(held_out)[0][:, :3])
    assert rows[0, 2] == -1 and len(vectors) == 4
    np.testing.assert_allclose(vectors[rows[0, :2]], expected[[30, 2]], atol=1e-5)
    np.testing.assert_allclose(vectors[rows[1]], expected[[2, 7, 11]], atol=1e-5)
    rows, _ = content_baselines.content_of_lists(held_out, fused, project, np.full((2, 3), -1))
    assert (rows == -1).all()


def test_embeddings_are_found_by_user(held_out: HeldOutSet, tmp_path: Path) -> None:
    schema = schemas.user_embeddings(2)
    rows = [
        {"user_id": user, "embedding": [number, 1.0], "num_interactions": 1, "source": "history"}
        for number, user in enumerate(["u3", "nobody", "u1"])
    ]
    parquet.write_file(str(tmp_path / "t" / "part-0.parquet"), pa.RecordBatch.from_pylist(rows, schema=schema), schema)
    found = content_baselines.embeddings_of(held_out, str(tmp_path / "t"))
    assert found[:5].tolist() == [[0, 0], [2, 1], [0, 0], [0, 1], [0, 0]]

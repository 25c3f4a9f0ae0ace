import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.transforms.embed.space_fixtures import MODALITIES, NUM_POSTS, SINGULAR_VALUES, TUNING, make_space
from transforms.embed import embedding_space, formulas, item_embeddings
from transforms.embed.formulas import Widths
from transforms.embed.parameters import Content, Decoded, Own, Tuning


def test_a_space_is_read_as_the_stages_write_it(tmp_path: Path) -> None:
    fused, collaborative = tmp_path / "fused", tmp_path / "collaborative"
    fused.mkdir()
    collaborative.mkdir()
    layout = [{"name": n, "offset": o, "width": w, "input_width": w} for n, o, w in MODALITIES]
    (fused / "_layout.json").write_text(json.dumps({"modalities": layout, "width": 11}))
    factors = {"singular_values": SINGULAR_VALUES.tolist(), "num_posts": NUM_POSTS, "num_users": 7}
    (collaborative / "_factors.json").write_text(json.dumps(factors))
    (collaborative / "_tuning.json").write_text(json.dumps(TUNING.to_dict()))
    found = embedding_space.read_space(str(fused), str(collaborative))
    assert (found.modalities, found.num_posts, found.tuning) == (MODALITIES, NUM_POSTS, TUNING)
    np.testing.assert_array_equal(found.singular_values, SINGULAR_VALUES)
    assert found.names == ["text", "image", "time", "collaborative"]
    assert (found.widths, found.width) == (Widths(2, 3, 4), 10)


def test_blocks_are_no_wider_than_there_are_factors() -> None:
    wide = dataclasses.replace(TUNING, own=Own(rank=64), decoded=Decoded(k=64), content=Content("image"))
    assert make_space(wide).widths == Widths(3, 3, 2)
    assert make_space(Tuning()).widths == Widths(3, 0, 0)
    cold = dataclasses.replace(make_space(), modalities=MODALITIES[:3], singular_values=np.zeros(0), num_posts=0)
    assert (cold.widths, cold.width) == (Widths(0, 0, 4), 5)
    fused = np.ones((2, 8), np.float32)
    assert cold.factors(fused).shape == (2, 0)
    made = cold.post_blocks(fused, np.zeros(2), np.zeros((2, 0), np.float32))
    assert [block.shape for block in made] == [(2, 0), (2, 0), (2, 4), (2, 4)]


def test_factors_come_in_units_of_the_singular_vectors_and_are_no_content() -> None:
    fused = np.arange(22, dtype=np.float32).reshape(2, 11)
    found = make_space()
    np.testing.assert_allclose(found.factors(fused), fused[:, 8:] / 5, rtol=1e-6)
    mask = np.array([[1, 1, 0, 1], [0, 1, 1, 1]], np.float32)
    assert found.content_only(mask).tolist() == [[1, 1, 0, 0], [0, 1, 1, 0]]
    content = found.content(np.vstack([fused, np.zeros((1, 11), np.float32)]))
    np.testing.assert_allclose(content[:2], fused[:, :4] / np.sqrt((fused[:, :4] ** 2).sum(axis=1))[:, None], rtol=1e-6)
    assert content[2].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("cuts", [[], [0, 3, 3, 20]])
def test_covariances_are_of_all_rows_however_they_are_cut(tmp_path: Path, cuts: list[int]) -> None:
    rng = np.random.default_rng(4)
    own, decoded, content = (rng.normal(3, 1, (40, width)).astype(np.float32) for width in (2, 3, 1))
    degree = np.arange(40) % 3
    parts = [
        formulas.block_moments(*block)
        for block in zip(*(np.split(array, cuts) for array in (own, decoded, content, degree)), strict=True)
    ]
    embedding_space.write_covariances(item_embeddings.sum_moments(parts), str(tmp_path))
    found = embedding_space.read_covariances(str(tmp_path))
    for covariance, rows in zip(found, (own[degree > 0], decoded, content), strict=True):
        assert covariance.dtype == np.float64
        np.testing.assert_allclose(
            covariance, np.cov(rows.T.astype(float), ddof=0).reshape(covariance.shape), atol=1e-9
        )


def test_covariances_of_nothing_are_zeros() -> None:
    nothing = formulas.block_moments(np.ones((1, 2)), np.ones((1, 3)), np.ones((1, 0)), np.zeros(1))
    assert [moments.covariance().tolist() for moments in nothing] == [[[0, 0]] * 2, [[0, 0, 0]] * 3, []]


def test_scales_are_the_deviation_of_the_scores_that_a_block_gives() -> None:
    rng = np.random.default_rng(5)
    catalog = [rng.normal(2, 3, (500, width)) for width in (3, 2, 1)]
    profiles = rng.normal(size=(7, 6)).astype(np.float32)
    covariances = tuple(np.cov(block.T, ddof=0).reshape(block.shape[1], -1) for block in catalog)
    found = formulas.block_scales(profiles, covariances)
    starts = [0, 3, 5]
    for place, (start, block) in enumerate(zip(starts, catalog, strict=True)):
        scores = profiles[:, start : start + block.shape[1]].astype(float) @ block.T
        np.testing.assert_allclose(found[:, place], scores.std(axis=1), rtol=1e-9)

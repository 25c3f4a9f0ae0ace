from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model import statistics
from model.layout import Layout
from model.spool import Spool, write_spool


@pytest.fixture
def spooled(new_world: Callable[..., Any], write_shard: Callable[..., str], tmp_path: Path) -> tuple[Any, Any]:
    world = new_world(2000)
    keep = world.mask.any(axis=1)
    world = type(world)(world.layout, [f"{i}" for i in range(keep.sum())], world.fused[keep], world.mask[keep])
    return world, write_spool([write_shard("one", world)], world.layout, str(tmp_path / "spool"), 0.0)


def _covariance(spool: Spool, layout: Layout, moments: statistics.TrainingMoments) -> np.ndarray:
    every = statistics.products(spool, layout, moments)
    return every.sums[: layout.width, : layout.width] / every.num_rows


def test_moments_are_over_the_rows_that_have_the_modality(spooled: tuple[Any, Any]) -> None:
    world, spool = spooled
    found = statistics.moments(spool, world.layout)
    for index, modality in enumerate(world.layout.modalities):
        block = world.fused[world.mask[:, index] > 0][:, modality.columns].astype(np.float64)
        np.testing.assert_allclose(found.mean[modality.columns], block.mean(axis=0), rtol=1e-9)
        assert found.scale[index] == pytest.approx(np.sqrt(block.var(axis=0).sum()), rel=1e-9)
        assert found.counts[index] == len(block)
    assert found.present == pytest.approx(world.mask.sum(axis=1).mean())


def test_emphasised_columns_count_more(spooled: tuple[Any, Any]) -> None:
    world, spool = spooled
    emphasis = np.ones(20)
    emphasis[:2] = 3
    found = statistics.moments(spool, world.layout, emphasis)
    rows = statistics.standardize(world.fused.astype(np.float64), world.mask, found, world.layout)
    text = rows[world.mask[:, 0] > 0, :12]
    assert text.var(axis=0).sum() == pytest.approx(1)
    block = world.fused[world.mask[:, 0] > 0, :12].astype(np.float64)
    variance = block.var(axis=0)
    assert text.var(axis=0)[0] / text.var(axis=0)[5] == pytest.approx(9 * variance[0] / variance[5])


def test_products_are_over_columns_mask_and_one(spooled: tuple[Any, Any]) -> None:
    world, spool = spooled
    found = statistics.moments(spool, world.layout)
    rows = statistics.standardize(world.fused.astype(np.float64), world.mask, found, world.layout)
    rows = np.hstack([rows, world.mask, np.ones((len(rows), 1))])
    for having, these in ((None, rows), (1, rows[world.mask[:, 1] > 0])):
        products = statistics.products(spool, world.layout, found, having)
        assert products.num_rows == len(these)
        np.testing.assert_allclose(products.sums, these.T @ these, atol=1e-6)


def test_components_are_those_of_a_singular_value_decomposition(spooled: tuple[Any, Any]) -> None:
    world, spool = spooled
    found = statistics.moments(spool, world.layout)
    components = statistics.principal_components(_covariance(spool, world.layout, found), 4)
    rows = statistics.standardize(world.fused.astype(np.float64), world.mask, found, world.layout)
    expected = np.linalg.svd(rows, full_matrices=False)[2][:4]
    np.testing.assert_allclose(np.abs(components @ expected.T), np.eye(4), atol=1e-6)
    assert (components[np.arange(4), np.abs(components).argmax(axis=1)] > 0).all()


def test_directions_without_variance_have_no_component(
    new_world: Callable[..., Any], write_shard: Callable[..., str], tmp_path: Path
) -> None:
    world = new_world(3, missing=0)
    spool = write_spool([write_shard("one", world)], world.layout, str(tmp_path / "spool"), 0.0)
    found = statistics.moments(spool, world.layout)
    covariance = _covariance(spool, world.layout, found)
    norms = np.linalg.norm(statistics.principal_components(covariance, 20), axis=1)
    np.testing.assert_allclose(norms, [1, 1, *[0] * 18], atol=1e-9)


def test_a_constant_modality_is_not_blown_up(
    new_world: Callable[..., Any], write_shard: Callable[..., str], tmp_path: Path
) -> None:
    world = new_world(100, missing=0)
    world.fused[:, :12] = 0.1
    spool = write_spool([write_shard("one", world)], world.layout, str(tmp_path / "spool"), 0.0)
    found = statistics.moments(spool, world.layout)
    assert found.scale[0] == 1
    rows = statistics.standardize(world.fused.astype(np.float64), world.mask, found, world.layout)
    assert np.abs(rows[:, :12]).max() < 1e-7

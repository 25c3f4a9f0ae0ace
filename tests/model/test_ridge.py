from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops

from model.config import TrainConfig
from model.initial_model import InitialModel, build_initial_model
from model.ridge import Scales
from model.spool import write_spool


@pytest.fixture
def initial(write_shard: Callable[..., str], tmp_path: Path) -> Callable[..., Any]:
    """Initial model of a world of factors: initial(world, config) -> InitialModel; no row is held out."""

    def made(world: Any, config: TrainConfig) -> InitialModel:
        layout = world.layout.narrowed(config.factors_used) if config.factors_used else world.layout
        path = write_shard("rows", world)
        spool = write_spool([path], world.layout, str(tmp_path / "spool"), 0.0, columns=layout.width)
        return build_initial_model(spool, layout, config)

    return made


def _ridge(world: Any, weights: list[float], ridge: float, factors: int) -> np.ndarray:
    """The leading factors of all posts by the ridge map, in their own units, as a textbook would have it."""
    inputs = []
    for index, (modality, weight) in enumerate(zip(world.layout.modalities[:2], weights, strict=True)):
        here = world.mask[:, index] > 0
        block = world.fused[:, modality.columns].astype(np.float64)
        block = (block - block[here].mean(axis=0)) * here[:, None]
        inputs += [block * np.sqrt(weight / block[here].var(axis=0).sum()), world.mask[:, [index]]]
    known = world.mask[:, 2] > 0
    columns = np.hstack(inputs)
    center = columns[known].mean(axis=0)
    columns, fit = columns - center, columns[known] - center
    targets = world.fused[known, 14 : 14 + factors].astype(np.float64)
    solved = np.linalg.solve(fit.T @ fit + ridge * np.eye(fit.shape[1]), fit.T @ (targets - targets.mean(axis=0)))
    return columns @ solved + targets.mean(axis=0)


@pytest.mark.parametrize("factor_weights", [(), (4.0, 2.0, 1.0, 0.5)])
def test_the_model_starts_as_exactly_the_ridge_map(
    initial: Callable[..., Any], new_factor_world: Callable[..., Any], factor_weights: tuple[float, ...]
) -> None:
    world = new_factor_world(500)
    settings: dict[str, Any] = {"modality_weights_input": {"text": 3.0, "image": 0.5}, "ridge": 7.0}
    made = initial(world, TrainConfig(**settings, factors_used=4, factor_weights=factor_weights, latent=5))
    expected = _ridge(world, [3.0, 0.5], 7.0, 4)
    masked = world.mask * [1, 1, 0]
    latent = made.model.encode(world.fused, masked)
    assert latent.shape == (500, 4 + 5)
    kernel, bias = made.model.decoder_weights("collaborative")
    assert kernel.shape == (9, 4)
    np.testing.assert_allclose(ops.convert_to_numpy(latent) @ kernel + bias, expected, atol=2e-5)
    # It is the same whether the factors are shown or not, as the ridge map in model.json is measured.
    rows = world.fused[:, :18].astype(np.float64)
    for shown in (masked, world.mask):
        decoded = made.ridge_map.reconstruct(rows, shown, made.moments, made.model.layout)
        found = decoded[:, 14:] * made.moments.divisors(made.model.layout)[14:] + made.moments.mean[14:]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_other_numbers_start_as_components_of_the_content(
    initial: Callable[..., Any], new_factor_world: Callable[..., Any]
) -> None:
    world = new_factor_world(500, missing=0)
    made = initial(world, TrainConfig(latent=5))
    inputs = {"fused": world.fused, "mask": world.mask * np.array([1, 1, 0], np.float32)}
    decoded = ops.convert_to_numpy(made.model(inputs)["decoded"]) * (made.model.units @ world.layout.membership)
    target = ops.convert_to_numpy(made.model.standardize(world.fused, world.mask))
    target = target * (made.model.units @ world.layout.membership)
    # 14 columns of 5 causes and some noise.
    assert ((decoded - target)[:, :14] ** 2).sum() < 0.03 * (target[:, :14] ** 2).sum()


def test_a_modality_without_weight_is_no_input(
    initial: Callable[..., Any], new_factor_world: Callable[..., Any]
) -> None:
    world = new_factor_world(500)
    made = initial(world, TrainConfig(modality_weights_input={"image": 0.0}))
    latent = ops.convert_to_numpy(made.model.encode(world.fused, world.mask))
    world.fused[:, 8:14] += 100
    np.testing.assert_array_equal(made.model.encode(world.fused, world.mask), latent)
    only = np.tile(np.array([0, 1, 0], np.float32), (500, 1))
    np.testing.assert_array_equal(made.model.encode(world.fused, only), 0)
    input_mask = made.model({"fused": world.fused, "mask": world.mask}, training=True)["input_mask"]
    assert float(ops.max(input_mask[:, 1])) == 0


def test_without_any_factors_the_start_knows_nothing_of_them(
    initial: Callable[..., Any], new_factor_world: Callable[..., Any]
) -> None:
    world = new_factor_world(200)
    world.mask[:, 2] = 0
    world.fused[:, 14:] = 0
    made = initial(world, TrainConfig())
    assert made.model.encode(world.fused, world.mask).shape == (200, 6 + 14)
    assert np.abs(made.ridge_map.linear[:, :6]).max() == 0 and np.isfinite(made.ridge_map.kernel).all()


def test_the_noise_amounts_to_the_ridge(new_factor_world: Callable[..., Any]) -> None:
    layout = new_factor_world(1).layout
    config = TrainConfig(ridge=5.0, modality_weights_input={"text": 3.0, "image": 0.0}, collaborative_noise=0.7)
    scales = Scales.of(layout, config, num_fit=400)
    # In units where the modality has a total variance of 1: lambda / (rows * w) a column.
    assert (scales.noise[0] * scales.units[0]) ** 2 == pytest.approx(5.0 / (400 * 3.0))
    assert (scales.is_input, scales.noise[1:]) == ([1, 0, 1], [0, 0.7])
    # The inputs have a variance of 1 a column on average.
    assert 1 / scales.units[0] ** 2 / 8 == pytest.approx(1)

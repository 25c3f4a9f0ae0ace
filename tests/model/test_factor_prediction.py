import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model.initial_model import build_initial_model
from model.spool import write_spool
from model.train import EpochReport, TrainConfig, TrainReport, train

CONFIG = TrainConfig(latent=6, hidden=32, epochs=4, batch_size=64, ridge=1.0, factors_used=4)


@pytest.fixture
def run(write_shard: Callable[..., str], tmp_path: Path) -> Callable[..., TrainReport]:
    """Trains on a world in one shard: run(world, config, name) -> report; the model is in tmp_path / name."""

    def trained(world: Any, config: TrainConfig = CONFIG, name: str = "model", **more: Any) -> TrainReport:
        path = write_shard(f"{name}.parquet", world)
        return train([path], world.layout, str(tmp_path / name), str(tmp_path / f"{name}-work"), config, **more)

    return trained


def _predicted(model: Path, world: Any) -> np.ndarray:
    """The factors that an exported model predicts from content alone."""
    load = lambda path: tf.saved_model.load(str(model / path)).signatures["serving_default"]  # noqa: E731
    masked = tf.constant(world.mask * np.array([1, 1, 0], np.float32))
    latent = load("encoder")(fused=tf.constant(world.fused), mask=masked)["latent"]
    values: np.ndarray = load("decoders/collaborative")(latent=latent)["values"].numpy()
    return values


def _share(predicted: np.ndarray, world: Any) -> float:
    """The share of the factors' squares that is unexplained."""
    factors = world.fused[:, 14:18]
    known = world.mask[:, 2] > 0
    return float(((predicted - factors)[known] ** 2).sum() / (factors[known] ** 2).sum())


def test_content_predicts_curved_factors_better_than_the_ridge_map(
    run: Callable[..., Any], new_factor_world: Callable[..., Any], tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, hidden=64, epochs=20, learning_rate=1e-2, dropout=0.0)
    report = run(new_factor_world(1200), config)
    predicted = report.modalities[-1]
    assert (predicted.name, predicted.width) == ("collaborative", 4)
    # Three of four factors are curved: the ridge map hardly predicts them.
    assert predicted.ridge_predicted_error > 0.5
    assert predicted.predicted_error < 0.6 * predicted.ridge_predicted_error
    assert report.trained_share > 0 and report.refitted
    fresh = new_factor_world(1000, seed=9)
    assert _share(_predicted(tmp_path / "model", fresh), fresh) < 0.6 * predicted.ridge_predicted_error
    described = json.loads((tmp_path / "model" / "model.json").read_text())["collaborative"]
    assert described["factors"] == 4
    assert described["unexplained_from_content"] == {
        "autoencoder": predicted.predicted_error,
        "ridge": predicted.ridge_predicted_error,
        "pca": predicted.pca_predicted_error,
    }


def test_in_a_linear_world_it_is_not_worse_than_the_ridge_map(
    run: Callable[..., Any], new_factor_world: Callable[..., Any], tmp_path: Path
) -> None:
    world = new_factor_world(800, bent=False, missing=0)
    config = dataclasses.replace(CONFIG, epochs=10, refit_rows=0)
    predicted = run(world, config).modalities[-1]
    assert predicted.predicted_error <= predicted.ridge_predicted_error * 1.0001
    layout, files = world.layout.narrowed(4), [str(tmp_path / "model.parquet")]
    spool = write_spool(files, world.layout, str(tmp_path / "spool"), config.validation_fraction, columns=layout.width)
    ridge = build_initial_model(spool, layout, config).model
    fresh = new_factor_world(1000, bent=False, missing=0, seed=9)
    kernel, bias = ridge.decoder_weights("collaborative")
    by_ridge = np.asarray(ridge.encode(fresh.fused, fresh.mask * np.array([1, 1, 0], np.float32))) @ kernel + bias
    assert _share(_predicted(tmp_path / "model", fresh), fresh) < 1.02 * _share(by_ridge, fresh)


def test_a_training_that_only_does_harm_leaves_the_ridge_map(
    run: Callable[..., Any], new_factor_world: Callable[..., Any], tmp_path: Path
) -> None:
    world = new_factor_world(400)
    # Nothing but noise is left to learn from, so that no step can be right.
    random = np.random.default_rng(0)
    world.fused[:, 14:] = random.normal(size=(400, 6)) * world.mask[:, 2:]
    harmful = dataclasses.replace(CONFIG, learning_rate=1.0, refit_rows=0)
    report = run(world, harmful)
    assert (report.best_epoch, report.trained_share, report.loss, report.refitted) == (0, 0.0, None, False)
    predicted = report.modalities[-1]
    assert predicted.predicted_error == pytest.approx(predicted.ridge_predicted_error, rel=1e-4)
    # After a refit it is the ridge map of all posts: another, but no trained one.
    again = run(world, dataclasses.replace(harmful, refit_rows=400), "again")
    assert again.refitted and again.modalities == report.modalities
    difference = np.abs(_predicted(tmp_path / "again", world) - _predicted(tmp_path / "model", world)).max()
    assert 1e-4 < difference < 0.5


class _Interrupt(Exception):
    pass


def test_a_training_killed_in_any_phase_goes_on_as_if_nothing_had_happened(
    run: Callable[..., Any], new_factor_world: Callable[..., Any], tmp_path: Path
) -> None:
    world = new_factor_world(300)
    epochs: list[EpochReport] = []
    whole = run(world, name="whole", on_epoch=epochs.append)
    assert whole.trained_share > 0
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4, *range(1, whole.best_epoch + 1)]

    def stop_at(count: int) -> Callable[[EpochReport], None]:
        calls = iter(range(1, count + 1))

        def stop(_: EpochReport) -> None:
            if next(calls) == count:
                raise _Interrupt

        return stop

    for count in (2, 3):  # epoch 2, then epoch 1 of the second phase
        with pytest.raises(_Interrupt):
            run(world, name="killed", on_epoch=stop_at(count))
    resumed = run(world, name="killed")
    assert dataclasses.replace(resumed, seconds=whole.seconds) == whole
    np.testing.assert_array_equal(_predicted(tmp_path / "killed", world), _predicted(tmp_path / "whole", world))
    assert not (tmp_path / "killed-work").exists()


@pytest.mark.parametrize("known", [0, 1])
def test_where_no_held_out_post_has_factors_training_is_as_without_them(
    run: Callable[..., Any], new_factor_world: Callable[..., Any], known: int
) -> None:
    world = new_factor_world(60)
    world.mask[known:, 2] = 0
    world.fused[known:, 14:] = 0
    report = run(world, CONFIG)
    assert report.epochs == 4 and report.best_epoch > 0 and not report.refitted
    assert report.modalities[-1].ridge_predicted_error is None
    assert report.validation_loss is not None and np.isfinite(report.validation_loss)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factors_used": 7}, "factors_used must be at most 6, the collaborative width, got 7"),
        ({"factor_weights": (1.0, 2.0)}, "factor_weights must be 4 numbers or more, got 2"),
        ({"modality_weights_input": {"video": 1.0}}, "modality_weights_input must name modalities of text, image"),
        ({"modality_weights_input": {"text": 0, "image": 0}}, "modality_weights_input must be above 0 for one"),
    ],
)
def test_settings_must_fit_the_factors(
    run: Callable[..., Any], new_factor_world: Callable[..., Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(new_factor_world(10), dataclasses.replace(CONFIG, **settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ridge": 0}, "ridge must be above 0, got 0"),
        ({"factors_used": -1}, "factors_used must be at least 0, got -1"),
        ({"factor_weights": (1.0, 0.0)}, "factor_weights must be above 0, got 0.0"),
        ({"modality_weights_input": {"text": -1}}, "modality_weights_input of text must be at least 0, got -1"),
        ({"collaborative_dropout": 1}, "collaborative_dropout must be at least 0 and below 1, got 1"),
        ({"collaborative_weight": 0}, "collaborative_weight must be above 0, got 0"),
        ({"refit_rows": -1}, "refit_rows must be at least 0, got -1"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)

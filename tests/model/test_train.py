import dataclasses
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model.fit import num_epochs
from model.train import EpochReport, TrainConfig, TrainReport, train

QUICK = TrainConfig(latent=4, hidden=16, epochs=3, batch_size=64)


@dataclasses.dataclass(frozen=True)
class Quick:
    """What came of QUICK on a world of 300 posts."""

    report: TrainReport
    epochs: list[EpochReport]
    messages: list[str]
    model: Path


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, new_world: Callable[..., Any], write_table: Any) -> Quick:
    """Trained once for the tests that only look at it."""
    directory = tmp_path_factory.mktemp("quick")
    epochs: list[EpochReport] = []
    messages: list[str] = []
    path = write_table(directory / "rows.parquet", new_world(300))
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("model")
    level = logger.level
    logger.setLevel("INFO")
    logger.addHandler(handler)
    try:
        layout = new_world(1).layout
        report = train([path], layout, str(directory / "model"), str(directory / "work"), QUICK, epochs.append)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return Quick(report, epochs, messages, directory / "model")


@pytest.fixture
def run(write_shard: Callable[..., str], tmp_path: Path) -> Callable[..., Any]:
    """Trains on a world in one shard: run(world, config, name) -> report; the model is in tmp_path / name."""

    def trained(world: Any, config: TrainConfig = QUICK, name: str = "model", **more: Any) -> Any:
        path = write_shard(f"{name}.parquet", world)
        return train([path], world.layout, str(tmp_path / name), str(tmp_path / f"{name}-work"), config, **more)

    return trained


def test_a_masked_modality_is_predicted_from_the_other(
    run: Callable[..., Any], new_world: Callable[..., Any], tmp_path: Path
) -> None:
    report = run(new_world(2500), TrainConfig(latent=6, hidden=64, epochs=30, learning_rate=5e-3))
    assert report.measured_on == "validation" and report.num_validation > 200
    for modality in report.modalities:
        # Both are views of 4 factors; what is left is their noise, 2 to 3 percent. Chance is 1.
        assert modality.error < modality.pca_error + 0.02, modality
        assert modality.predicted_error < 0.12, modality
        assert modality.predicted_error < modality.pca_predicted_error, modality
    described = json.loads((tmp_path / "model" / "model.json").read_text())
    assert described["report"]["modalities"][0]["name"] == "text"
    assert len(described["losses"]) == report.epochs
    _assert_parts_stand_for_the_whole(tmp_path / "model" / "encoder", new_world(400, missing=0, seed=9))


def _assert_parts_stand_for_the_whole(encoder: Path, world: Any) -> None:
    encode = tf.saved_model.load(str(encoder)).signatures["serving_default"]
    codes = []
    for mask in ([1, 1], [1, 0], [0, 1]):
        shown = tf.constant(np.tile(np.array(mask, np.float32), (400, 1)))
        code = encode(fused=tf.constant(world.fused), mask=shown)["latent"].numpy()
        codes.append(code / np.linalg.norm(code, axis=1, keepdims=True))
    for part in codes[1:]:
        nearest = (part @ codes[0].T).argmax(axis=1)
        assert (nearest == np.arange(400)).mean() > 0.3  # chance: 0.0025
        assert (part * codes[0]).sum(axis=1).mean() > 0.9


def test_shards_and_row_groups_do_not_change_a_bit_of_the_model(
    quick: Quick, new_world: Callable[..., Any], write_shard: Callable[..., str], tmp_path: Path
) -> None:
    world = new_world(300)
    shards = [write_shard("a", world, slice(0, 10), 3), write_shard("b", world, slice(10, 300), 97)]
    report = train(shards[::-1], world.layout.to_dict(), str(tmp_path / "model"), str(tmp_path / "work"), QUICK)
    assert (report.validation_loss, report.modalities) == (quick.report.validation_loss, quick.report.modalities)
    weights, expected = _weights(tmp_path / "model"), _weights(quick.model)
    assert len(expected) > 5
    for one, two in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def _weights(model: Path) -> list[np.ndarray]:
    reader = tf.train.load_checkpoint(str(model / "encoder" / "variables" / "variables"))
    return [reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map()) if "weights" in name]


def test_another_seed_gives_another_model(quick: Quick, run: Callable[..., Any], new_world: Callable[..., Any]) -> None:
    assert run(new_world(300), dataclasses.replace(QUICK, seed=1)).loss != quick.report.loss


@pytest.mark.parametrize("num_rows", [1, 2, 5])
def test_a_few_rows_are_enough(run: Callable[..., Any], new_world: Callable[..., Any], num_rows: int) -> None:
    report = run(new_world(num_rows, missing=0), dataclasses.replace(QUICK, latent=64))
    assert report.latent == 20  # no more than the vector has
    assert report.num_train + report.num_validation == num_rows
    assert report.num_validation == (0 if num_rows == 1 else 1)
    assert report.measured_on == ("training" if num_rows == 1 else "validation")
    assert report.epochs == 3 and np.isfinite(report.loss)


def test_no_row_with_a_modality_is_an_error(
    run: Callable[..., Any], new_world: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="at least one row with a modality, got 0 rows without"):
        run(new_world(0))
    with pytest.raises(ValueError, match="at least one row with a modality, got 6 rows without"):
        run(new_world(6, missing=1))
    with pytest.raises(ValueError, match="at least one row with a modality"):
        train([], new_world(1).layout, str(tmp_path / "model"), str(tmp_path / "work"))
    assert not (tmp_path / "model").exists()


def test_a_modality_that_is_nowhere_present_is_reported_as_not_measured(
    run: Callable[..., Any], new_world: Callable[..., Any]
) -> None:
    world = new_world(100, missing=0)
    world.mask[:, 1] = 0
    world.fused[:, 12:] = 0
    text, image = run(world, QUICK).modalities
    assert text.error < 1 and text.predicted_error is None
    assert (image.rows, image.error, image.pca_error, image.predicted_error) == (0, None, None, None)


def test_every_epoch_is_reported_logged_and_in_the_description(quick: Quick) -> None:
    epochs = quick.epochs
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    assert epochs[-1].seconds_left == 0 and epochs[0].rows > 200 and epochs[0].rows_per_second > 0
    assert sum("validation loss" in message for message in quick.messages) == 3
    losses = json.loads((quick.model / "model.json").read_text())["losses"]
    assert losses == [{"loss": epoch.loss, "val_loss": epoch.validation_loss} for epoch in epochs]


def test_small_data_gets_more_epochs() -> None:
    config = TrainConfig()
    assert [num_epochs(config, batches) for batches in (1, 400, 40_000)] == [100, 25, 3]
    assert num_epochs(TrainConfig(epochs=7), 1) == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent": 0}, "latent must be at least 1, got 0"),
        ({"epochs": -1}, "epochs must be at least 0, got -1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"validation_fraction": float("nan")}, "validation_fraction must be at least 0 and below 1, got nan"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"learning_rate": 0}, "learning_rate must be above 0"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


def test_settings_must_fit_the_layout(run: Callable[..., Any], new_world: Callable[..., Any]) -> None:
    world = new_world(10)
    with pytest.raises(ValueError, match="modality_weights_input must name modalities of text, image, got video"):
        run(world, TrainConfig(modality_weights_input={"video": 1}))


def test_an_output_that_cannot_be_replaced_is_reported_before_the_work(
    run: Callable[..., Any], new_world: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "other").write_text("")
    with pytest.raises(ValueError, match="output_dir must be new"):
        run(new_world(10))
    assert not os.path.exists(tmp_path / "model-work")

"""Training that goes on from an earlier model: its weights in new coordinates, and when it does not suit."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

from model import warm_start
from model.initial_model import InitialModel, build_initial_model
from model.layout import Layout
from model.spool import id_hashes, write_spool
from model.train import EpochReport, Previous, TrainConfig, TrainReport, train

FACTORS = 4
CONFIG = TrainConfig(
    latent=5, hidden=24, epochs=6, batch_size=64, ridge=1.0, learning_rate=1e-2, dropout=0.0, factors_used=FACTORS
)
NewWorld = Callable[..., Any]
Run = Callable[..., TrainReport]


def weigh(factor_weights: tuple[float, ...]) -> np.ndarray:
    return np.sqrt(np.array(factor_weights))


@pytest.fixture
def start(write_shard: Callable[..., str], tmp_path: Path) -> Callable[..., InitialModel]:
    """A model at its ridge map: start(world, config) -> InitialModel."""

    def initial(world: Any, config: TrainConfig) -> InitialModel:
        layout = world.layout.narrowed(FACTORS)
        path = write_shard("initial.parquet", world)
        keras.utils.set_random_seed(0)
        spool = write_spool([path], world.layout, str(tmp_path / "spool"), 0.0, columns=layout.width)
        return build_initial_model(spool, layout, config)

    return initial


def outputs(initial: InitialModel, world: Any, shown: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Decoded content and factors of a model, in units of the fused vector."""
    model, width = initial.model, initial.model.layout.width
    decoded = np.asarray(model.decode(model.encode(world.fused[:, :width], world.mask * np.array(shown))))
    return decoded[:, : width - FACTORS], decoded[:, width - FACTORS :]


@pytest.mark.parametrize("shown", [[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 1]])
def test_in_a_turned_world_the_weights_give_what_they_gave(
    start: Callable[..., InitialModel], new_factor_world: NewWorld, shown: list[float]
) -> None:
    random = np.random.default_rng(0)
    weights = (9.0, 6.0, 2.0, 1.0), (8.0, 7.0, 1.5, 1.2)
    world = new_factor_world(300)
    config = dataclasses.replace(CONFIG, factor_weights=weights[0])
    old = start(world, config)
    for variable in old.model.trainable_variables:
        variable.assign(random.normal(size=variable.shape) / 4)

    # Factors times the roots of their weights are turned; rows more give other means and scales.
    turned, rotation = new_factor_world(340), scipy.stats.ortho_group.rvs(FACTORS, random_state=1)
    turned.fused[:300], turned.mask[:300] = world.fused, world.mask
    turned.fused[300:] = 2 * turned.fused[300:] + turned.mask[300:] @ world.layout.membership
    factors = slice(14, 14 + FACTORS)
    turned.fused[:, factors] = turned.fused[:, factors] * weigh(weights[0]) @ rotation.T / weigh(weights[1])
    new = start(turned, dataclasses.replace(config, factor_weights=weights[1]))
    ridge = outputs(new, turned, shown)
    warm_start.transfer(warm_start.weights_of(old), new, rotation)

    content, predicted = outputs(old, world, shown)
    now = [values[:300] for values in outputs(new, turned, shown)]
    some = (world.mask * np.array(shown)).any(axis=1)
    np.testing.assert_allclose(now[0][some], content[some], atol=2e-4)
    weighed = now[1] * weigh(weights[1]) @ rotation
    np.testing.assert_allclose(weighed[some], (predicted * weigh(weights[0]))[some], atol=2e-4)
    assert np.abs(ridge[0][:300][some] - content[some]).max() > 0.1


def test_earlier_latent_numbers_are_turned_to_those_of_the_ridge_map(
    start: Callable[..., InitialModel], new_factor_world: NewWorld
) -> None:
    world = new_factor_world(300)
    old, new = start(world, CONFIG), start(world, CONFIG)
    turn = scipy.stats.ortho_group.rvs(new.model.encoder.latent, random_state=1)
    weights = warm_start.weights_of(old)
    for name in ("linear", "offset", "bias", "outer"):
        weights[name] = weights[name] @ turn
    weights["kernel"] = turn.T @ weights["kernel"]
    expected = new.model.get_weights()
    warm_start.transfer(weights, new, np.eye(FACTORS))
    for one, two in zip(new.model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model of 800 posts, and where it is."""

    report: TrainReport
    directory: Path
    world: Any

    @property
    def previous(self) -> Previous:
        return Previous(str(self.directory), np.eye(FACTORS))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, new_factor_world: NewWorld, write_table: Any) -> Trained:
    directory, world = tmp_path_factory.mktemp("first"), new_factor_world(800)
    path = write_table(directory / "rows.parquet", world)
    report = train([path], world.layout, str(directory / "model"), str(directory / "work"), CONFIG)
    return Trained(report, directory / "model", world)


@pytest.fixture
def run(write_shard: Callable[..., str], tmp_path: Path) -> Run:
    """Trains: run(world, previous, name) -> report; the model is in tmp_path / name."""

    def trained(world: Any, previous: Previous | None, name: str = "model", **more: Any) -> TrainReport:
        path, places = write_shard(f"{name}.parquet", world), (str(tmp_path / name), str(tmp_path / f"{name}-work"))
        return train([path], world.layout, *places, more.pop("config", CONFIG), previous=previous, **more)

    return trained


def saved(directory: Path) -> dict[str, np.ndarray]:
    with np.load(directory / "warm_start.npz") as arrays:
        return dict(arrays)


def test_training_goes_on_and_gets_no_worse(first: Trained, run: Run, new_factor_world: NewWorld) -> None:
    assert first.report.why_cold == "there is no earlier model" and first.report.trained_share > 0
    again = run(first.world, first.previous)
    assert again.why_cold == ""
    assert again.start_loss is not None and again.ridge_loss is not None and first.report.ridge_loss is not None
    assert again.start_loss < 0.9 * again.ridge_loss
    assert again.ridge_loss == pytest.approx(first.report.ridge_loss, rel=1e-5)
    assert again.validation_loss is not None and first.report.validation_loss is not None
    assert again.validation_loss < first.report.validation_loss + 0.1 * (again.ridge_loss - again.start_loss)


class Interrupt(Exception):
    """What stands for a kill."""


def test_a_warm_training_that_was_killed_goes_on_as_if_nothing_had_happened(
    first: Trained, run: Run, tmp_path: Path
) -> None:
    def stop(report: EpochReport) -> None:
        if report.epoch == 2:
            raise Interrupt

    whole = run(first.world, first.previous, "whole")
    with pytest.raises(Interrupt):
        run(first.world, first.previous, "killed", on_epoch=stop)
    epochs: list[EpochReport] = []
    resumed = run(first.world, first.previous, "killed", on_epoch=epochs.append)
    assert whole.why_cold == "" and epochs[0].epoch == 3
    assert dataclasses.replace(resumed, seconds=whole.seconds) == whole
    one, two = saved(tmp_path / "whole"), saved(tmp_path / "killed")
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name])


def test_a_checkpoint_from_another_start_is_not_resumed(first: Trained, run: Run) -> None:
    def stop(report: EpochReport) -> None:
        raise Interrupt

    with pytest.raises(Interrupt):
        run(first.world, first.previous, on_epoch=stop)
    epochs: list[EpochReport] = []
    other = Previous(first.previous.directory, np.eye(FACTORS)[::-1])
    run(first.world, other, on_epoch=epochs.append)
    assert epochs[0].epoch == 1


def test_validation_rows_are_not_in_the_weights_that_they_validate(
    first: Trained, run: Run, new_factor_world: NewWorld, tmp_path: Path
) -> None:
    held_out = id_hashes(pa.array(first.world.ids))[:, 2] < np.uint64(CONFIG.validation_fraction * 2.0**64)
    assert 40 < held_out.sum() < 160
    other = dataclasses.replace(first.world, fused=first.world.fused.copy())
    other.fused[held_out] *= 1.001
    # One epoch, so that the validation rows cannot choose it.
    config = dataclasses.replace(CONFIG, epochs=1)
    for name, world in (("one", first.world), ("two", other)):
        run(world, None, name, config=config)
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two")
    same = {name for name, array in one.items() if np.array_equal(array, two[name])}
    assert {name for name in one if name.startswith("held_out/")} <= same
    assert "all/linear" not in same and "all/outer" not in same


@pytest.mark.parametrize(
    ("changes", "settings", "why"),
    [
        ({"learning_rate": 0.5}, {}, "learning_rate is 0.01, was 0.5"),
        ({"factor_weights": [1, 1, 1, 2]}, {}, ""),
        ({}, {"text": 9}, "the modalities or their widths are others"),
        ({}, {"collaborative": 7}, ""),
    ],
)
def test_why_an_earlier_model_does_not_suit(
    first: Trained, tmp_path: Path, new_layout: Any, changes: dict[str, Any], settings: dict[str, int], why: str
) -> None:
    described = json.loads((first.directory / "model.json").read_text())
    described["config"] |= changes
    described["layout"] = new_layout(**({"text": 8, "image": 6, "collaborative": 6} | settings)).to_dict()
    (tmp_path / "model.json").write_text(json.dumps(described))
    (tmp_path / "warm_start.npz").write_bytes((first.directory / "warm_start.npz").read_bytes())
    found = warm_start.load(Previous(str(tmp_path), np.eye(FACTORS)), first.world.layout.narrowed(FACTORS), CONFIG)
    assert (found if isinstance(found, str) else "") == why


def test_a_training_that_brought_nothing_is_no_start(
    first: Trained, run: Run, new_factor_world: NewWorld, tmp_path: Path
) -> None:
    linear = new_factor_world(200, bent=False)
    config = dataclasses.replace(CONFIG, learning_rate=1.0)  # every step leads away
    assert run(linear, None, "one", config=config).trained_share == 0
    assert not (tmp_path / "one" / "warm_start.npz").exists()
    again = run(linear, Previous(str(tmp_path / "one"), np.eye(FACTORS)), "two", config=config)
    assert again.why_cold == "the last training did not get beyond the ridge map"


def test_a_worse_start_than_the_ridge_map_is_left_alone(first: Trained, run: Run, tmp_path: Path) -> None:
    # A rotation that is none of this world's: the weights predict other factors.
    wrong = Previous(first.previous.directory, -np.eye(FACTORS))
    cold, warm = run(first.world, None, "cold"), run(first.world, wrong, "warm")
    assert warm.why_cold == "the ridge map of the new data predicts validation posts better"
    assert dataclasses.replace(warm, seconds=cold.seconds, why_cold=cold.why_cold) == cold
    one, two = saved(tmp_path / "cold"), saved(tmp_path / "warm")
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name])


def test_without_factors_there_is_nothing_to_start_from(new_layout: Callable[..., Layout], first: Trained) -> None:
    found = warm_start.load(first.previous, new_layout(text=8, image=6), CONFIG)
    assert found == "there are no collaborative factors to predict"

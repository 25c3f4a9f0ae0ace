import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model.train import EpochReport, TrainConfig, train

CONFIG = TrainConfig(latent=4, hidden=16, epochs=4, batch_size=64, patience=5)

KILLED = """
import json, os, sys
from model.train import TrainConfig, train
path, layout, output, work, config = sys.argv[1:]
stop = lambda report: os._exit(9) if report.epoch == 2 else None
train([path], json.loads(layout), output, work, TrainConfig(**json.loads(config)), stop)
"""


def _weights(directory: Path) -> list[np.ndarray]:
    reader = tf.train.load_checkpoint(str(directory / "encoder" / "variables" / "variables"))
    return [reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map()) if "weights" in name]


def test_a_training_that_was_killed_goes_on_as_if_nothing_had_happened(
    new_world: Callable[..., Any], write_shard: Callable[..., str], tmp_path: Path
) -> None:
    world = new_world(300)
    path, layout = write_shard("one", world), world.layout.to_dict()
    arguments = [
        path,
        json.dumps(layout),
        str(tmp_path / "killed"),
        str(tmp_path / "work"),
        json.dumps(CONFIG.to_dict()),
    ]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    assert not (tmp_path / "killed").exists()

    epochs: list[EpochReport] = []
    resumed = train([path], layout, str(tmp_path / "killed"), str(tmp_path / "work"), CONFIG, epochs.append)
    assert [report.epoch for report in epochs] == [3, 4]
    whole = train([path], layout, str(tmp_path / "whole"), str(tmp_path / "other"), CONFIG)
    assert resumed.modalities == whole.modalities
    assert (resumed.loss, resumed.validation_loss) == (whole.loss, whole.validation_loss)
    weights = _weights(tmp_path / "whole")
    assert len(weights) >= 6
    for one, other in zip(_weights(tmp_path / "killed"), weights, strict=True):
        np.testing.assert_array_equal(one, other)


class _Interrupt(Exception):
    pass


def _interrupted(path: str, layout: Any, tmp_path: Path, config: TrainConfig, after: int) -> None:
    def stop(report: EpochReport) -> None:
        if report.epoch == after:
            raise _Interrupt

    with pytest.raises(_Interrupt):
        train([path], layout, str(tmp_path / "model"), str(tmp_path / "work"), config, stop)


def test_a_checkpoint_of_other_rows_or_settings_is_not_resumed(
    new_world: Callable[..., Any], write_shard: Callable[..., str], tmp_path: Path
) -> None:
    world = new_world(300)
    path = write_shard("one", world)
    _interrupted(path, world.layout, tmp_path, CONFIG, after=2)
    world.fused[0, 0] += 1
    other = write_shard("two", world)
    epochs: list[EpochReport] = []
    train([other], world.layout, str(tmp_path / "model"), str(tmp_path / "work"), CONFIG, epochs.append)
    assert [report.epoch for report in epochs] == [1, 2, 3, 4]


def test_a_training_killed_after_its_last_epoch_only_has_to_export(
    new_world: Callable[..., Any], write_shard: Callable[..., str], tmp_path: Path
) -> None:
    world = new_world(300)
    path = write_shard("one", world)
    _interrupted(path, world.layout, tmp_path, CONFIG, after=4)
    epochs: list[EpochReport] = []
    report = train([path], world.layout, str(tmp_path / "model"), str(tmp_path / "work"), CONFIG, epochs.append)
    assert epochs == [] and report.epochs == 4
    assert (tmp_path / "model" / "model.json").exists()
    assert not (tmp_path / "work").exists()


def test_training_stops_when_it_gets_no_better_and_keeps_the_best_epoch(
    new_world: Callable[..., Any], write_shard: Callable[..., str], tmp_path: Path
) -> None:
    world = new_world(60)
    config = TrainConfig(latent=4, epochs=60, learning_rate=0.3, weight_decay=0, patience=3)
    epochs: list[EpochReport] = []
    report = train(
        [write_shard("one", world)], world.layout, str(tmp_path / "m"), str(tmp_path / "w"), config, epochs.append
    )
    losses = [epoch.validation_loss for epoch in epochs if epoch.validation_loss is not None]
    assert report.epochs == len(losses) == report.best_epoch + 3 < 60
    assert report.validation_loss == min(losses) == losses[report.best_epoch - 1]

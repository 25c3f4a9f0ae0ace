"""End-of-epoch callback: retains the best weights, saves the training state, reports the training history.

Keras' own BackupAndRestore saves neither the state of EarlyStopping nor that of random generators, so that a resumed
training would end with other weights than an uninterrupted one.
"""

import dataclasses
import json
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from model.dataset import TrainBatches

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EpochReport:
    """Report of an epoch, counted from 1: losses (monitored: validation), speed, and remaining time.

    `seconds_left` is an upper bound: training may stop early.
    """

    epoch: int
    epochs: int
    loss: float
    validation_loss: float | None
    rows: int
    rows_per_second: float
    seconds_left: float


@dataclasses.dataclass
class TrainingHistory:
    """Losses of the epochs, and the best one; epoch 0 is the initial model, if that was measured."""

    epochs_done: int = 0
    best_epoch: int = 0
    best_loss: float = float("inf")
    start_loss: float | None = None
    losses: list[dict[str, float]] = dataclasses.field(default_factory=list)


class Checkpoint(keras.callbacks.Callback):
    """Saves the complete training state after each epoch, in one file, and stops training without improvement.

    Args:
      path: the file; it is replaced atomically after every epoch.
      fingerprint: of the rows and settings. A checkpoint with a different one is not resumed.
      batches: the training rows; their epoch is set before each epoch.
      epochs: maximum number.
      patience: epochs without a new best loss after which training stops.
      seed: of the random generators, which are reseeded in every epoch.
      on_epoch: called after an epoch is saved.
      last_is_best: True if the last epoch counts as the best one, regardless of the losses.
    """

    def __init__(
        self,
        path: str,
        fingerprint: str,
        batches: TrainBatches,
        epochs: int,
        patience: int,
        seed: int,
        on_epoch: Callable[[EpochReport], None] | None,
        last_is_best: bool = False,
    ) -> None:
        super().__init__()
        self.last_is_best = last_is_best
        self.path, self.fingerprint, self.batches = path, fingerprint, batches
        self.epochs, self.patience, self.seed, self.on_epoch = epochs, patience, seed, on_epoch
        self.history = TrainingHistory()
        self.best_weights: list[np.ndarray] = []
        self._started = 0.0

    def restore(self, model: keras.Model) -> int:
        """Restores a built and compiled model from the checkpoint; returns the completed epochs, 0 if none."""
        if not os.path.exists(self.path):
            return 0
        with np.load(self.path) as saved:
            state = json.loads(str(saved["state"]))
            if state.pop("fingerprint") != self.fingerprint:
                logger.info("a checkpoint of other rows or settings is not resumed")
                return 0
            for index, variable in enumerate(_variables(model)):
                variable.assign(saved[f"variable_{index}"])
            self.best_weights = [saved[f"best_{index}"] for index in range(len(model.weights))]
        self.history = TrainingHistory(**state)
        logger.info("resumed after epoch %d", self.history.epochs_done)
        return self.history.epochs_done

    def set_initial_loss(self, model: keras.Model, loss: float) -> None:
        """Adds the initial weights to the candidates for the best ones."""
        self.history.start_loss = self.history.best_loss = loss
        self.best_weights = model.get_weights()

    @property
    def finished(self) -> bool:
        """True if no epoch remains, or the last ones brought no improvement."""
        history = self.history
        return history.epochs_done >= self.epochs or history.epochs_done - history.best_epoch >= self.patience

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.batches.epoch = epoch
        layers = [self.model.corruption, *([self.model.encoder.drop] if self.model.encoder.dropout else [])]
        for index, layer in enumerate(layers):
            layer.seed_generator.state.assign(np.random.SeedSequence([self.seed, epoch, index]).generate_state(2))
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        history, values = self.history, {name: float(value) for name, value in (logs or {}).items()}
        monitored = values.get("val_loss", values["loss"])
        if not np.isfinite(monitored):
            raise ValueError(f"the loss is {monitored} after epoch {epoch + 1}; lower learning_rate")
        history.epochs_done = epoch + 1
        history.losses.append({name: values[name] for name in ("loss", "val_loss") if name in values})
        if self.last_is_best or monitored < history.best_loss:
            history.best_loss, history.best_epoch = monitored, epoch + 1
            self.best_weights = self.model.get_weights()
        self._save()
        self._report(epoch + 1, values)
        self.model.stop_training = self.finished

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.restore_best(self.model)

    def restore_best(self, model: keras.Model) -> None:
        """Sets the model's weights to those of its best epoch."""
        model.set_weights(self.best_weights)

    def _save(self) -> None:
        state = {**dataclasses.asdict(self.history), "fingerprint": self.fingerprint}
        arrays: dict[str, Any] = {f"variable_{i}": np.array(v) for i, v in enumerate(_variables(self.model))}
        arrays |= {f"best_{i}": value for i, value in enumerate(self.best_weights)}
        with open(f"{self.path}.new", "wb") as out:
            np.savez(out, state=json.dumps(state), **arrays)
        os.replace(f"{self.path}.new", self.path)

    def _report(self, epoch: int, values: dict[str, float]) -> None:
        seconds = time.monotonic() - self._started
        rows = self.batches.num_batches * self.batches.batch_rows
        report = EpochReport(
            epoch=epoch,
            epochs=self.epochs,
            loss=values["loss"],
            validation_loss=values.get("val_loss"),
            rows=rows,
            rows_per_second=rows / max(seconds, 1e-9),
            seconds_left=seconds * (self.epochs - epoch),
        )
        validation = "none" if report.validation_loss is None else f"{report.validation_loss:.5f}"
        logger.info(
            "epoch %d of at most %d: loss %.5f, validation loss %s, %.0f rows/s, at most %.0f s left",
            *(epoch, report.epochs, report.loss, validation, report.rows_per_second, report.seconds_left),
        )
        if self.on_epoch is not None:
            self.on_epoch(report)


def _variables(model: keras.Model) -> list[Any]:
    return [*model.weights, *model.optimizer.variables]

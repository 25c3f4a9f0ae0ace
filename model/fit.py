"""Model fitting: optimizer, monitored loss, and selection of the weights."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from model import warm_start
from model.autoencoder import Autoencoder
from model.begin import Begun
from model.checkpoint import Checkpoint, Course, EpochReport
from model.config import TrainConfig
from model.dataset import TrainBatches, hide_modalities, stand_in_dataset, train_dataset, validation_dataset
from model.spool import Spool
from model.warm_start import WarmStart

MAX_VALIDATION_ROWS = 100_000
_VALIDATION_BATCH = 1024
# Fractions of the way from initial to best weights: fine-tuned weights are often better when averaged with those they
# started from (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). The shortest way is taken that brings
# half of what the best one brings: past it the reconstruction gains, but rankings of cold posts no longer do.
_SHARES = (0.25, 0.5, 0.75, 1.0)
_ENOUGH = 0.5


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Result of fitting.

    Attributes:
      course: the training history.
      batch_rows: rows of each step.
      validation_loss: of the final weights; None without validation rows.
      trained_share: their fraction of the way from initial to best weights.
      told: True if the monitored loss is that of the collaborative factors predicted from content.
      epochs: maximum number.
      ridge_loss: of the ridge map, on the validation rows; None if there is none or no factors are predicted.
      why_cold: reason that training did not start from earlier weights; "" if it did.
      trained: the trained weights, as a later warm start; None if training brought no improvement.
    """

    course: Course
    batch_rows: int
    validation_loss: float | None
    trained_share: float
    told: bool
    epochs: int
    ridge_loss: float | None
    why_cold: str
    trained: dict[str, np.ndarray] | None


def num_epochs(config: TrainConfig, num_batches: int) -> int:
    """Maximum number of epochs: as configured, or enough for `config.steps` steps, between 3 and 100."""
    return config.epochs or min(100, max(3, -(-config.steps // num_batches)))


def fit(
    begun: Begun,
    spool: Spool,
    config: TrainConfig,
    checkpoint_path: str,
    on_epoch: Callable[[EpochReport], None] | None,
    warm: WarmStart | str = "there is no earlier model",
) -> Fitted:
    """Trains the model until it stops improving and sets its best weights.

    If content predicts collaborative factors and there are validation rows with both, the loss on those is monitored;
    the initial weights are among the candidates for the best, so the result is never worse. In this case it starts from
    earlier weights if these predict the validation factors better than the ridge map of the new rows.

    Args:
      begun: the model at its ridge map or principal components.
      warm: earlier weights, or the reason that there are none.
    """
    model = begun.model
    batches = TrainBatches(spool, config.batch_size, config.seed)
    epochs = num_epochs(config, batches.num_batches)
    _compile(model, config, epochs * batches.num_batches)
    told = _told(model, spool)
    held_out = told if told is not None else _held_out(model, spool, config)
    start = _choose_start(begun, told, warm)
    fingerprint = _fingerprint(spool, model, config, start.fingerprint)
    checkpoint = Checkpoint(checkpoint_path, fingerprint, batches, epochs, config.patience, config.seed, on_epoch)
    if checkpoint.restore(model) == 0 and start.loss is not None:
        checkpoint.measured_start(model, start.loss)
    _run(model, checkpoint, held_out)
    course, trained = checkpoint.course, warm_start.weights_of(begun) if told is not None else None
    loss, share = None if held_out is None else course.best_loss, 1.0
    if told is not None:
        loss, share = _settle(model, start, course, told)
    return Fitted(
        course,
        batches.batch_rows,
        loss,
        share,
        told is not None,
        epochs,
        start.anchor_loss,
        start.why_cold,
        trained if share else None,
    )


@dataclasses.dataclass(frozen=True)
class _Start:
    """Initial state of training; the model has its weights.

    Attributes:
      anchor: the weights of the ridge map: the final weights are between them and the trained ones.
      anchor_loss: theirs; None if no factors are predicted.
      loss: of the initial weights.
      why_cold: reason that the initial weights are the anchor; "" if they are not.
      fingerprint: of the inputs of the initial weights, except for the rows.
    """

    anchor: list[np.ndarray]
    anchor_loss: float | None
    loss: float | None
    why_cold: str
    fingerprint: str = ""


def _choose_start(begun: Begun, told: tf.data.Dataset | None, warm: WarmStart | str) -> _Start:
    """Sets the better initial weights by validation loss: those of the ridge map or earlier ones."""
    model = begun.model
    anchor = model.get_weights()
    if told is None:
        return _Start(anchor, None, None, warm if isinstance(warm, str) else "no row held out can judge it")
    anchor_loss = _loss(model, told)
    if isinstance(warm, str):
        return _Start(anchor, anchor_loss, anchor_loss, warm)
    joined = warm_start.start(begun, warm, warm_start.HELD_OUT)
    loss = _loss(model, told)
    if loss < anchor_loss:
        return _Start(joined, anchor_loss, loss, "", warm.fingerprint)
    model.set_weights(anchor)
    return _Start(anchor, anchor_loss, anchor_loss, "the ridge map of the new data does better on posts held out")


def refit(
    begun: Begun,
    spool: Spool,
    config: TrainConfig,
    fitted: Fitted,
    checkpoint_path: str,
    on_epoch: Callable[[EpochReport], None] | None,
    warm: WarmStart | str,
) -> dict[str, np.ndarray] | None:
    """Trains a new model on all rows, with the best number of epochs and interpolation fraction of the first fit.

    Returns: the trained weights, as a later warm start; None if training had brought no improvement.
    """
    if fitted.trained_share == 0:
        return None
    model, fingerprint = begun.model, ""
    batches = TrainBatches(spool, config.batch_size, config.seed)
    epochs = fitted.course.best_epoch
    _compile(model, config, fitted.epochs * batches.num_batches)
    anchor = model.get_weights()
    if not fitted.why_cold and not isinstance(warm, str):
        anchor, fingerprint = warm_start.start(begun, warm, warm_start.ALL), warm.fingerprint
    if epochs:
        fingerprint = _fingerprint(spool, model, config, fingerprint, epochs)
        checkpoint = Checkpoint(
            checkpoint_path, fingerprint, batches, epochs, epochs, config.seed, on_epoch, keep_last=True
        )
        checkpoint.restore(model)
        _run(model, checkpoint, None)
    trained = warm_start.weights_of(begun)
    _go(model, anchor, model.get_weights(), fitted.trained_share)
    return trained


def _run(model: Autoencoder, checkpoint: Checkpoint, held_out: tf.data.Dataset | None) -> None:
    """Trains from the checkpoint to the end, and sets the model's best weights."""
    if checkpoint.finished:
        checkpoint.use_best(model)
        return
    model.fit(
        train_dataset(checkpoint.batches, model.layout),
        validation_data=held_out,
        shuffle=False,
        initial_epoch=checkpoint.course.epochs_done,
        epochs=checkpoint.epochs,
        callbacks=[checkpoint],
        verbose=0,
    )


def _settle(model: Autoencoder, start: _Start, course: Course, told: tf.data.Dataset) -> tuple[float, float]:
    """Interpolates between initial and best weights; returns (validation loss, fraction)."""
    if start.anchor_loss is None or course.best_loss >= start.anchor_loss:
        return course.best_loss, 0.0
    trained, losses = model.get_weights(), {}
    for share in _SHARES:
        _go(model, start.anchor, trained, share)
        losses[share] = _loss(model, told)
    wanted = start.anchor_loss + _ENOUGH * (min(losses.values()) - start.anchor_loss)
    chosen = next(share for share in _SHARES if losses[share] <= wanted)
    _go(model, start.anchor, trained, chosen)
    return losses[chosen], chosen


def _go(model: Autoencoder, started: Sequence[np.ndarray], trained: Sequence[np.ndarray], share: float) -> None:
    """Sets the weights to a fraction of the way from the ridge map to the trained ones."""
    weights = [one + np.float32(share) * (two - one) for one, two in zip(started, trained, strict=True)]
    model.set_weights(trained if share == 1 else weights)


def _told(model: Autoencoder, spool: Spool) -> tf.data.Dataset | None:
    """The validation rows that have both collaborative factors and content; None if there are none."""
    if not model.layout.stands_in:
        return None
    rows = spool.validation()[:MAX_VALIDATION_ROWS]
    mask = rows[:, model.layout.width :] * model.seen
    rows = rows[(mask[:, -1] > 0) & mask[:, :-1].any(axis=1)]
    return stand_in_dataset(rows, _VALIDATION_BATCH, model.layout) if len(rows) else None


def _held_out(model: Autoencoder, spool: Spool, config: TrainConfig) -> tf.data.Dataset | None:
    """The validation rows, complete and with masked modalities; None if there are none."""
    rows = spool.validation()[:MAX_VALIDATION_ROWS]
    kept = hide_modalities(rows[:, model.layout.width :], np.array(config.hide_rates(model.layout)), config.seed)
    return validation_dataset(rows, kept, _VALIDATION_BATCH, model.layout) if len(rows) else None


def _loss(model: Autoencoder, rows: tf.data.Dataset) -> float:
    return float(model.evaluate(rows, verbose=0, return_dict=True)["loss"])


def _compile(model: Autoencoder, config: TrainConfig, steps: int) -> None:
    model.compile(optimizer=_optimizer(config, steps), jit_compile=False)
    model.optimizer.build(model.trainable_variables)


def _optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    warmup = max(1, min(steps // 20, 1000))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), alpha=0.01, warmup_target=config.learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay, clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gain", "offset"])
    return optimizer


def _fingerprint(spool: Spool, model: Autoencoder, config: TrainConfig, *more: int | str) -> str:
    versions = [keras.__version__, tf.__version__, np.__version__]
    told = [spool.fingerprint, spool.num_validation, model.layout.to_dict(), config.to_dict(), versions, *more]
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16).hexdigest()

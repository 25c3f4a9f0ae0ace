"""Model fitting: optimizer, monitored loss, and selection of the weights."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from model import interpolation, warm_start
from model.autoencoder import Autoencoder
from model.checkpoint import Checkpoint, EpochReport, TrainingHistory
from model.config import TrainConfig
from model.dataset import TrainBatches, drop_modalities, train_dataset, validation_dataset
from model.initial_model import InitialModel
from model.spool import Spool
from model.warm_start import WarmStart

MAX_VALIDATION_ROWS = 100_000
_VALIDATION_BATCH = 1024
# Training steps for which the number of epochs is chosen where it is not given.
_STEPS = 10_000


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Result of fitting.

    Attributes:
      history: the training history.
      batch_rows: rows of each step.
      validation_loss: of the final weights; None without validation rows.
      trained_share: their fraction of the way from initial to best weights.
      predicts_factors: True if the monitored loss is that of the collaborative factors predicted from content.
      epochs: maximum number.
      ridge_loss: of the ridge map, on the validation rows; None if there is none or no factors are predicted.
      why_cold: reason that training did not start from earlier weights; "" if it did.
      trained: the trained weights, as a later warm start; None if training brought no improvement.
    """

    history: TrainingHistory
    batch_rows: int
    validation_loss: float | None
    trained_share: float
    predicts_factors: bool
    epochs: int
    ridge_loss: float | None
    why_cold: str
    trained: dict[str, np.ndarray] | None


def num_epochs(config: TrainConfig, num_batches: int) -> int:
    """Maximum number of epochs: as configured, or enough for _STEPS steps, between 3 and 100."""
    return config.epochs or min(100, max(3, -(-_STEPS // num_batches)))


def fit(
    initial: InitialModel,
    spool: Spool,
    config: TrainConfig,
    checkpoint_path: str,
    on_epoch: Callable[[EpochReport], None] | None,
    warm: WarmStart | str,
) -> Fitted:
    """Trains the model until it stops improving and sets its best weights.

    If content predicts collaborative factors and there are validation rows with both, the loss on those is monitored;
    the initial weights are among the candidates for the best, so the result is never worse. In this case it starts from
    earlier weights if these predict the validation factors better than the ridge map of the new rows.

    Args:
      initial: the model at its ridge map or principal components.
      warm: earlier weights, or the reason that there are none.
    """
    model = initial.model
    batches = TrainBatches(spool, config.batch_size, config.seed)
    epochs = num_epochs(config, batches.num_batches)
    _compile(model, config, epochs * batches.num_batches)
    with_factors = _factor_validation(model, spool)
    validation = _validation(model, spool, config) if with_factors is None else with_factors
    start = _choose_start(initial, with_factors, warm)
    fingerprint = _fingerprint(spool, model, config, start.fingerprint)
    checkpoint = Checkpoint(checkpoint_path, fingerprint, batches, epochs, config.patience, config.seed, on_epoch)
    if checkpoint.restore(model) == 0 and start.loss is not None:
        checkpoint.set_initial_loss(model, start.loss)
    _run(model, checkpoint, validation)
    history, share, trained = checkpoint.history, 1.0, None
    loss = None if validation is None else history.best_loss
    if with_factors is not None and start.ridge_loss is not None:
        share = 0.0
        if history.best_loss < start.ridge_loss:
            trained = warm_start.weights_of(initial)
            measure = functools.partial(_loss, model, with_factors)
            loss, share = interpolation.choose_share(model, start.ridge_weights, start.ridge_loss, measure)
    return Fitted(
        history=history,
        batch_rows=batches.batch_rows,
        validation_loss=loss,
        trained_share=share,
        predicts_factors=with_factors is not None,
        epochs=epochs,
        ridge_loss=start.ridge_loss,
        why_cold=start.why_cold,
        trained=trained,
    )


@dataclasses.dataclass(frozen=True)
class _Start:
    """Initial state of training; the model has its weights.

    Attributes:
      ridge_weights: the weights of the ridge map: the final weights are between them and the trained ones.
      ridge_loss: theirs; None if no factors are predicted.
      loss: of the initial weights.
      why_cold: reason that the initial weights are those of the ridge map; "" if they are not.
      fingerprint: of the inputs of the initial weights, except for the rows.
    """

    ridge_weights: list[np.ndarray]
    ridge_loss: float | None
    loss: float | None
    why_cold: str
    fingerprint: str = ""


def _choose_start(initial: InitialModel, with_factors: tf.data.Dataset | None, warm: WarmStart | str) -> _Start:
    """Sets the better initial weights by validation loss: those of the ridge map or earlier ones."""
    model = initial.model
    ridge_weights = model.get_weights()
    if with_factors is None:
        why_cold = warm if isinstance(warm, str) else "there is no validation row to compare them on"
        return _Start(ridge_weights, None, None, why_cold)
    ridge_loss = _loss(model, with_factors)
    if isinstance(warm, str):
        return _Start(ridge_weights, ridge_loss, ridge_loss, warm)
    same_inner_weights = warm_start.initialize(initial, warm, warm_start.HELD_OUT)
    loss = _loss(model, with_factors)
    if loss < ridge_loss:
        return _Start(same_inner_weights, ridge_loss, loss, "", warm.fingerprint)
    model.set_weights(ridge_weights)
    why_cold = "the ridge map of the new data predicts validation posts better"
    return _Start(ridge_weights, ridge_loss, ridge_loss, why_cold)


def refit(
    initial: InitialModel,
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
    model, fingerprint = initial.model, ""
    batches = TrainBatches(spool, config.batch_size, config.seed)
    epochs = fitted.history.best_epoch
    _compile(model, config, fitted.epochs * batches.num_batches)
    ridge_weights = model.get_weights()
    if not fitted.why_cold and not isinstance(warm, str):
        ridge_weights, fingerprint = warm_start.initialize(initial, warm, warm_start.ALL), warm.fingerprint
    if epochs:
        fingerprint = _fingerprint(spool, model, config, fingerprint, epochs)
        checkpoint = Checkpoint(
            checkpoint_path, fingerprint, batches, epochs, epochs, config.seed, on_epoch, last_is_best=True
        )
        checkpoint.restore(model)
        _run(model, checkpoint, None)
    trained = warm_start.weights_of(initial)
    interpolation.interpolate(model, ridge_weights, model.get_weights(), fitted.trained_share)
    return trained


def _run(model: Autoencoder, checkpoint: Checkpoint, validation: tf.data.Dataset | None) -> None:
    """Trains from the checkpoint to the end, and sets the model's best weights."""
    if checkpoint.finished:
        checkpoint.restore_best(model)
        return
    model.fit(
        train_dataset(checkpoint.batches, model.layout),
        validation_data=validation,
        shuffle=False,
        initial_epoch=checkpoint.history.epochs_done,
        epochs=checkpoint.epochs,
        callbacks=[checkpoint],
        verbose=0,
    )


def _factor_validation(model: Autoencoder, spool: Spool) -> tf.data.Dataset | None:
    """The validation rows with factors and content, the factors masked in the input and alone in the target.

    None if there are no such rows.
    """
    if not model.layout.predicts_factors:
        return None
    rows = spool.validation()[:MAX_VALIDATION_ROWS]
    mask = rows[:, model.layout.width :] * model.is_input
    rows = rows[(mask[:, -1] > 0) & mask[:, :-1].any(axis=1)]
    if not len(rows):
        return None
    mask, factors = rows[:, model.layout.width :], np.zeros(len(model.layout.modalities), np.float32)
    factors[-1] = 1
    return validation_dataset(rows, [(mask * (1 - factors), mask * factors)], _VALIDATION_BATCH, model.layout)


def _validation(model: Autoencoder, spool: Spool, config: TrainConfig) -> tf.data.Dataset | None:
    """The validation rows, complete and with modalities masked in the input; None if there are none."""
    rows = spool.validation()[:MAX_VALIDATION_ROWS]
    if not len(rows):
        return None
    mask = rows[:, model.layout.width :]
    masked = drop_modalities(mask, np.array(config.dropout_rates(model.layout)), config.seed)
    return validation_dataset(rows, [(mask, mask), (masked, mask)], _VALIDATION_BATCH, model.layout)


def _loss(model: Autoencoder, rows: tf.data.Dataset) -> float:
    return float(model.evaluate(rows, verbose=0, return_dict=True)["loss"])


def _compile(model: Autoencoder, config: TrainConfig, steps: int) -> None:
    warmup = max(1, min(steps // 20, 1000))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), alpha=0.01, warmup_target=config.learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay, clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gain", "offset"])
    model.compile(optimizer=optimizer, jit_compile=False)
    model.optimizer.build(model.trainable_variables)


def _fingerprint(spool: Spool, model: Autoencoder, config: TrainConfig, *more: int | str) -> str:
    versions = [keras.__version__, tf.__version__, np.__version__]
    inputs = [spool.fingerprint, spool.num_validation, model.layout.to_dict(), config.to_dict(), versions, *more]
    return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).hexdigest()

"""Training of the multimodal autoencoder, from Parquet shards of fused vectors to a model directory."""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import keras
import numpy as np
import tensorflow as tf

from model import statistics
from model.autoencoder import Autoencoder
from model.checkpoint import Checkpoint, EpochReport
from model.config import TrainConfig
from model.dataset import TrainBatches, hide_modalities, train_dataset, validation_dataset
from model.evaluate import ModalityReport, modality_reports
from model.export import check_replaceable, export
from model.layout import Layout
from model.logs import EventLog
from model.spool import Spool, open_local, write_spool

__all__ = ["EpochReport", "ModalityReport", "TrainConfig", "TrainReport", "train"]

logger = logging.getLogger(__name__)

MAX_VALIDATION_ROWS = 100_000


@dataclasses.dataclass(frozen=True)
class TrainReport:
    """What came of a training; model.json holds it too.

    Attributes:
      num_train: rows trained on.
      num_validation: rows held out.
      num_empty: rows left out because they have no modality.
      latent: numbers of the representation (at most the fused vector's).
      batch_rows: rows of each training step.
      epochs: passes done.
      best_epoch: the one, counted from 1, whose weights were kept.
      loss: of that epoch on the training rows, corrupted.
      validation_loss: of that epoch; None where no row was held out.
      measured_on: whether the modalities' errors are of "validation" or, where that is empty, of "training" rows.
      modalities: reconstruction errors beside those of principal component analysis.
      seconds: what it took, everything.
    """

    num_train: int
    num_validation: int
    num_empty: int
    latent: int
    batch_rows: int
    epochs: int
    best_epoch: int
    loss: float
    validation_loss: float | None
    measured_on: str
    modalities: tuple[ModalityReport, ...]
    seconds: float


def train(
    files: Sequence[str],
    layout: Layout | Mapping[str, Any],
    output_dir: str,
    work_dir: str,
    config: TrainConfig | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    open_file: Callable[[str], BinaryIO] = open_local,
) -> TrainReport:
    """Trains an autoencoder and exports it (see `model.export.export`).

    The same rows and settings give the same model on the same machine, whatever shards they come in. Sets the seeds of
    Keras, NumPy and Python, and TensorFlow's operations to deterministic, for the whole process.

    Args:
      files: Parquet shards with post_id, fused and mask.
      layout: the blocks of the fused vector, or a parsed _layout.json.
      output_dir: the model directory to make; local.
      work_dir: local; holds the rows as plain floats, and the checkpoint with which a training that was killed goes on
        when it is called again with the same rows and settings. Both are removed in the end; the logs stay.
      config: the settings.
      on_epoch: called after every epoch.
      open_file: opens a path of `files`.

    Raises:
      ValueError: no row has a modality, a shard is not as it should be, or the loss is not finite.
    """
    began = time.monotonic()
    config = config or TrainConfig()
    layout = layout if isinstance(layout, Layout) else Layout.from_dict(layout)
    config.check_layout(layout)
    check_replaceable(output_dir)
    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()

    spool = write_spool(files, layout, os.path.join(work_dir, "spool"), config.validation_fraction, open_file)
    if spool.num_train == 0:
        raise ValueError(f"training needs at least one row with a modality, got {spool.num_empty} rows without")
    logger.info("%d rows to train on, %d held out", spool.num_train, spool.num_validation)
    moments = statistics.moments(spool, layout)
    latent = min(config.latent, layout.width)
    components = statistics.principal_components(spool, layout, moments, latent)
    model = _new_model(layout, latent, config)
    model.start_from(moments, components)
    logs = os.path.join(work_dir, "tensorboard")
    checkpoint = _fit(model, spool, config, os.path.join(work_dir, "checkpoint.npz"), logs, on_epoch)

    rows, measured_on = (spool.validation(), "validation") if spool.num_validation else (_sample(spool), "training")
    course = checkpoint.course
    best = course.losses[course.best_epoch - 1]
    report = TrainReport(
        num_train=spool.num_train,
        num_validation=spool.num_validation,
        num_empty=spool.num_empty,
        latent=latent,
        batch_rows=checkpoint.batches.batch_rows,
        epochs=course.epochs_done,
        best_epoch=course.best_epoch,
        loss=best["loss"],
        validation_loss=best.get("val_loss"),
        measured_on=measured_on,
        modalities=modality_reports(model, components, moments, rows),
        seconds=round(time.monotonic() - began, 3),
    )
    export(model, output_dir, _description(layout, config, report, course.losses, moments), logs)
    shutil.rmtree(spool.directory)
    os.remove(checkpoint.path)
    return report


def num_epochs(config: TrainConfig, num_batches: int) -> int:
    """The most epochs: as asked for, or enough for `config.steps` steps, between 3 and 100."""
    return config.epochs or min(100, max(3, -(-config.steps // num_batches)))


def _new_model(layout: Layout, latent: int, config: TrainConfig) -> Autoencoder:
    return Autoencoder(
        layout=layout.to_dict(),
        latent=latent,
        hidden=config.hidden,
        dropout=config.dropout,
        noise=config.noise,
        modality_dropout=config.hide_rates(layout),
        modality_weights=config.loss_weights(layout),
        seed=config.seed,
        name="autoencoder",
    )


def _fit(
    model: Autoencoder,
    spool: Spool,
    config: TrainConfig,
    checkpoint_path: str,
    logs: str,
    on_epoch: Callable[[EpochReport], None] | None,
) -> Checkpoint:
    """Trains the model until it gets no better and gives it its best weights."""
    batches = TrainBatches(spool, config.batch_size, config.seed)
    epochs = num_epochs(config, batches.num_batches)
    model.compile(optimizer=_optimizer(config, epochs * batches.num_batches), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    fingerprint = _fingerprint(spool, model, config)
    checkpoint = Checkpoint(checkpoint_path, fingerprint, batches, epochs, config.patience, config.seed, on_epoch)
    done = checkpoint.restore(model)
    if done == 0:
        shutil.rmtree(logs, ignore_errors=True)
    if checkpoint.finished:
        checkpoint.use_best(model)
        return checkpoint
    held_out = spool.validation()[:MAX_VALIDATION_ROWS]
    kept = hide_modalities(held_out[:, model.layout.width :], np.array(config.hide_rates(model.layout)), config.seed)
    model.fit(
        train_dataset(batches, model.layout),
        validation_data=validation_dataset(held_out, kept, 1024, model.layout) if len(held_out) else None,
        shuffle=False,
        initial_epoch=done,
        epochs=epochs,
        callbacks=[EventLog(logs), checkpoint],
        verbose=0,
    )
    return checkpoint


def _optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    warmup = max(1, min(steps // 20, 1000))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), alpha=0.01, warmup_target=config.learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay, clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gain"])
    return optimizer


def _fingerprint(spool: Spool, model: Autoencoder, config: TrainConfig) -> str:
    versions = [keras.__version__, tf.__version__, np.__version__]
    told = [spool.fingerprint, spool.num_validation, model.layout.to_dict(), config.to_dict(), versions]
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16).hexdigest()


def _sample(spool: Spool) -> np.ndarray:
    return np.concatenate([spool.bucket(index) for index in range(min(4, len(spool.bucket_rows)))])


def _description(
    layout: Layout,
    config: TrainConfig,
    report: TrainReport,
    losses: Sequence[Mapping[str, float]],
    moments: statistics.Moments,
) -> dict[str, Any]:
    rows = {name: int(count) for name, count in zip(layout.names, moments.counts, strict=True)}
    return {
        "layout": layout.to_dict(),
        "latent": report.latent,
        "config": config.to_dict(),
        "losses": list(losses),
        "train_rows": rows,
        "report": dataclasses.asdict(report),
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
    }

"""Training of the multimodal autoencoder, from Parquet shards of fused vectors to a model directory."""

import dataclasses
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import keras
import numpy as np
import tensorflow as tf

from model import warm_start
from model.checkpoint import EpochReport
from model.config import TrainConfig
from model.evaluate import ModalityReport, modality_reports
from model.export import check_replaceable, export
from model.fit import Fitted, fit, refit
from model.initial_model import InitialModel, build_initial_model
from model.layout import Layout
from model.spool import Spool, open_local, write_spool
from model.warm_start import Previous

__all__ = ["EpochReport", "ModalityReport", "Previous", "TrainConfig", "TrainReport", "train"]

logger = logging.getLogger(__name__)

_CHECKPOINT, _REFIT = "checkpoint.npz", "refit.npz"


@dataclasses.dataclass(frozen=True)
class TrainReport:
    """Result of a training, also part of model.json.

    Attributes:
      num_train: rows trained on.
      num_validation: validation rows.
      num_empty: rows dropped because they have no modality.
      latent: width of the representation (at most the fused vector's).
      batch_rows: rows of each training step.
      epochs: completed passes.
      best_epoch: the epoch, counted from 1, with the best weights.
      loss: of that epoch on the training rows, corrupted; None if the initial weights were best.
      validation_loss: of that epoch; None without validation rows.
      measured_on: rows of the modalities' errors, "validation" or, if there are none, "training".
      modalities: reconstruction errors and those of principal component analysis.
      seconds: total duration.
      trained_share: final weights' fraction of the way from initial to best; 0 if the initial ones were best.
      refitted: True if the model was then retrained on all rows, validation included, for as many epochs. The metrics
        are those of the model before.
      start_loss: of the initial weights, on the validation rows; None if no factors are predicted for them.
      ridge_loss: of the ridge map, on the same rows.
      why_cold: reason for a start from the ridge map (or principal components); "" if from earlier weights.
    """

    num_train: int
    num_validation: int
    num_empty: int
    latent: int
    batch_rows: int
    epochs: int
    best_epoch: int
    loss: float | None
    validation_loss: float | None
    measured_on: str
    modalities: tuple[ModalityReport, ...]
    seconds: float
    trained_share: float = 1.0
    refitted: bool = False
    start_loss: float | None = None
    ridge_loss: float | None = None
    why_cold: str = ""


def train(
    files: Sequence[str],
    layout: Layout | Mapping[str, Any],
    output_dir: str,
    work_dir: str,
    config: TrainConfig | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    open_file: Callable[[str], BinaryIO] = open_local,
    previous: Previous | None = None,
) -> TrainReport:
    """Trains an autoencoder and exports it (see `model.export.export`).

    The same rows, settings and earlier model give the same model on the same machine, for any sharding.
    Sets the seeds of Keras, NumPy and Python, and TensorFlow's operations to deterministic, for the whole process.

    Args:
      files: Parquet shards with post_id, fused and mask.
      layout: the blocks of the fused vector, or a parsed _layout.json.
      output_dir: the model directory to write; local.
      work_dir: local; for the rows as plain floats, and the checkpoint from which a killed training resumes when called
        again with the same rows and settings. Removed at the end.
      config: the settings.
      on_epoch: called after every epoch.
      open_file: opens a path of `files`.
      previous: an earlier model, as warm start if compatible; see `model.warm_start`.

    Raises:
      ValueError: no row has a modality, a shard is invalid, or the loss is not finite.
    """
    start_time = time.monotonic()
    config = config or TrainConfig()
    layout = layout if isinstance(layout, Layout) else Layout.from_dict(layout)
    config.check_layout(layout)
    check_replaceable(output_dir)
    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()

    used = layout.narrowed(config.factors_used) if layout.predicts_factors and config.factors_used else layout
    spool = _spool(files, layout, used, work_dir, config.validation_fraction, open_file)
    warm = "there is no earlier model" if previous is None else warm_start.load(previous, used, config)
    initial = build_initial_model(spool, used, config)
    fitted = fit(initial, spool, config, os.path.join(work_dir, _CHECKPOINT), on_epoch, warm)
    report, trained = _report(initial, spool, fitted), {warm_start.HELD_OUT: fitted.trained}
    if fitted.predicts_factors and 0 < spool.num_train + spool.num_validation <= config.refit_rows:
        spool = _spool(files, layout, used, work_dir, 0.0, open_file)
        initial = build_initial_model(spool, used, config)
        refitted = refit(initial, spool, config, fitted, os.path.join(work_dir, _REFIT), on_epoch, warm)
        trained[warm_start.ALL] = refitted
        report = dataclasses.replace(report, refitted=True)
    report = dataclasses.replace(report, seconds=round(time.monotonic() - start_time, 3))
    description = _description(layout, used, config, report, fitted, initial)
    later = warm_start.flatten({name: weights for name, weights in trained.items() if weights is not None})
    export(initial.model, output_dir, description, layout.width, later)
    shutil.rmtree(work_dir)
    return report


def _spool(
    files: Sequence[str],
    layout: Layout,
    used: Layout,
    work_dir: str,
    validation_fraction: float,
    open_file: Callable[[str], BinaryIO],
) -> Spool:
    spool = write_spool(files, layout, os.path.join(work_dir, "spool"), validation_fraction, open_file, used.width)
    if spool.num_train == 0:
        raise ValueError(f"training needs at least one row with a modality, got {spool.num_empty} rows without")
    logger.info("%d training rows, %d validation rows", spool.num_train, spool.num_validation)
    return spool


def _report(initial: InitialModel, spool: Spool, fitted: Fitted) -> TrainReport:
    rows, measured_on = (spool.validation(), "validation") if spool.num_validation else (_sample(spool), "training")
    history = fitted.history
    best = history.losses[history.best_epoch - 1] if history.best_epoch else {}
    return TrainReport(
        num_train=spool.num_train,
        num_validation=spool.num_validation,
        num_empty=spool.num_empty,
        latent=initial.model.encoder.latent,
        batch_rows=fitted.batch_rows,
        epochs=history.epochs_done,
        best_epoch=history.best_epoch,
        loss=best.get("loss"),
        validation_loss=fitted.validation_loss,
        measured_on=measured_on,
        modalities=modality_reports(initial.model, initial.components, initial.moments, rows, initial.ridge_map),
        seconds=0.0,
        trained_share=fitted.trained_share,
        start_loss=history.start_loss,
        ridge_loss=fitted.ridge_loss,
        why_cold=fitted.why_cold,
    )


def _sample(spool: Spool) -> np.ndarray:
    return np.concatenate([spool.bucket(index) for index in range(min(4, len(spool.bucket_rows)))])


def _description(
    layout: Layout,
    used: Layout,
    config: TrainConfig,
    report: TrainReport,
    fitted: Fitted,
    initial: InitialModel,
) -> dict[str, Any]:
    rows = {name: int(count) for name, count in zip(used.names, initial.moments.counts, strict=True)}
    described = {
        "layout": layout.to_dict(),
        "latent": report.latent,
        "config": config.to_dict(),
        "losses": fitted.history.losses,
        "train_rows": rows,
        "report": dataclasses.asdict(report),
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
    }
    if used.predicts_factors:
        described["collaborative"] = _collaborative(used, report)
    return described


def _collaborative(used: Layout, report: TrainReport) -> dict[str, Any]:
    """Description of decoders/collaborative, and the share of the factors' variance unexplained by content."""
    predicted = report.modalities[-1]
    return {
        "factors": used.modalities[-1].width,
        "values": "the leading factors of the block, in its units; mask the modality to predict them from content",
        "unexplained_from_content": {
            "autoencoder": predicted.predicted_error,
            "ridge": predicted.ridge_predicted_error,
            "pca": predicted.pca_predicted_error,
        },
        "measured_on": report.measured_on,
        "rows": predicted.rows,
    }

"""Fused vectors -> the multimodal autoencoder: encoder, decoders, how well it reconstructs each modality.

Reads fused/ and collaborative/; writes model/. Runs in this process, not on Beam's workers: the fused vectors are
streamed from Parquet.
A training that was killed goes on from its last epoch when the same command is given again.

    fusefeed train --output out --run_date 2026-01-31 --latent 64
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines import console, stage
from pipelines.options import Options
from pipelines.stage import Places, Stage
from transforms import files

if TYPE_CHECKING:
    from model.train import EpochReport

DESCRIPTION = "Fused vectors -> the multimodal autoencoder."


def run(options: Options, places: Places) -> None:
    """Runs the stage."""
    from model.train import TrainConfig, train
    from transforms import tables

    fused = places.input("fused")
    config = TrainConfig(
        latent=options.latent,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        **factor_settings(places),
    )
    local = os.path.join(places.local, "model")
    kept = work_dir(places)
    train(
        files=tables.list_files(fused),
        layout=files.read_json(stage.join(fused, "_layout.json")),
        output_dir=local,
        work_dir=kept,
        config=config,
        on_epoch=show,
        open_file=tables.open_file,
    )
    stage.upload(local, places.output("model"))
    shutil.rmtree(kept)


def factor_settings(places: Places) -> dict[str, Any]:
    """How the model learns to tell factors from content, by what tuning found; nothing where there are no factors."""
    from transforms import space

    found = space.read_space(places.input("fused"), places.input("collaborative"))
    decoded = found.tuning.decoded
    if decoded is None or space.COLLABORATIVE not in found.names:
        return {}
    content = set(found.names) - {space.COLLABORATIVE}
    return {
        "ridge": decoded.lam,
        "modality_weights_input": {name: weight for name, weight in decoded.weights.items() if name in content},
        "factors_used": found.widths.decoded,
        "factor_weights": tuple(found.singular_values[: found.widths.decoded]),
    }


def work_dir(places: Places) -> str:
    """The local directory that outlives a training that is killed: in the run's own where that is local."""
    if files.is_local(places.run_dir):
        return stage.join(places.run_dir, "_training")
    return os.path.join(tempfile.gettempdir(), "fusefeed-training-" + stage.slug(places.run_dir))


def show(epoch: "EpochReport") -> None:
    """Tells that an epoch is done."""
    held_out = "" if epoch.validation_loss is None else f", held out {epoch.validation_loss:.4f}"
    console.tell(
        f"train: epoch {epoch.epoch} of at most {epoch.epochs}, loss {epoch.loss:.4f}{held_out}, "
        f"{epoch.rows_per_second:,.0f} rows/s, at most {console.duration(epoch.seconds_left)} left"
    )


STAGE = Stage("train", reads=("fused", "collaborative"), writes=("model",), run=run, options=("train",))


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    return stage.main(STAGE, DESCRIPTION, argv)


if __name__ == "__main__":
    sys.exit(main())

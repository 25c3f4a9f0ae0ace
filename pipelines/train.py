"""Fused vectors -> the multimodal autoencoder: encoder, decoders, how well it reconstructs each modality.

Reads fused/; writes model/. Runs in this process, not on Beam's workers: the fused vectors are streamed from Parquet.

    fusefeed train --output out --run_date 2026-01-31 --latent 64
"""

import sys
from collections.abc import Sequence

from pipelines import stage
from pipelines.options import Options
from pipelines.stage import Places, Stage

DESCRIPTION = "Fused vectors -> the multimodal autoencoder."


def run(options: Options, places: Places) -> None:
    """Runs the stage."""
    from model.train import TrainConfig, train
    from transforms import tables

    config = TrainConfig(
        latent=options.latent,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    fused = places.input("fused")
    train(
        files=tables.list_files(fused),
        layout=stage.read_json(stage.join(fused, "_layout.json")),
        output_dir=places.output("model"),
        work_dir=places.local,
        config=config,
        open_file=tables.open_file,
    )


STAGE = Stage("train", reads=("fused",), writes=("model",), run=run)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    return stage.main(STAGE, DESCRIPTION, argv)


if __name__ == "__main__":
    sys.exit(main())

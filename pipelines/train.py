"""Fused vectors -> the multimodal autoencoder: encoder, decoders, how well it reconstructs each modality.

Reads fused/ and collaborative/; writes model/. Runs in this process, not on Beam's workers: the fused vectors are
streamed from Parquet.
A training that was killed goes on from its last epoch when the same command is given again. A run that goes on in the
space of the last published one (see pipelines/continuity/space_lineage.py) starts from that one's model where it
suits; model/start.json records it, and metrics.json (`train`).

    fusefeed train --output out --run_date 2026-01-31 --latent 64
"""

import functools
import logging
import os
import tempfile
from typing import TYPE_CHECKING, Any

from pipelines.command_line import console
from pipelines.command_line.options import Options, TrainOptions
from pipelines.continuity import space_lineage, warm_start
from pipelines.stage.declaration import Places, Stage
from pipelines.store import paths
from transforms.tables import files

if TYPE_CHECKING:
    from model.train import EpochReport


def run(options: Options, places: Places) -> None:
    """Runs the stage."""
    from model.train import TrainConfig, train
    from transforms.tables import parquet

    fused, settings = places.input("fused"), factor_settings(places)
    config = TrainConfig(
        latent=options.latent,
        epochs=options.epochs,
        seed=options.seed,
        **settings,
    )
    local = os.path.join(places.local, "model")
    previous, why_cold = warm_start.find_previous(options, places, settings.get("factors_used", 0))
    report = train(
        files=parquet.list_files(fused),
        layout=files.read_json(files.join(fused, "_layout.json")),
        output_dir=local,
        work_dir=work_dir(places),
        config=config,
        on_epoch=show,
        open_file=parquet.open_file,
        previous=previous,
    )
    started = warm_start.describe_start(report, space_lineage.read(places.input("transform_fn")).previous, why_cold)
    logging.info("training started %s", warm_start.tell_start(started))
    files.write_json(os.path.join(local, warm_start.START), started)
    files.upload(local, places.output("model"))


def factor_settings(places: Places) -> dict[str, Any]:
    """Settings for predicting factors from content, from the tuning; empty if there are no factors."""
    from transforms.embed import embedding_space

    found = embedding_space.read_space(places.input("fused"), places.input("collaborative"))
    decoded = found.tuning.decoded
    if decoded is None or embedding_space.COLLABORATIVE not in found.names:
        return {}
    content = set(found.names) - {embedding_space.COLLABORATIVE}
    return {
        "ridge": decoded.lam,
        "modality_weights_input": {name: weight for name, weight in decoded.weights.items() if name in content},
        "factors_used": found.widths.decoded,
        "factor_weights": tuple(found.singular_values[: found.widths.decoded]),
    }


def work_dir(places: Places) -> str:
    """The local directory that outlives a training that is killed: in the run's own where that is local."""
    if files.is_local(places.run_dir):
        return files.join(places.run_dir, "_training")
    return os.path.join(tempfile.gettempdir(), "fusefeed-training-" + paths.slug(places.run_dir))


def show(epoch: "EpochReport") -> None:
    """Tells that an epoch is done."""
    held_out = "" if epoch.validation_loss is None else f", held out {epoch.validation_loss:.4f}"
    console.show_progress(
        f"epoch {epoch.epoch} of at most {epoch.epochs}, loss {epoch.loss:.4f}{held_out}, "
        f"{epoch.rows_per_second:,.0f} rows/s, at most {console.duration(epoch.seconds_left)} left"
    )


STAGE = Stage(
    "train",
    reads=("fused", "collaborative", "transform_fn"),
    writes=("model",),
    run=run,
    options=(TrainOptions, "seed"),
    other_sources=functools.partial(space_lineage.sources, tables=("model", "collaborative")),
)

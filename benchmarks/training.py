"""Training from Parquet, streamed and with checkpoints, beside keras.Model.fit on arrays in memory.

Both train the same model with the same batches' size and hold out the same share; what is compared is the time of an
epoch after the first (in which the graph is traced), from end to end: training rows, held-out rows, checkpoint.
"""

import itertools
import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.harness import OURS, Benchmark, Facts, Ratio, Run, Side, size

ROWS = 200_000
EPOCHS, BATCH, LATENT, HELD_OUT = 4, 256, 64, 0.1
WIDTHS = {"text": 128, "image": 64, "video": 64, "audio": 64}
ROWS_PER_FILE = 50_000
Moment = tuple[float, float]


def prepare(folder: Path, scale: float) -> Mapping[str, int]:
    """Fused vectors in Parquet files, and the same as arrays."""
    import numpy as np
    import pyarrow as pa

    from transforms.tables import blocks, parquet, schemas

    number = size(ROWS, scale, least=2 * BATCH)
    width = sum(WIDTHS.values())
    mask = (np.random.default_rng(3).random((number, len(WIDTHS))) < 0.7).astype(np.float32)
    mask[:, 0] = 1
    fused = data.unit_vectors(number, width, seed=3) * np.repeat(mask, list(WIDTHS.values()), axis=1)
    columns = {"post_id": data.ids("p", np.arange(number))}
    columns |= {"fused": blocks.numpy_to_vectors(fused), "mask": blocks.numpy_to_vectors(mask)}
    columns |= dict.fromkeys(("degree", "trend"), pa.array(np.zeros(number)))
    table = pa.RecordBatch.from_pydict(columns)
    for part, rows in enumerate(blocks.split_rows(table, ROWS_PER_FILE)):
        path = folder / "fused" / f"part-{part:05d}.parquet"
        parquet.write_file(str(path), rows, schemas.fused(width, len(WIDTHS)))
    np.savez(folder / "arrays.npz", fused=fused, mask=mask)
    return {"rows": number, "width": width}


def _layout() -> dict[str, Any]:
    modalities, offset = [], 0
    for name, width in WIDTHS.items():
        modalities.append({"name": name, "offset": offset, "width": width})
        offset += width
    return {"modalities": modalities, "width": offset}


def ours(folder: Path) -> Run:
    """model.train, from the files to an exported model; the clock runs between ends of epochs."""
    from model.train import TrainConfig, train

    files = sorted(str(path) for path in (folder / "fused").iterdir())
    config = TrainConfig(latent=LATENT, epochs=EPOCHS, batch_size=BATCH, validation_fraction=HELD_OUT)

    def run() -> Facts:
        output, work = folder / "model", folder / "work"
        for path in (output, work):
            shutil.rmtree(path, ignore_errors=True)
        ends: list[Moment] = []
        began = time.perf_counter()
        train(files, _layout(), str(output), str(work), config, lambda _: ends.append(_now()))
        return _facts(ends, time.perf_counter() - began)

    return run


def keras_fit(folder: Path) -> Run:
    """The same Autoencoder and optimizer, fitted on arrays with held-out arrays (complete and masked, as ours)."""
    import keras
    import numpy as np

    from model.autoencoder import Autoencoder
    from model.config import TrainConfig
    from model.dataset import drop_modalities
    from model.layout import Layout

    with np.load(folder / "arrays.npz") as arrays:
        fused, mask = arrays["fused"], arrays["mask"]
    config = TrainConfig(latent=LATENT)
    layout = Layout.from_dict(_layout())
    cut = round(len(fused) * (1 - HELD_OUT))
    masked = drop_modalities(mask[cut:], np.array(config.dropout_rates(layout)), 0)
    inputs = {"fused": np.concatenate([fused[cut:]] * 2), "mask": np.concatenate([mask[cut:], masked])}
    target = {"fused": inputs["fused"], "mask": np.concatenate([mask[cut:]] * 2)}
    rows = {"fused": fused[:cut], "mask": mask[:cut]}

    def run() -> Facts:
        model = Autoencoder(
            layout=layout.to_dict(),
            latent=LATENT,
            hidden=config.hidden,
            dropout=config.dropout,
            noise=config.noise,
            modality_dropout=config.dropout_rates(layout),
            modality_weights=config.loss_weights(layout),
        )
        model.compile(optimizer=keras.optimizers.AdamW(1e-3, weight_decay=1e-2, clipnorm=1.0), jit_compile=False)
        ends: list[Moment] = []
        end_of_epoch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(_now()))
        began = time.perf_counter()
        model.fit(
            rows,
            rows,
            batch_size=BATCH,
            epochs=EPOCHS,
            validation_data=(inputs, target),
            validation_batch_size=1024,
            callbacks=[end_of_epoch],
            verbose=0,
        )
        return _facts(ends, time.perf_counter() - began)

    return run


def _now() -> Moment:
    return time.perf_counter(), time.process_time()


def _facts(ends: list[Moment], total: float) -> Facts:
    """The median times of an epoch in the place of the whole."""
    seconds, cpu_seconds = (
        statistics.median(end[clock] - begin[clock] for begin, end in itertools.pairwise(ends)) for clock in (0, 1)
    )
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "seconds of everything": total, "epochs": len(ends)}


BENCHMARK = Benchmark(
    name="training",
    title="an epoch of training, from files on disk",
    prepare=prepare,
    sides=(Side(OURS, ours), Side("keras fit in memory", keras_fit)),
    ratios=(
        Ratio("speed", against=("keras fit in memory",), at_least=0.9),
        Ratio("memory", OURS, ("keras fit in memory",)),
    ),
    agree=("epochs",),
)

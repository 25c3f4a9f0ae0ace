"""The train stage goes on from its checkpoint when the run is given again, and from none of other data or settings."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from model.train import EpochReport
from pipelines import run, train
from pipelines.command_line.options import Options
from pipelines.continuity import space_lineage
from pipelines.store import runs
from transforms.embed.embedding_space import FACTORS_FILE, TUNING_FILE
from transforms.embed.parameters import Tuning
from transforms.fuse.tft_graph import ModalityBlock
from transforms.fuse.transform_fn import FusedLayout, write_layout
from transforms.tables import files, parquet

LAYOUT = FusedLayout((ModalityBlock("text", 0, 4, 4), ModalityBlock("image", 4, 2, 2)))


def write_fused(directory: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    schema = LAYOUT.schema()
    rows = []
    for number in range(64):
        row: dict[str, Any] = dict.fromkeys(schema.names, 0)  # what training does not read
        row |= {"post_id": f"p{number}", "author_id": None, "created_at": None}
        rows.append(row | {"fused": rng.standard_normal(6), "mask": [1.0, 1.0]})
    block = pa.RecordBatch.from_pylist(rows, schema=schema)
    parquet.write_file(f"{directory}/fused/part-00000.parquet", block, schema)
    write_layout(LAYOUT, f"{directory}/fused")
    factors = {"singular_values": [], "num_posts": 0, "num_users": 0, "energy": 0.0}
    files.write_json(f"{directory}/collaborative/{FACTORS_FILE}", factors)
    files.write_json(f"{directory}/collaborative/{TUNING_FILE}", Tuning().to_dict())
    space_lineage.write(space_lineage.Lineage("2026-01-31", "", "--refit_days 0", {}), f"{directory}/transform_fn")


class Killed(Exception):
    """What stands for a kill: nothing of the stage is left but its checkpoint."""


@pytest.fixture
def options(tmp_path: Path) -> Options:
    made = Options(output=str(tmp_path), run_date="2026-01-31", epochs=4, latent=3, no_evaluate=True, no_gate=True)
    write_fused(runs.run_dir(made), 0)
    return made


@pytest.mark.parametrize(
    ("flags", "seed", "first"),
    [({}, 0, 3), ({"latent": 2}, 0, 1), ({}, 1, 1)],
    ids=["same", "latent", "rows"],
)
def test_a_killed_training_goes_on_with_the_same_rows_and_settings(
    options: Options, flags: dict[str, float], seed: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[int] = []

    def show(epoch: EpochReport) -> None:
        epochs.append(epoch.epoch)
        if len(epochs) == 2:
            raise Killed

    monkeypatch.setattr(train, "show", show)
    with pytest.raises(Killed):
        run.make_runs(options, [train.STAGE])
    assert epochs == [1, 2] and not (Path(options.output) / "LATEST").exists()
    if seed:
        write_fused(runs.run_dir(options), seed)
    assert run.make_runs(dataclasses.replace(options, **flags), [train.STAGE]) == 0
    assert epochs[2:][:1] == [first] and epochs[-1] == 4
    assert sorted(path.name for path in Path(runs.run_dir(options)).iterdir() if path.name.startswith("_")) == [
        "_stages"
    ]

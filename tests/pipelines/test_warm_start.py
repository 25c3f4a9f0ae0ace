"""train starts from the last published run's model, and tells why where it does not."""

import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

import model.train
from pipelines import run, train
from pipelines.command_line.options import Options
from pipelines.continuity import space_lineage, warm_start
from pipelines.stage import declaration, fingerprint
from pipelines.store import runs
from transforms.embed.embedding_space import FACTORS_FILE, TUNING_FILE
from transforms.embed.parameters import Decoded, Tuning
from transforms.fuse.tft_graph import ModalityBlock
from transforms.fuse.transform_fn import FusedLayout, write_layout
from transforms.tables import blocks, files, parquet, schemas

FIRST, SECOND = "2026-01-30", "2026-01-31"
NUM_POSTS, RANK, USED = 400, 4, 3
FLAGS: dict[str, Any] = {"epochs": 3, "latent": 4}


def write_tables(directory: str, text: int, turn: np.ndarray, found: space_lineage.Lineage) -> None:
    """What fuse leaves: factors that are curved functions of the text, turned; two posts are new in SECOND."""
    num_posts = NUM_POSTS if found.why_new == "it is the first" else NUM_POSTS + 2
    causes = np.random.default_rng(0).normal(size=(NUM_POSTS + 2, USED))[:num_posts]
    content = causes @ np.random.default_rng(1).normal(size=(USED, text))
    factors = np.hstack([(causes**2 - 1) @ turn, np.zeros((num_posts, 1))]) / np.sqrt(2 * num_posts)
    ids = [f"p{number}" for number in range(num_posts)]
    layout = FusedLayout((ModalityBlock("text", 0, text, text), ModalityBlock("collaborative", text, RANK, RANK)))
    fused = np.hstack([content, factors * np.sqrt(num_posts)]).astype(np.float32)
    vectors = {"fused": fused, "mask": np.ones((num_posts, 2), np.float32)}
    columns = {"post_id": pa.array(ids)} | {name: blocks.numpy_to_vectors(v) for name, v in vectors.items()}
    columns |= {name: pa.array(np.ones(num_posts)) for name in ("degree", "trend")}
    columns |= {name: pa.nulls(num_posts, layout.schema().field(name).type) for name in ("author_id", "created_at")}
    block = schemas.conform(pa.RecordBatch.from_pydict(columns), layout.schema())
    parquet.write_file(f"{directory}/fused/part-00000.parquet", block, layout.schema())
    write_layout(layout, f"{directory}/fused")
    schema = schemas.collaborative(RANK)
    values = [pa.array(ids), blocks.numpy_to_vectors(factors.astype(np.float32)), pa.array(np.ones(num_posts))]
    block = pa.RecordBatch.from_arrays(values, schema=schema)
    parquet.write_file(f"{directory}/collaborative/part-00000.parquet", block, schema)
    sizes = {"singular_values": [2.0, 2.0, 2.0, 1.0], "num_posts": num_posts, "num_users": 50, "energy": 20.0}
    files.write_json(f"{directory}/collaborative/{FACTORS_FILE}", sizes)
    files.write_json(f"{directory}/collaborative/{TUNING_FILE}", Tuning(decoded=Decoded(k=USED, lam=1.0)).to_dict())
    space_lineage.write(found, f"{directory}/transform_fn")


@pytest.fixture(scope="module", autouse=True)
def quick_training() -> Iterator[None]:
    """Steps large and many enough that three epochs of some hundred posts lead somewhere."""
    with pytest.MonkeyPatch.context() as patch:
        config = functools.partial(model.train.TrainConfig, batch_size=32, learning_rate=1e-2)
        patch.setattr(model.train, "TrainConfig", config)
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with a published run; what fuse would have left for the next one is not there yet."""
    output = tmp_path_factory.mktemp("first")
    options = options_of(output, FIRST)
    write_tables(runs.run_dir(options), 6, np.eye(USED), space_lineage.Lineage(FIRST, "", "it is the first", {}))
    assert run.make_runs(options, [train.STAGE]) == 0
    assert start_of(output, FIRST)["why_cold"] == "it is the first"
    assert start_of(output, FIRST)["trained_share"] > 0
    return output


def options_of(output: Path, name: str, **flags: Any) -> Options:
    return Options(output=str(output), run_date=name, no_evaluate=True, no_gate=True, **(FLAGS | flags))


def start_of(output: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "runs" / name / "metrics.json").read_text())["train"]
    return found


@pytest.fixture
def output(first: Path, tmp_path: Path) -> Path:
    shutil.copytree(first, tmp_path / "out")
    return tmp_path / "out"


def second(output: Path, text: int = 6, why_new: str = "", **flags: Any) -> dict[str, Any]:
    """Trains the second run, whose factors are turned, and gives what it tells of its start."""
    options = options_of(output, SECOND, **flags)
    turn = scipy.stats.ortho_group.rvs(USED, random_state=1)
    found = space_lineage.Lineage(SECOND if why_new else FIRST, "" if why_new else FIRST, why_new, {})
    write_tables(runs.run_dir(options), text, turn, found)
    assert run.make_runs(options, [train.STAGE]) == 0
    return start_of(output, SECOND)


def test_the_next_run_starts_from_the_last_ones_model(output: Path) -> None:
    found = second(output)
    assert (found["start"], found["previous"], found["why_cold"]) == ("warm", FIRST, "")
    assert found["start_loss"] < 0.9 * found["ridge_loss"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"why_new": "--refit_days 0"}, "--refit_days 0"),
        ({"text": 7}, "the modalities or their widths are others"),
        ({"latent": 5}, "latent is 5, was 4"),
    ],
)
def test_where_the_model_does_not_suit_it_starts_cold(output: Path, changes: dict[str, Any], why: str) -> None:
    found = second(output, **changes)
    assert (found["start"], found["previous"], found["why_cold"]) == ("cold", "", why)
    assert found["start_loss"] == found["ridge_loss"]


def test_a_model_that_is_gone_or_of_other_tables_is_no_start(output: Path) -> None:
    options = options_of(output, SECOND)
    directory = runs.run_dir(options)
    places = declaration.Places(directory, directory, directory)
    write_tables(directory, 6, np.eye(USED), space_lineage.Lineage(FIRST, FIRST, "", {}, fitted_by="another"))
    assert warm_start.find_previous(options, places, USED) == (None, f"{FIRST} was factorized again since")
    (output / "runs" / FIRST / "model" / "model.json").write_text("")
    assert warm_start.find_previous(options, places, USED) == (None, f"the model of {FIRST} is gone")


def test_it_is_done_again_when_that_model_was_and_not_when_it_is_gone(output: Path) -> None:
    second(output)
    options = options_of(output, SECOND)
    origins = {"train": fingerprint.origin(train.STAGE, options)}
    plan = lambda: run.make_plan(options, [train.STAGE], origins, runs.run_dir(options))["train"]  # noqa: E731
    assert plan() == ""
    report = output / "runs" / FIRST / "_stages" / "train.json"
    again = json.loads(report.read_text()) | {"id": "another"}
    report.write_text(json.dumps(again))
    assert plan() == f"train of {FIRST} was done again"
    shutil.rmtree(output / "runs" / FIRST)
    assert plan() == ""


class Killed(Exception):
    """What stands for a kill: nothing of the stage is left but its checkpoint."""


def test_a_warm_training_that_was_killed_ends_where_it_would_have(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = output.with_name("other")
    shutil.copytree(output, other)
    whole = second(output)
    epochs: list[int] = []

    def show(epoch: Any) -> None:
        epochs.append(epoch.epoch)
        if len(epochs) == 2:
            raise Killed

    monkeypatch.setattr(train, "show", show)
    with pytest.raises(Killed):
        second(other)
    assert second(other) == whole
    assert epochs[:3] == [1, 2, 3]
    weights = [dict(np.load(at / "runs" / SECOND / "model" / "warm_start.npz")) for at in (output, other)]
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])

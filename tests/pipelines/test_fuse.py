import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import fuse as stage_fuse
from pipelines.command_line.options import Options
from pipelines.stage.declaration import Places
from pipelines.stage.execute import execute
from transforms.fuse import fuse_features, transform_fn
from transforms.tables import blocks, counts, parquet, schemas
from transforms.text import token_counts

DATE = "2026-01-02"
ROOT = Path(__file__).resolve().parents[2]
SPORT = ["match", "goal", "team", "coach", "league", "stadium", "referee", "球", "得点"]
FOOD = ["bread", "soup", "oven", "recipe", "butter", "kitchen", "pepper", "料", "パン"]
Dense = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass
class World:
    """Posts of two topics; some without text, and pictures and vectors that some have."""

    ids: list[str]
    texts: list[str | None]
    dense: Dense


def _world(num_posts: int = 240) -> World:
    rng = np.random.default_rng(5)
    topics = np.arange(num_posts) % 2
    texts = [" ".join([*rng.choice((SPORT, FOOD)[topic], 5), "the", "of"]) for topic in topics]
    hidden = rng.normal(size=(num_posts, 12))
    image = (hidden @ rng.normal(size=(12, 90)) * 7 + 40).astype(np.float32)
    image[:, 3] = 0.1  # a dimension that is always the same
    dense = {
        "image": (image, rng.random(num_posts) < 0.7),
        "clip": (rng.normal(size=(num_posts, 5)).astype(np.float32), rng.random(num_posts) < 0.5),
        "audio": (rng.normal(size=(num_posts, 5)).astype(np.float32), np.arange(num_posts) == 7),
    }
    return World([f"p{i}" for i in range(num_posts)], [None if i % 9 == 0 else t for i, t in enumerate(texts)], dense)


def _write(output: Path, world: World, num_parts: int) -> None:
    schema = schemas.features({name: values.shape[1] for name, (values, _) in world.dense.items()})
    directory = output / "runs" / DATE / "features"
    directory.mkdir(parents=True)
    for name, other in (("posts", schemas.POSTS), ("interactions", schemas.INTERACTIONS)):
        parquet.write_file(str(directory.parent / name / "part-00000.parquet"), schemas.empty(other), other)
    for part, rows in enumerate(np.array_split(np.arange(len(world.ids)), num_parts)):
        terms = token_counts.text_terms(pa.array([world.texts[row] for row in rows], pa.string()))
        known = [pa.array([world.ids[row] for row in rows], pa.string()), pa.nulls(len(rows), pa.string())]
        dense = [blocks.numpy_to_optional(values[rows], present[rows]) for values, present in world.dense.values()]
        columns = [*known, pa.nulls(len(rows), schemas.TIMESTAMP), *terms, *dense]
        block = pa.RecordBatch.from_arrays(columns, schema=schema)
        parquet.write_file(str(directory / f"part-{part:05d}.parquet"), block, schema)


def _options(output: Path, **flags: object) -> Options:
    return Options(output=str(output), run_date=DATE, text_width=6, **flags)  # type: ignore[arg-type]


def _fused(output: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(output / "runs" / DATE / "content")
    fused = np.array(table["fused"].to_pylist(), np.float32)
    mask = np.array(table["mask"].to_pylist(), np.float32)
    ids = table["post_id"].to_pylist()
    order = np.array(sorted(range(len(ids)), key=lambda row: (len(ids[row]), ids[row])), np.int64)  # p2 before p10
    return {"ids": np.array(ids)[order], "fused": fused[order], "mask": mask[order]}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path]:
    output = tmp_path_factory.mktemp("fuse")
    world = _world()
    _write(output, world, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuse_features, "PCA_WIDTH", 16)
        execute(stage_fuse.STAGE, _options(output))
    return world, output


def fuse_with(saved: str, output: Path) -> None:
    """Fuses by a transform_fn that is there, as a run does that goes on in the space of another."""
    run = str(output / "runs" / DATE)
    stage_fuse.fuse_content(_options(output), Places(run, run, str(output / "local")), saved)


def _block(fused: dict[str, np.ndarray], layout: transform_fn.FusedLayout, name: str) -> np.ndarray:
    modality = next(modality for modality in layout.modalities if modality.name == name)
    return fused["fused"][:, modality.offset : modality.offset + modality.width]


def test_every_modality_has_its_block_and_its_mask(fitted: tuple[World, Path]) -> None:
    world, output = fitted
    run = output / "runs" / DATE
    layout = transform_fn.read_layout(str(run / "content"))
    assert parquet.read_schema(str(run / "content")).equals(layout.schema())
    assert [(m.name, m.offset, m.width) for m in layout.modalities] == [
        ("text", 0, 6),
        ("image", 6, 16),
        ("clip", 22, 5),
    ]
    assert json.loads((run / "content" / "_layout.json").read_text())["width"] == 27
    found = _fused(output)
    assert found["ids"].tolist() == world.ids
    present = np.stack([[t is not None for t in world.texts], world.dense["image"][1], world.dense["clip"][1]], axis=1)
    np.testing.assert_array_equal(found["mask"], present)
    for place, modality in enumerate(layout.modalities):
        block = _block(found, layout, modality.name).astype(np.float64)
        assert not block[~present[:, place]].any()
        assert np.mean(np.sum(block[present[:, place]] ** 2, axis=1)) == pytest.approx(1, rel=2e-3)
        np.testing.assert_allclose(block[present[:, place]].mean(axis=0), 0, atol=2e-3)
    expected = {"posts.read": 240, "posts.written": 240}
    expected |= {f"fused.{m.name}": int(present[:, place].sum()) for place, m in enumerate(layout.modalities)}
    assert counts.read_counts(str(run / "content")) == expected


def test_a_wide_modality_is_the_pca_of_its_z_scores(fitted: tuple[World, Path]) -> None:
    world, output = fitted
    values, present = world.dense["image"]
    rows = values[present].astype(np.float64)
    varies = rows.std(axis=0) > 1e-5
    scores = np.where(varies, (rows - rows.mean(axis=0)) / np.where(varies, rows.std(axis=0), 1), 0)
    _, singular, components = np.linalg.svd(scores, full_matrices=False)
    projected = scores @ components[:16].T / np.sqrt(np.sum(singular[:16] ** 2) / len(rows))
    block = _block(_fused(output), transform_fn.read_layout(str(output / "runs" / DATE / "content")), "image")[present]
    # 12 hidden directions: the Gram matrices do not depend on signs, nor on the directions of the noise behind them.
    np.testing.assert_allclose(block @ block.T, projected @ projected.T, atol=5e-3)


def test_texts_of_one_topic_are_close_and_users_land_among_them(fitted: tuple[World, Path]) -> None:
    world, output = fitted
    applier = transform_fn.load(str(output / "runs" / DATE / "transform_fn"))
    found = _block(_fused(output), applier.layout, "text")
    has_text = np.array([t is not None for t in world.texts])
    users = token_counts.text_terms(pa.array(["I bake", None, "zzz"]), pa.array([["Bread", "butter"], ["goal"], None]))
    fused, mask = applier(pa.RecordBatch.from_arrays(list(users), names=["text_terms", "text_counts"]))
    assert mask.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert not fused[:, 6:].any() and not fused[2].any()
    scores = fused[:2, :6] @ found.T
    topics = np.arange(240) % 2
    for user, topic in ((0, 1), (1, 0)):
        nearest = np.argsort(np.where(has_text, -scores[user], np.inf))[:50]
        assert (topics[nearest] == topic).all()


def test_parts_do_not_change_a_bit_and_the_command_ends_well(fitted: tuple[World, Path], tmp_path: Path) -> None:
    world, output = fitted
    _write(tmp_path, world, 7)
    flags = ["--output", str(tmp_path), "--run_date", DATE, "--text_width", "6"]
    words = [sys.executable, "-m", "pipelines.cli", "fuse", *flags]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "modality audio is left out: 1 of the posts" in done.stderr
    one, other = _fused(output)["fused"], _fused(tmp_path)["fused"]
    # Text and clip; the image's block is as wide as the command makes it.
    np.testing.assert_array_equal(one[:, :6], other[:, :6])
    np.testing.assert_array_equal(one[:, -5:], other[:, -5:])


def test_a_transform_is_reused_as_it_is(fitted: tuple[World, Path], tmp_path: Path) -> None:
    world, output = fitted
    values, present = world.dense["image"]
    rows: Sequence[int] = [3, 8, 200]
    dense: Dense = {"image": (values[rows], present[rows]), "smell": (np.ones((3, 2), np.float32), np.ones(3, bool))}
    _write(tmp_path, World([world.ids[row] for row in rows], [world.texts[row] for row in rows], dense), 2)
    saved = str(output / "runs" / DATE / "transform_fn")
    fuse_with(saved, tmp_path)
    first, again = _fused(output), _fused(tmp_path)
    np.testing.assert_array_equal(again["fused"][:, :22], first["fused"][rows][:, :22])
    assert not again["fused"][:, 22:].any() and not again["mask"][:, 2].any()
    copied = transform_fn.read_layout(str(tmp_path / "runs" / DATE / "transform_fn"))
    assert copied == transform_fn.read_layout(saved)


def test_a_row_does_not_depend_on_the_rows_beside_it(fitted: tuple[World, Path]) -> None:
    _, output = fitted
    applier = transform_fn.load(str(output / "runs" / DATE / "transform_fn"))
    block = parquet.to_block(pq.read_table(output / "runs" / DATE / "features"))
    whole, _ = applier(block)
    for start, stop in itertools.pairwise([0, 1, 2, 57, 240]):
        np.testing.assert_array_equal(applier(block.slice(start, stop - start))[0], whole[start:stop])


def test_a_vector_that_is_not_finite_is_missing(fitted: tuple[World, Path]) -> None:
    _, output = fitted
    applier = transform_fn.load(str(output / "runs" / DATE / "transform_fn"))
    values = np.array([[1, 2, 3, 4, 5], [1, np.nan, 3, 4, 5], [1, 2, 3, 4, np.inf], [3e38, 0, 0, 0, 0]], np.float32)
    column = blocks.numpy_to_optional(values, np.ones(4, bool))
    fused, mask = applier(pa.RecordBatch.from_arrays([column], names=["clip"]))
    assert mask[:, 2].tolist() == [1, 0, 0, 1]
    assert np.isfinite(fused).all() and not fused[1:3].any()


def test_another_width_is_refused(fitted: tuple[World, Path], tmp_path: Path) -> None:
    _, output = fitted
    _write(tmp_path, World(["a"], ["goal"], {"clip": (np.ones((1, 4), np.float32), np.ones(1, bool))}), 1)
    saved = str(output / "runs" / DATE / "transform_fn")
    with pytest.raises(ValueError, match="clip has 4 numbers a post, but transform_fn was fitted on 5"):
        fuse_with(saved, tmp_path)


def test_a_transform_of_another_version_is_refused(fitted: tuple[World, Path], tmp_path: Path) -> None:
    _, output = fitted
    saved = tmp_path / "saved"
    shutil.copytree(output / "runs" / DATE / "transform_fn", saved)
    layout = json.loads((saved / transform_fn.LAYOUT_FILE).read_text())
    assert layout["graph"] == transform_fn.GRAPH_VERSION
    (saved / transform_fn.LAYOUT_FILE).write_text(json.dumps(layout | {"graph": 1}))
    _write(tmp_path, World(["a"], ["goal"], {}), 1)
    with pytest.raises(ValueError, match="saved by another version of fusefeed"):
        fuse_with(str(saved), tmp_path)


def test_a_missing_transform_is_named(tmp_path: Path) -> None:
    _write(tmp_path, World(["a"], ["goal"], {}), 1)
    with pytest.raises(FileNotFoundError, match=r"none/_layout.json is not there"):
        fuse_with(str(tmp_path / "none"), tmp_path)


@pytest.mark.parametrize("world", [World([], [], {}), World(["a"], ["goal"], {}), World(["a", "b"], [None, None], {})])
def test_nothing_to_fuse_is_said(tmp_path: Path, world: World) -> None:
    _write(tmp_path, world, 1)
    with pytest.raises(ValueError, match="nothing to fuse: no modality"):
        execute(stage_fuse.STAGE, _options(tmp_path))


@pytest.mark.parametrize("only", ["text", "clip"])
def test_one_modality_alone_is_enough(tmp_path: Path, only: str) -> None:
    world = _world(12)
    if only == "text":
        world.dense = {}
    else:
        world.texts = [None] * 12
        world.dense = {"clip": world.dense["clip"]}
    _write(tmp_path, world, 2)
    execute(stage_fuse.STAGE, _options(tmp_path))
    assert [m.name for m in transform_fn.read_layout(str(tmp_path / "runs" / DATE / "content")).modalities] == [only]
    found = _fused(tmp_path)
    assert np.isfinite(found["fused"]).all() and 0 < found["mask"].sum() < 12


def test_text_vectors_too_large_for_a_graph_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, World(["a"], ["goal"], {}), 1)
    options = Options(output=str(tmp_path), run_date=DATE, vocabulary_size=1_000_000, text_width=1024)
    with pytest.raises(ValueError, match="vocabulary_size x text_width must be at most 200,000,000"):
        execute(stage_fuse.STAGE, options)

import dataclasses
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import scipy.linalg
import scipy.stats

from tests.transforms.embed.space_fixtures import (
    BIAS,
    MODALITIES,
    NUM_POSTS,
    SINGULAR_VALUES,
    TUNING,
    WIDTH,
    make_space,
    weights_of,
    write_model,
)
from transforms.embed import embedding_space, exported_model, item_embeddings
from transforms.embed.embedding_space import Space
from transforms.embed.parameters import Tuning
from transforms.tables import blocks, parquet, schemas

NewPipeline = Callable[[], beam.Pipeline]
SHOWN = ["text", "image", "collaborative"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    write_model(directory, MODALITIES, *weights_of(WIDTH, 3))
    return directory


def make_fused(num_rows: int) -> pa.RecordBatch:
    rng = np.random.default_rng(1)
    mask = rng.integers(0, 2, (num_rows, 4)).astype(np.float32)
    # Nothing; all; only a time; only who likes it; all but that; only an image.
    mask[:6] = [[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 0], [0, 1, 0, 0]]
    spread = np.repeat(mask, [width for _, _, width in MODALITIES], axis=1)
    fused = rng.standard_normal((num_rows, WIDTH)).astype(np.float32) * spread
    return pa.RecordBatch.from_arrays(
        [
            pa.array([f"p{i}" for i in range(num_rows)]),
            pa.array([None if i % 5 == 0 else f"a{i % 3}" for i in range(num_rows)]),
            pa.array(range(num_rows), schemas.TIMESTAMP),
            blocks.numpy_to_vectors(fused),
            blocks.numpy_to_vectors(mask),
            pa.array(np.where(mask[:, 3] > 0, rng.integers(1, 30, num_rows), 0).astype(float)),
            pa.array(rng.random(num_rows)),
        ],
        schema=schemas.fused(WIDTH, 4),
    )


def expected_row(
    fused: np.ndarray, mask: np.ndarray, degree: float, trend: float, tuning: Tuning = TUNING
) -> dict[str, np.ndarray]:
    """The blocks of one post by the formulas, number by number."""
    encoder, decoder = weights_of(WIDTH, 3)
    own, decoded, content, mix = tuning.own, tuning.decoded, tuning.content, tuning.mix
    assert decoded is not None and content is not None
    s = SINGULAR_VALUES
    factors = [float(fused[8 + j]) / NUM_POSTS**0.5 for j in range(3)]
    seen = fused.astype(float) * np.repeat([*mask[:3], 0], [4, 2, 2, 3])
    told = (seen @ encoder @ decoder + BIAS) / NUM_POSTS**0.5 if mask[:3].any() else np.zeros(3)
    length = np.linalg.norm(fused[:4].astype(float))
    words = fused[:4] / length if length else np.zeros(4)
    mine = [
        factors[j] * s[j] ** 2 / (s[j] ** 2 + own.shrinkage * s[1] ** 2) * degree**own.degree_power if degree else 0.0
        for j in (0, 1)
    ]
    like = [told[j] * s[j] ** (decoded.e - 1) for j in range(3)]
    weight = mix.warm_weight if degree else mix.cold_weight
    profile = np.array(factors) * degree**-0.25 if degree else told
    return {
        "embedding": np.array([*mine, *np.multiply(like, weight), *words, trend]),
        "profile": np.array([*profile[:2], *profile, *words]),
        "own": np.array(mine),
        "decoded": np.array(like),
        "content": np.array(words),
    }


def embed(
    new_pipeline: NewPipeline, directory: Path, model_dir: Path, rows: pa.RecordBatch, part_rows: int
) -> tuple[pa.Table, pa.Table, embedding_space.Covariances]:
    for part, block in enumerate(blocks.split_rows(rows, part_rows)):
        parquet.write_file(str(directory / "fused" / f"part-{part:05d}.parquet"), block, rows.schema)
    found = make_space()
    with new_pipeline() as pipeline:
        made = (
            pipeline
            | parquet.ReadParts(str(directory / "fused"))
            | item_embeddings.EmbedItems(found, exported_model.FactorPredictor(str(model_dir)))
        )
        _ = made.parts | parquet.WriteParts(str(directory / "items"), schemas.item_embeddings(found.width))
        _ = made.profiles | "Profiles" >> parquet.WriteParts(
            str(directory / "profiles"), schemas.post_profiles(sum(found.widths))
        )
        _ = made.moments | beam.Map(embedding_space.write_covariances, str(directory / "items"))
    table, profiles = (
        pa.Table.from_batches(parquet.read_blocks(str(path), 10_000), parquet.read_schema(str(path))).combine_chunks()
        for path in (directory / "items", directory / "profiles")
    )
    return table, profiles, embedding_space.read_covariances(str(directory / "items"))


def test_embeddings_and_profiles_are_what_the_formulas_say(
    new_pipeline: NewPipeline, model_dir: Path, tmp_path: Path
) -> None:
    rows = make_fused(1500)
    table, profiles, covariances = embed(new_pipeline, tmp_path, model_dir, rows, 1500)
    fused, mask = (blocks.vectors_to_numpy(rows.column(name)) for name in ("fused", "mask"))
    degree, trend = (rows.column(name).to_numpy() for name in ("degree", "trend"))
    known = np.asarray(mask[:, [0, 1, 3]].any(axis=1))
    expected = [expected_row(*row) for row in zip(fused, mask, degree, trend, strict=True)]
    for found, name in ((table, "embedding"), (profiles, "profile")):
        values = np.where(known[:, None], [row[name] for row in expected], 0)
        np.testing.assert_allclose(blocks.vectors_to_numpy(found.column(name)), values, rtol=1e-5, atol=2e-6)
    for covariance, name in zip(covariances, ("own", "decoded", "content"), strict=True):
        counted = known & (degree > 0) if name == "own" else known
        block = np.array([row[name] for row in expected])[counted]
        np.testing.assert_allclose(covariance, np.cov(block.T, ddof=0), rtol=1e-4, atol=1e-6)


def test_a_turned_space_turns_posts_and_profiles_and_changes_no_inner_product(model_dir: Path) -> None:
    rows, predictor = make_fused(40), exported_model.FactorPredictor(str(model_dir))
    rotations = tuple(scipy.stats.ortho_group.rvs(width, random_state=2) for width in (2, 3, 4))
    straight, turned = (
        item_embeddings.embed(rows, make_space(), predictor),
        item_embeddings.embed(rows, turned_space(rotations), predictor),
    )
    for place, name, width in ((0, "embedding", 10), (1, "profile", 9)):
        one, two = (blocks.vectors_to_numpy(found[place].column(name)) for found in (straight, turned))
        whole = scipy.linalg.block_diag(*rotations, *[1] * (width - 9))
        np.testing.assert_allclose(two, one @ whole, atol=1e-5)
    for one, two, rotation in zip(straight[2], turned[2], rotations, strict=True):
        np.testing.assert_allclose(two.covariance(), rotation.T @ one.covariance() @ rotation, atol=1e-5)


def turned_space(rotations: tuple[np.ndarray, ...]) -> Space:
    return dataclasses.replace(make_space(), rotations=rotations)


def test_modalities_are_named_but_a_time_is_none(new_pipeline: NewPipeline, model_dir: Path, tmp_path: Path) -> None:
    rows = make_fused(40)
    table, profiles, _ = embed(new_pipeline, tmp_path, model_dir, rows, 40)
    mask = blocks.vectors_to_numpy(rows.column("mask"))[:, [0, 1, 3]]
    named = [[name for name, there in zip(SHOWN, row, strict=True) if there] for row in mask]
    assert table.column("modalities").to_pylist() == named
    assert named[:4] == [[], SHOWN, [], ["collaborative"]]
    for place in (0, 2):
        assert not any(table.column("embedding")[place].as_py()) and not any(profiles.column("profile")[place].as_py())
    for name in ("post_id", "author_id", "created_at"):
        assert table.column(name).combine_chunks().equals(rows.column(name))
    assert profiles.column("post_id").combine_chunks().equals(rows.column("post_id"))


def test_the_size_of_parts_does_not_change_the_embeddings(
    new_pipeline: NewPipeline, model_dir: Path, tmp_path: Path
) -> None:
    rows = make_fused(1300)
    whole, pieces = (embed(new_pipeline, tmp_path / str(size), model_dir, rows, size) for size in (1300, 7 * 64))
    for name in ("post_id", "modalities"):
        assert whole[0].column(name).equals(pieces[0].column(name))
    for one, other, name in ((whole[0], pieces[0], "embedding"), (whole[1], pieces[1], "profile")):
        values = [blocks.vectors_to_numpy(found.column(name)) for found in (one, other)]
        np.testing.assert_allclose(values[0], values[1], atol=1e-6)
    for first, second in zip(whole[2], pieces[2], strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-9)


def test_own_factors_never_reach_what_is_told_from_content(model_dir: Path) -> None:
    rows = make_fused(50)
    predictor = exported_model.FactorPredictor(str(model_dir))
    values, mask = (blocks.vectors_to_numpy(rows.column(name)) for name in ("fused", "mask"))
    told = item_embeddings.predicted_factors(values, mask, make_space(), predictor)
    values = values.copy()
    values[:, 8:] = 1e6
    np.testing.assert_array_equal(item_embeddings.predicted_factors(values, mask, make_space(), predictor), told)
    assert told[3].tolist() == [0, 0, 0] and told[1].all()


def test_without_factors_there_is_only_content() -> None:
    cold = Space(MODALITIES[:3], np.zeros(0), 0, dataclasses.replace(TUNING, decoded=None))
    rows = make_fused(30)
    fused, mask = (blocks.vectors_to_numpy(rows.column(name)) for name in ("fused", "mask"))
    arrays = [blocks.numpy_to_vectors(fused[:, :8]), blocks.numpy_to_vectors(mask[:, :3])]
    arrays += [pa.array(np.zeros(30))] * 2
    given = pa.RecordBatch.from_arrays([*rows.columns[:3], *arrays], schema=schemas.fused(8, 3))
    made, profiles, moments = item_embeddings.embed(given, cold, None)
    words = np.array([row[:4] / (np.linalg.norm(row[:4]) or 1) for row in fused])
    expected = np.hstack([words, np.zeros((30, 1))])
    np.testing.assert_allclose(blocks.vectors_to_numpy(made.column("embedding")), expected, atol=1e-6)
    np.testing.assert_allclose(blocks.vectors_to_numpy(profiles.column("profile")), words, atol=1e-6)
    assert [block.covariance().shape for block in moments] == [(0, 0), (0, 0), (4, 4)]


def test_no_posts_are_no_error(new_pipeline: NewPipeline, model_dir: Path, tmp_path: Path) -> None:
    schema = schemas.fused(WIDTH, 4)
    parquet.write_file(str(tmp_path / "fused" / "part-00000.parquet"), schemas.empty(schema), schema)
    table, profiles, covariances = embed(new_pipeline, tmp_path, model_dir, schemas.empty(schema), 1)
    assert (table.num_rows, profiles.num_rows) == (0, 0)
    assert [covariance.tolist() for covariance in covariances] == [np.zeros((n, n)).tolist() for n in (2, 3, 4)]


def test_numbers_that_are_not_finite_stop_the_run(model_dir: Path) -> None:
    fused = np.full((1, WIDTH), np.inf, np.float32)
    with pytest.raises(ValueError, match="not finite"):
        exported_model.FactorPredictor(str(model_dir)).factors(fused, np.ones((1, 4), np.float32))


def test_a_model_without_factors_says_so(tmp_path: Path) -> None:
    write_model(tmp_path, MODALITIES, weights_of(WIDTH, 3)[0], None)
    predictor = exported_model.FactorPredictor(str(tmp_path))
    assert not predictor.knows_factors
    with pytest.raises(ValueError, match="trained without collaborative factors"):
        predictor.factors(np.zeros((1, WIDTH), np.float32), np.ones((1, 4), np.float32))
    assert item_embeddings.predicted_factors(np.zeros((2, WIDTH)), np.ones((2, 4)), make_space(), predictor).shape == (
        2,
        0,
    )

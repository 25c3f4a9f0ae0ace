import json
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from transforms import blocks, items, latent, schemas, tables

NewPipeline = Callable[[], beam.Pipeline]
FUSED, MODALITIES, LATENT = 6, ["text", "image"], 3


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that is a matrix: latent = fused @ weights + 0.1 * (sum of the mask)."""
    import tensorflow as tf

    class Encoder(tf.Module):
        def __init__(self) -> None:
            self.weights = tf.Variable(np.random.default_rng(0).standard_normal((FUSED, LATENT)), dtype=tf.float32)

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, FUSED], tf.float32, name="fused"),
                tf.TensorSpec([None, 2], tf.float32, name="mask"),
            ]
        )
        def serve(self, fused: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"latent": fused @ self.weights + 0.1 * tf.reduce_sum(mask, axis=1, keepdims=True)}

    directory = tmp_path_factory.mktemp("model")
    encoder = Encoder()
    tf.saved_model.save(encoder, str(directory / "encoder"), signatures=encoder.serve)
    (directory / "model.json").write_text(json.dumps({"latent": LATENT}))
    return directory


def make_fused(num_rows: int) -> pa.RecordBatch:
    rng = np.random.default_rng(1)
    mask = rng.integers(0, 2, (num_rows, 2)).astype(np.float32)
    mask[:2] = [[0, 0], [1, 1]]
    fused = rng.standard_normal((num_rows, FUSED)).astype(np.float32) * np.repeat(mask, FUSED // 2, axis=1)
    return pa.RecordBatch.from_arrays(
        [
            pa.array([f"p{i}" for i in range(num_rows)]),
            pa.array([None if i % 5 == 0 else f"a{i % 3}" for i in range(num_rows)]),
            pa.array(range(num_rows), schemas.TIMESTAMP),
            blocks.numpy_to_vectors(fused),
            blocks.numpy_to_vectors(mask),
        ],
        schema=schemas.fused(FUSED, 2),
    )


def embed(
    new_pipeline: NewPipeline, directory: Path, model_dir: Path, rows: pa.RecordBatch, part_rows: int
) -> pa.Table:
    for part, block in enumerate(blocks.split_rows(rows, part_rows)):
        tables.write_file(str(directory / "fused" / f"part-{part:05d}.parquet"), block, rows.schema)
    with new_pipeline() as pipeline:
        _ = (
            pipeline
            | tables.ReadParts(str(directory / "fused"))
            | items.EmbedItems(latent.LatentEncoder(str(model_dir)), MODALITIES)
            | tables.WriteParts(str(directory / "items"), schemas.item_embeddings(LATENT))
        )
    return pa.Table.from_batches(list(tables.read_blocks(str(directory / "items"), 10_000)))


def test_embeddings_are_the_encoders_output_at_unit_length(
    new_pipeline: NewPipeline, model_dir: Path, tmp_path: Path
) -> None:
    rows = make_fused(1500)
    table = embed(new_pipeline, tmp_path, model_dir, rows, 1500).to_batches()[0]
    weights = np.random.default_rng(0).standard_normal((FUSED, LATENT)).astype(np.float32)
    mask = blocks.vectors_to_numpy(rows.column("mask"))
    expected = blocks.vectors_to_numpy(rows.column("fused")) @ weights + 0.1 * mask.sum(axis=1, keepdims=True)
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-30)
    expected[~mask.any(axis=1)] = 0
    np.testing.assert_allclose(blocks.vectors_to_numpy(table.column("embedding")), expected, atol=1e-6)
    named = [[name for name, there in zip(MODALITIES, row, strict=True) if there] for row in mask]
    assert table.column("modalities").to_pylist() == named
    assert named[0] == []
    for name in ("post_id", "author_id", "created_at"):
        assert table.column(name).equals(rows.column(name))


def test_the_size_of_parts_does_not_change_the_embeddings(
    new_pipeline: NewPipeline, model_dir: Path, tmp_path: Path
) -> None:
    rows = make_fused(1300)
    whole, pieces = (
        embed(new_pipeline, tmp_path / str(size), model_dir, rows, size).combine_chunks() for size in (1300, 7 * 64)
    )
    for name in ("post_id", "modalities"):
        assert whole.column(name).equals(pieces.column(name))
    vectors = [blocks.vectors_to_numpy(table.column("embedding")) for table in (whole, pieces)]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_numbers_that_are_not_finite_stop_the_run(model_dir: Path) -> None:
    fused = np.full((1, FUSED), np.inf, np.float32)
    with pytest.raises(ValueError, match="not finite"):
        latent.LatentEncoder(str(model_dir)).encode(fused, np.ones((1, 2), np.float32))


def test_the_directories_say_their_widths_and_names(model_dir: Path, tmp_path: Path) -> None:
    layout = {"modalities": [{"name": name, "offset": i * 3, "width": 3} for i, name in enumerate(MODALITIES)]}
    (tmp_path / "_layout.json").write_text(json.dumps(layout))
    assert items.read_modalities(str(tmp_path)) == MODALITIES
    assert latent.latent_width(str(model_dir)) == LATENT

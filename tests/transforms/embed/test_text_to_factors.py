from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa

from tests.transforms.embed.space_fixtures import NUM_POSTS, WIDTH, make_space
from transforms.embed import text_to_factors
from transforms.tables import blocks, schemas

NewPipeline = Callable[[], beam.Pipeline]


def make_fused(number: int = 40) -> pa.RecordBatch:
    """Posts whose factors are told by their text, some without a text and some without interactions."""
    rng = np.random.default_rng(0)
    fused = rng.standard_normal((number, WIDTH)).astype(np.float32)
    fused[:, 8:] = fused[:, :4] @ rng.standard_normal((4, 3)) * np.sqrt(NUM_POSTS)
    degree = np.where(np.arange(number) % 5 == 0, 0.0, 3.0)
    fused[degree == 0, 8:] = 99  # never looked at
    fused[::7, :4] = 0
    columns = {
        "post_id": pa.array([f"p{i:02d}" for i in range(number)]),
        "fused": blocks.numpy_to_vectors(fused),
        "mask": blocks.numpy_to_vectors(np.ones((number, 4), np.float32)),
        "degree": pa.array(degree),
        "trend": pa.array(np.zeros(number), pa.float32()),
    }
    return schemas.conform(pa.RecordBatch.from_pydict(columns), schemas.fused(WIDTH, 4))


def test_the_map_is_that_of_the_posts_with_text_and_factors(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    fused, space = make_fused(), make_space()
    with new_pipeline() as pipeline:
        _ = (
            pipeline
            | beam.Create(list(enumerate(blocks.split_rows(fused, 9))))
            | text_to_factors.FitTextFactors(space)
            | beam.Map(text_to_factors.write_map, str(tmp_path))
        )
    found = text_to_factors.read_map(str(tmp_path))
    values = blocks.vectors_to_numpy(fused.column("fused")).astype(float)
    rows = values[:, :4].any(axis=1) & (fused.column("degree").to_numpy() > 0)
    text, factors = values[rows, :4], values[rows, 8:] / np.sqrt(NUM_POSTS)
    gram = text.T @ text
    expected = np.linalg.solve(gram + np.diag(gram).mean() * np.eye(4), text.T @ factors)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    told, truth = text @ found, factors
    assert np.corrcoef(told.ravel(), truth.ravel())[0, 1] > 0.95


def test_where_nothing_can_be_learnt_nothing_is_told() -> None:
    none = text_to_factors.text_sums(make_fused().slice(0, 1), make_space())
    np.testing.assert_array_equal(text_to_factors.solve(none), np.zeros((4, 3)))

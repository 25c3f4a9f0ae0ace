import datetime
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that

from transforms.fuse import time_modality
from transforms.tables import blocks, schemas

NewPipeline = Callable[[], beam.Pipeline]


def _posts(times: list[int | None], first: int = 0) -> pa.RecordBatch:
    ids = [f"p{first + n}" for n in range(len(times))]
    created = pa.array(times, pa.int64()).cast(schemas.TIMESTAMP)
    return pa.RecordBatch.from_arrays([pa.array(ids), created], names=["post_id", "created_at"])


def test_the_edges_are_quantiles_whatever_the_parts(new_pipeline: NewPipeline) -> None:
    times = np.random.default_rng(0).integers(0, 10**15, 4000)
    found = []
    for size in (4000, 700):
        pieces = [_posts(times[start : start + size].tolist(), start) for start in range(0, 4000, size)]

        def check(edges: list[np.ndarray]) -> None:
            np.testing.assert_allclose(edges[0], np.quantile(times, np.linspace(0, 1, 257)), rtol=0.02, atol=1e12)

        with new_pipeline() as pipeline:
            edges = pipeline | beam.Create(list(enumerate(pieces))) | time_modality.FitTimes()
            assert_that(edges, check, label="Quantiles")
        found.append(
            time_modality.quantile_edges(time_modality.merge_samples(time_modality.sample_times(p) for p in pieces))
        )
    np.testing.assert_array_equal(*found)


def test_near_times_are_near_and_the_ends_are_the_ends() -> None:
    edges = np.linspace(0, 1000, 257)
    values = time_modality.bumps(np.array([0, 10, 500, 1000, 5000, -9]), edges)
    assert values.shape == (6, 8) and values.dtype == np.float32
    assert values[0].argmax() == 0 and values[3].argmax() == 7
    np.testing.assert_array_equal(values[3], values[4])
    np.testing.assert_array_equal(values[0], values[5])
    assert np.linalg.norm(values[0] - values[1]) < 0.2 < np.linalg.norm(values[0] - values[2])


def test_posts_without_a_time_have_no_such_modality() -> None:
    edges = time_modality.quantile_edges(time_modality.sample_times(_posts([1, 5, 9, None])))
    number, block = time_modality.add_time((3, _posts([5, None])), edges)
    assert number == 3
    _, present = blocks.optional_to_numpy(block.column("time"), time_modality.WIDTH)
    assert present.tolist() == [True, False]


@pytest.mark.parametrize("times", [[], [None, None], [7, 7, 7]])
def test_where_times_tell_nothing_there_is_no_modality(times: list[int | None]) -> None:
    edges = time_modality.quantile_edges(time_modality.sample_times(_posts(times)))
    assert len(edges) == 0
    assert time_modality.add_time((0, _posts(times)), edges)[1].schema.names == ["post_id", "created_at"]


def test_edges_are_written_and_read(tmp_path: Path) -> None:
    assert len(time_modality.read_edges(str(tmp_path))) == 0
    when = datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC).timestamp() * 1e6
    time_modality.write_edges(np.array([-1.5e15, when]), str(tmp_path))
    assert time_modality.read_edges(str(tmp_path)).tolist() == [-1.5e15, when]

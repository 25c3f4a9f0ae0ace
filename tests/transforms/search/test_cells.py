from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.transforms.search.catalog_fixtures import WIDTH, make_posts, make_vectors, write_catalog
from tests.transforms.search.test_top_k import make_candidates
from transforms.search import cells, regions
from transforms.tables import blocks, parquet

NewPipeline = Callable[[], beam.Pipeline]


def test_small_catalogs_have_no_cells_and_large_ones_not_too_many() -> None:
    assert cells.choose_num_cells(0) == cells.choose_num_cells(32_767) == 0
    assert cells.choose_num_cells(65_536) == 768
    assert cells.choose_num_cells(10**6) == 3_000
    assert cells.choose_num_cells(10**9) == cells.choose_num_cells(10**12) == 16_384


def test_the_same_posts_by_cell_and_id(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    posts, users = make_posts(rng, 900), make_vectors(rng, 60)
    catalog = write_catalog(new_pipeline, tmp_path, posts, users, 40, num_parts=4)
    found = cells.read(str(tmp_path / "candidates" / regions.CELLS_DIR))
    assert found.shares.sum() == pytest.approx(1)
    files = parquet.list_files(catalog.directory)
    parts = [parquet.read_file(path) for path in files]
    together = pa.Table.from_batches(parts).sort_by("post_id").drop_columns("leading")
    assert together.equals(pa.Table.from_batches([posts]).sort_by("post_id"))
    assert len(parts) == 4 and all(100 < part.num_rows < 350 for part in parts)
    assert {pq.ParquetFile(path).metadata.row_group(0).num_rows for path in files} == {100}
    for part in parts:
        embeddings = blocks.vectors_to_numpy(part.column("embedding"))
        cell = found.assign(embeddings)
        assert (np.diff(cell) >= 0).all()
        assert ((cell == len(found.centers)) == ~embeddings.any(axis=1)).all()
        keys = list(zip(cell.tolist(), part.column("post_id").to_pylist(), strict=True))
        assert keys == sorted(keys)


def test_cells_that_follow_each_other_are_near_each_other(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    write_catalog(new_pipeline, tmp_path, make_posts(rng, 900), make_vectors(rng, 60), 40)
    centers = cells.read(str(tmp_path / "candidates" / regions.CELLS_DIR)).centers
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1).mean()
    shuffled = np.linalg.norm(np.diff(rng.permutation(centers), axis=0), axis=1).mean()
    assert steps < 0.7 * shuffled


def test_a_cell_larger_than_a_part_goes_into_several(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    vectors = make_vectors(rng, 800)
    vectors[:600] = vectors[600]
    catalog = write_catalog(new_pipeline, tmp_path, make_candidates(vectors), make_vectors(rng, 60), 20, 4)
    rows = [parquet.read_file(path).num_rows for path in parquet.list_files(catalog.directory)]
    assert len(rows) == 4 and sum(rows) == 800 and max(rows) < 300


@pytest.mark.parametrize("users", [np.empty((0, WIDTH)), np.zeros((5, WIDTH))])
@pytest.mark.parametrize("posts", [np.zeros((50, WIDTH)), np.ones((50, WIDTH))])
def test_posts_all_alike_and_users_of_whom_nothing_is_known(
    new_pipeline: NewPipeline, tmp_path: Path, users: np.ndarray, posts: np.ndarray
) -> None:
    candidates = make_candidates(posts.astype(np.float32))
    catalog = write_catalog(new_pipeline, tmp_path, candidates, users.astype(np.float32), 8, 2)
    assert parquet.count_rows(catalog.directory) == 50
    found = catalog.regions()
    assert (found is None) == (not posts.any())
    if found is not None:
        assert found.num_rows.sum() == 50


def test_a_sample_is_taken_evenly(tmp_path: Path) -> None:
    column = blocks.numpy_to_vectors(np.arange(100, dtype=np.float32)[:, None])
    block = pa.RecordBatch.from_arrays([column], ["embedding"])
    for part, piece in enumerate(blocks.split_rows(block, 50)):
        parquet.write_file(parquet.part_path(str(tmp_path), part), piece, block.schema)
    assert cells._some_rows(str(tmp_path), 10)[:, 0].tolist() == list(range(0, 50, 5))
    assert cells._some_rows(str(tmp_path), 60)[:, 0].tolist() == [int(i / 60 * 100) for i in range(60)]
    assert len(cells._some_rows(str(tmp_path), 1000)) == 100

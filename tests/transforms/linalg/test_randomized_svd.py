import itertools
from collections.abc import Callable, Iterator

import apache_beam as beam
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from transforms.linalg import randomized_svd

NewPipeline = Callable[[], beam.Pipeline]


def _matrix(num_rows: int = 400, num_columns: int = 150, seed: int = 3) -> sp.csr_array:
    """Sparse rows of length 1 with some structure."""
    rng = np.random.default_rng(seed)
    topics = rng.random((6, num_columns)) ** 8
    dense = topics[rng.integers(0, 6, num_rows)] * (rng.random((num_rows, num_columns)) < 0.2)
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-9)
    return sp.csr_array(dense)


class RowsOf:
    """Rows start:stop of the matrix, in blocks."""

    def __init__(self, matrix: sp.csr_array, block_rows: int) -> None:
        self.matrix, self.block_rows = matrix, block_rows

    def __call__(self, key: tuple[int, int]) -> Iterator[sp.csr_array]:
        for start in range(key[0], key[1], self.block_rows):
            yield self.matrix[start : min(start + self.block_rows, key[1])]


def _run(new_pipeline: NewPipeline, tmp_path: object, matrix: sp.csr_array, parts: int, rank: int) -> np.ndarray:
    bounds = np.linspace(0, matrix.shape[0], parts + 1).astype(int).tolist()
    path = f"{tmp_path}/svd-{parts}.npy"
    with new_pipeline() as pipeline:
        _ = (
            pipeline
            | beam.Create(list(itertools.pairwise(bounds)))
            | randomized_svd.RandomizedSvd(RowsOf(matrix, 64 // parts), *matrix.shape, str(tmp_path), rank)
            | beam.Map(lambda found: np.save(path, found))
        )
    components: np.ndarray = np.load(path)
    return components


def test_it_captures_what_the_exact_svd_does(new_pipeline: NewPipeline, tmp_path: object) -> None:
    matrix = _matrix()
    found = _run(new_pipeline, tmp_path, matrix, 3, 10)
    _, exact, _ = svds(matrix, k=10, random_state=0)
    singular_values = np.linalg.norm(matrix @ found, axis=0)
    captured = np.sum(singular_values**2) / np.sum(exact**2)
    assert 0.999 < captured <= 1 + 1e-9
    np.testing.assert_allclose(singular_values, np.sort(exact)[::-1], rtol=5e-3)
    np.testing.assert_allclose(found.T @ found, np.eye(10), atol=1e-6)
    largest = np.abs(found).argmax(axis=0)
    assert np.all(found[largest, np.arange(10)] > 0)


def test_parts_and_blocks_do_not_change_a_bit(new_pipeline: NewPipeline, tmp_path: object) -> None:
    matrix = _matrix()
    one, many = (_run(new_pipeline, tmp_path, matrix, parts, 8) for parts in (1, 7))
    np.testing.assert_array_equal(one, many)


def test_the_rank_of_the_matrix_bounds_the_result(new_pipeline: NewPipeline, tmp_path: object) -> None:
    matrix = sp.csr_array(np.repeat(np.eye(4)[:3], 5, axis=0))
    found = _run(new_pipeline, tmp_path, matrix, 2, 128)
    assert found.shape == (4, 3)
    np.testing.assert_allclose(np.linalg.norm(matrix @ found, axis=0), np.sqrt([5, 5, 5]), rtol=1e-6)


def test_no_rows_give_no_vectors(new_pipeline: NewPipeline, tmp_path: object) -> None:
    empty = sp.csr_array((0, 5))
    path = f"{tmp_path}/none.npy"
    with new_pipeline() as pipeline:
        _ = (
            pipeline
            | beam.Create([])
            | randomized_svd.RandomizedSvd(RowsOf(empty, 8), 1, 5, str(tmp_path), 2)
            | beam.Map(lambda found: np.save(path, found))
        )
    assert np.load(path).shape == (5, 0)


def test_entries_are_as_fine_as_exact_sums_allow() -> None:
    assert randomized_svd.entry_bits(1000) == randomized_svd.MAX_BITS
    for num_rows in (10**5, 10**6, 10**9):
        assert (
            num_rows * 4 ** randomized_svd.entry_bits(num_rows)
            <= 2**53
            < num_rows * 4 ** (randomized_svd.entry_bits(num_rows) + 2)
        )


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        randomized_svd.RandomizedSvd(RowsOf(_matrix(), 8), 10, 10, "", 0)

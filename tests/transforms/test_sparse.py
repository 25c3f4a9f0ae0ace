from collections.abc import Callable

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that, equal_to

from transforms import blocks, sparse

NewPipeline = Callable[[], beam.Pipeline]
WIDTH = 5


def _world(num_rows: int, num_columns: int, num_entries: int) -> tuple[pa.RecordBatch, pa.RecordBatch, dict]:
    rng = np.random.default_rng(7)
    row, column = rng.integers(0, num_rows, num_entries), rng.integers(0, num_columns + 10, num_entries)
    weight = rng.standard_normal(num_entries)
    vectors = rng.standard_normal((num_columns, WIDTH)).astype(np.float32)
    entries = pa.RecordBatch.from_arrays(
        [pa.array([f"r{i}" for i in row]), pa.array([f"c{i}" for i in column]), pa.array(weight)],
        schema=sparse.ENTRIES,
    )
    dense = pa.RecordBatch.from_arrays(
        [pa.array([f"c{i}" for i in range(num_columns)]), blocks.numpy_to_vectors(vectors)],
        schema=sparse.dense_schema(WIDTH),
    )
    known = column < num_columns
    matrix = np.zeros((num_rows, num_columns))
    np.add.at(matrix, (row[known], column[known]), weight[known])
    product = matrix @ vectors.astype(np.float64)
    return entries, dense, {f"r{i}": product[i] for i in np.unique(row[known])} | {"unknown": (~known).sum()}


@pytest.mark.parametrize(("num_parts", "block_rows"), [(1, 10_000), (3, 97), (16, 1000)])
def test_equals_the_matrix_product(new_pipeline: NewPipeline, num_parts: int, block_rows: int) -> None:
    entries, dense, expected = _world(60, 80, 2000)
    num_unknown = expected.pop("unknown")

    def check(products: list[pa.RecordBatch]) -> None:
        rows = [row for block in products for row in block.column("row").to_pylist()]
        vectors = np.concatenate([blocks.vectors_to_numpy(block.column("vector")) for block in products])
        assert sorted(rows) == sorted(expected)
        np.testing.assert_allclose(vectors, [expected[row] for row in rows], rtol=1e-12, atol=1e-12)
        assert all(block.schema.equals(sparse.product_schema(WIDTH)) for block in products)

    with new_pipeline() as pipeline:
        product = {
            "entries": pipeline | "Entries" >> beam.Create(list(blocks.split_rows(entries, block_rows))),
            "dense": pipeline | "Dense" >> beam.Create(list(blocks.split_rows(dense, 33))),
        } | sparse.SparseTimesDense(WIDTH, num_parts)
        assert_that(product.rows, check, label="Product")
        counted = product.counts | beam.CombinePerKey(sum)
        assert_that(
            counted,
            equal_to([("sparse.entries", 2000), ("sparse.entries_without_vector", num_unknown)]),
            label="Counts",
        )


def test_the_order_of_the_entries_does_not_change_a_bit() -> None:
    entries, dense, _ = _world(10, 30, 3000)
    rows, sums, _ = sparse.multiply(entries, dense)
    shuffled = entries.take(pa.array(np.random.default_rng(0).permutation(entries.num_rows)))
    again_rows, again, _ = sparse.multiply(shuffled, dense.take(pa.array(np.arange(dense.num_rows)[::-1])))
    assert rows.equals(again_rows)
    np.testing.assert_array_equal(sums, again)


def test_only_unknown_columns_give_no_rows() -> None:
    entries = pa.RecordBatch.from_pylist([{"row": "r", "column": "x", "weight": 1.0}], schema=sparse.ENTRIES)
    dense = pa.RecordBatch.from_pylist([{"key": "y", "vector": [1.0, 2.0]}], schema=sparse.dense_schema(2))
    rows, sums, num_unknown = sparse.multiply(entries, dense)
    assert (len(rows), sums.shape, num_unknown) == (0, (0, 2), 1)


def test_float64_vectors_keep_their_precision(new_pipeline: NewPipeline) -> None:
    value = 1 + 1e-12
    entries = pa.RecordBatch.from_pylist([{"row": "r", "column": "c", "weight": 1.0}], schema=sparse.ENTRIES)
    dense = pa.RecordBatch.from_pylist([{"key": "c", "vector": [value]}], schema=sparse.dense_schema(1, pa.float64()))
    with new_pipeline() as pipeline:
        product = {
            "entries": pipeline | "Entries" >> beam.Create([entries]),
            "dense": pipeline | "Dense" >> beam.Create([dense]),
        } | sparse.SparseTimesDense(1, 2, value_type=pa.float64())
        values = product.rows | beam.Map(lambda block: block.column("vector").to_pylist())
        assert_that(values, equal_to([[[value]]]))


@pytest.mark.parametrize(("width", "num_parts", "name"), [(0, 1, "width"), (1, 0, "num_parts")])
def test_parameters_are_checked(width: int, num_parts: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        sparse.SparseTimesDense(width, num_parts)

"""Primitive 2, sparse times dense: entries (row, column, weight) x vectors keyed by column -> a vector for each row.

The entries meet the vectors in a part of columns, each part gives partial sums per row, and these meet in a part of
rows. Nothing is held whole.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse

from transforms import blocks, shuffle

ENTRIES = pa.schema(
    [
        pa.field("row", pa.string(), nullable=False),
        pa.field("column", pa.string(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
    ]
)


class Product(NamedTuple):
    """What SparseTimesDense gives.

    Attributes:
      rows: blocks of (row string, vector fixed_size_list<float64>[width]), each row in one block once, rows sorted
        within a block; a row none of whose columns has a vector is not there.
      counts: ("NAME.entries", n) and ("NAME.entries_without_vector", n).
    """

    rows: beam.PCollection[pa.RecordBatch]
    counts: beam.PCollection[tuple[str, int]]


def dense_schema(width: int, value_type: pa.DataType | None = None) -> pa.Schema:
    """Blocks of vectors: `key` string and `vector` of float32, or float64 if `value_type` says so."""
    value = pa.float32() if value_type is None else value_type
    return pa.schema(
        [pa.field("key", pa.string(), nullable=False), pa.field("vector", pa.list_(value, width), nullable=False)]
    )


def product_schema(width: int) -> pa.Schema:
    """Blocks of sums."""
    return pa.schema(
        [
            pa.field("row", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float64(), width), nullable=False),
        ]
    )


@dataclasses.dataclass
class SparseTimesDense(beam.PTransform):
    """{"entries": blocks of ENTRIES, "dense": blocks of `dense_schema(width)`} -> Product.

    Sums are taken in float64 and in an order that only depends on ids and `num_parts`; another number of parts
    changes the result by float64 rounding. An entry that is there twice counts twice; a key may be there once.
    """

    width: int
    num_parts: int
    value_type: pa.DataType | None = None
    name: str = "sparse"

    def __post_init__(self) -> None:
        super().__init__()
        shuffle.check_num_parts(self.num_parts)
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")

    def expand(self, inputs: dict[str, beam.PCollection[pa.RecordBatch]]) -> Product:
        partial: Any = (
            {"entries": inputs["entries"], "dense": inputs["dense"]}
            | "JoinByColumn"
            >> shuffle.CoGroupBlocks(
                keys={"entries": "column", "dense": "key"},
                schemas={"entries": ENTRIES, "dense": dense_schema(self.width, self.value_type)},
                num_parts=self.num_parts,
            )
            | "MultiplyPart" >> beam.FlatMap(_multiply_part, name=self.name).with_outputs("counts", main="partial")
        )
        rows = (
            partial.partial
            | "GroupByRow" >> shuffle.GroupBlocks("row", self.num_parts)
            | "SumPartials" >> beam.Map(_sum_part, width=self.width)
        )
        return Product(rows, partial.counts)


def _multiply_part(numbered: tuple[int, dict[str, pa.RecordBatch]], name: str) -> Iterator[Any]:
    part, joined = numbered
    rows, sums, num_unknown = multiply(joined["entries"], joined["dense"])
    if len(rows):
        arrays = [rows, vectors_of(sums), pa.array(np.full(len(rows), part, np.int32))]
        yield pa.RecordBatch.from_arrays(arrays, names=["row", "vector", "part"])
    yield beam.pvalue.TaggedOutput("counts", (f"{name}.entries", joined["entries"].num_rows))
    yield beam.pvalue.TaggedOutput("counts", (f"{name}.entries_without_vector", num_unknown))


def _sum_part(numbered: tuple[int, pa.RecordBatch], width: int) -> pa.RecordBatch:
    _, partial = numbered
    rows, sums = sum_by_row(partial)
    return pa.RecordBatch.from_arrays([rows, vectors_of(sums)], schema=product_schema(width))


def multiply(entries: pa.RecordBatch, dense: pa.RecordBatch) -> tuple[pa.Array, np.ndarray, int]:
    """Partial sums of one part: (its rows, [num_rows, width] float64, how many entries' columns have no vector)."""
    dense = blocks.sort(dense, "key")
    found = pc.index_in(entries.column("column"), value_set=dense.column("key"))
    num_unknown = found.null_count
    if num_unknown:
        entries, found = entries.filter(found.is_valid()), found.drop_null()
    row, rows = sorted_codes(entries.column("row"))
    weights, columns = entries.column("weight").to_numpy(), found.to_numpy()
    order, starts = _by_row_and_column(row, columns, weights)
    matrix = scipy.sparse.csr_matrix(
        (weights[order], columns[order], np.append(starts, len(order))), shape=(len(rows), dense.num_rows)
    )
    return rows, matrix @ blocks.vectors_to_numpy(dense.column("vector")).astype(np.float64), num_unknown


def _by_row_and_column(row: np.ndarray, column: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order in which a row's terms are added, which only depends on ids and weights, and where rows begin."""
    key = row * (int(column.max(initial=0)) + 1) + column
    order = np.argsort(key, kind="stable")
    if (np.diff(key[order]) == 0).any():
        order = np.lexsort((weight, key))
    return order, np.flatnonzero(np.diff(row[order], prepend=-1))


def sorted_codes(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Where each value stands among the distinct ones in their order: ([n] int64, distinct values sorted)."""
    encoded = column.dictionary_encode()
    by_value = pc.sort_indices(encoded.dictionary).to_numpy()
    place = np.empty(len(by_value), np.int64)
    place[by_value] = np.arange(len(by_value))
    return place[encoded.indices.to_numpy()], encoded.dictionary.take(pa.array(by_value))


def sum_by_row(partial: pa.RecordBatch) -> tuple[pa.Array, np.ndarray]:
    """Sums of (row, vector, part) by row, in the order of the parts: (rows sorted, [num_rows, width] float64)."""
    row, rows = sorted_codes(partial.column("row"))
    order = np.lexsort((partial.column("part").to_numpy(), row))
    starts = np.flatnonzero(np.diff(row[order], prepend=-1))
    sums = np.add.reduceat(blocks.vectors_to_numpy(partial.column("vector"))[order], starts, axis=0)
    return rows, sums


def vectors_of(values: np.ndarray) -> pa.FixedSizeListArray:
    """[n, width] float64 as a column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), pa.float64()), values.shape[1])

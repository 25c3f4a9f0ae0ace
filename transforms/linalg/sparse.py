"""Sparse times dense where the matrix is used once: its rows are in memory, the dense table is streamed.

A part of rows has all entries of its rows and reads the table of the dense rows from disk, a block at a time. No vector
crosses a shuffle, and only the part and its sums are in memory. (Partial sums by part of columns would be shuffled: a
row has one in nearly every part, so that a million entries of width 256 made 4 GB in flight.) The table is read once
for every part, so parts are made large. `transforms.linalg.tiled_matrix` is for a matrix
that is multiplied again and again.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from transforms.tables import blocks


def times_table(
    matrices: Mapping[str, sp.csc_array],
    keys: pa.Array,
    table: Iterable[tuple[pa.Array, np.ndarray]],
    columns: Mapping[str, slice],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Products of sparse matrices with a dense table that is streamed once.

    The sums are taken in float64 and in the order of the table.

    Args:
      matrices: name -> [n, len(keys)].
      keys: ids of the columns: [m] string, distinct.
      table: (keys [b] string, vectors [b, d]) in blocks; each key at most once.
      columns: name -> slice of the vectors that the matrix is multiplied with.

    Returns: name -> [n, width of its columns] float64; mask of the keys found in the table, [m] bool.
    """
    sums = {name: np.zeros((matrix.shape[0], _width(columns[name]))) for name, matrix in matrices.items()}
    found = np.zeros(len(keys), bool)
    for ids, vectors in table:
        place = pc.index_in(ids, value_set=keys)
        column = place.drop_null().to_numpy()
        found[column] = True
        wanted = vectors[blocks.valid(place)].astype(np.float64)
        for name, matrix in matrices.items():
            _add(sums[name], matrix[:, column], wanted[:, columns[name]])
    return sums, found


def _width(columns: slice) -> int:
    return int(columns.stop) - int(columns.start)


def _add(total: np.ndarray, entries: sp.csc_array, vectors: np.ndarray) -> None:
    """Adds entries @ vectors; of the total only rows with an entry are touched, which of a block are few."""
    rows, row = np.unique(entries.indices, return_inverse=True)
    compact = sp.csc_array((entries.data, row, entries.indptr), shape=(len(rows), entries.shape[1]))
    total[rows] += compact @ vectors


def sorted_codes(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Index of each value among the sorted distinct values: ([n] int64, distinct values sorted)."""
    encoded = column.dictionary_encode()
    by_value = pc.sort_indices(encoded.dictionary).to_numpy()
    place = np.empty(len(by_value), np.int64)
    place[by_value] = np.arange(len(by_value))
    return place[encoded.indices.to_numpy()], encoded.dictionary.take(pa.array(by_value))

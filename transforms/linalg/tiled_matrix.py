"""Sparse times dense where the matrix is multiplied again and again: it is on disk in tiles and is never shuffled.

Rows are cut into parts and columns are cut into parts; a tile is the intersection of a part of rows and a part of
columns. The dense sides are on disk too, one array per part, with the same numbering, so that a worker multiplies by
reading: nothing is joined, only its own part is in memory, and only part numbers travel between workers.
`transforms.linalg.sparse` does the same for a matrix that is used once.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from transforms.tables import arrays, parquet
from transforms.tables.files import join, read_json, write_json

ENTRY = np.dtype([("row", np.int32), ("column", np.int32), ("value", np.float64)])
_SIZES = "_sizes.json"

# Returns the dense rows that match a part: [rows of the part, width] float64.
DenseOf = Callable[[int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class TiledMatrix:
    """A sparse matrix in tiles.

    Attributes:
      directory: of its files.
      row_parts: the number of rows in each part of rows that has any.
      column_parts: the number of columns in each part of columns that has any.
    """

    directory: str
    row_parts: Mapping[int, int]
    column_parts: Mapping[int, int]

    @property
    def num_rows(self) -> int:
        """Rows with an entry."""
        return sum(self.row_parts.values())

    @property
    def num_columns(self) -> int:
        """Columns with an entry."""
        return sum(self.column_parts.values())

    def tile(self, row_part: int, column_part: int) -> sp.csr_array:
        """One tile: [rows of the part, columns of the part]."""
        bounds = arrays.load(_path(self.directory, "bounds", row_part), column_part, column_part + 2)
        entries = arrays.load(_path(self.directory, "entries", row_part), int(bounds[0]), int(bounds[1]))
        shape = (self.row_parts[row_part], self.column_parts[column_part])
        starts = np.zeros(shape[0] + 1, np.int64)
        np.cumsum(np.bincount(entries["row"], minlength=shape[0]), out=starts[1:])
        columns, values = np.ascontiguousarray(entries["column"]), np.ascontiguousarray(entries["value"])
        return sp.csr_array((values, columns, starts.astype(np.int32)), shape=shape)

    def times(self, row_part: int, dense_of: DenseOf, width: int) -> np.ndarray:
        """The rows of a part times the dense matrix that has a row for every column: [rows, width] float64.

        The sums are taken in the order of the parts and, within, of the columns: the same bits every time.
        """
        product = np.zeros((self.row_parts[row_part], width))
        for column_part in sorted(self.column_parts):
            tile = self.tile(row_part, column_part)
            if tile.nnz:
                product += tile @ dense_of(column_part)
        return product

    def transposed_times(self, column_part: int, dense_of: DenseOf, width: int) -> np.ndarray:
        """The columns of a part, as rows, times the dense matrix that has a row for every row: [columns, width]."""
        product = np.zeros((self.column_parts[column_part], width))
        for row_part in sorted(self.row_parts):
            tile = self.tile(row_part, column_part)
            if tile.nnz:
                product += tile.T @ dense_of(row_part)
        return product

    def squares(self, row_part: int) -> float:
        """The sum of the squares of a part's entries."""
        values = arrays.load(_path(self.directory, "entries", row_part))["value"]
        return float(np.square(values).sum())


def write_rows(directory: str, part: int, num_column_parts: int, column_part: np.ndarray, entries: np.ndarray) -> None:
    """Writes all entries of a part of rows, tile by tile.

    Args:
      directory: of the matrix.
      part: number of the part of rows.
      num_column_parts: parts of columns, those without columns as well.
      column_part: [n] int, the part of columns of each entry, ascending.
      entries: [n] of ENTRY, within a part of columns sorted by row and column; numbers count within the parts.
    """
    bounds = np.searchsorted(column_part, np.arange(num_column_parts + 1))
    arrays.save(_path(directory, "entries", part), entries)
    arrays.save(_path(directory, "bounds", part), bounds)


def write_sizes(directory: str, row_parts: Mapping[int, int], column_parts: Mapping[int, int]) -> None:
    """Writes the row and column counts of all parts; written last, it marks the matrix as complete."""
    sizes = {"row_parts": {str(k): v for k, v in row_parts.items()}}
    sizes["column_parts"] = {str(k): v for k, v in column_parts.items()}
    write_json(join(directory, _SIZES), sizes)


def open_matrix(directory: str) -> TiledMatrix:
    """The matrix stored in a directory."""
    sizes = read_json(join(directory, _SIZES))
    row_parts, column_parts = (
        {int(part): number for part, number in sizes[name].items() if number} for name in ("row_parts", "column_parts")
    )
    return TiledMatrix(directory, row_parts, column_parts)


def _path(directory: str, kind: str, part: int) -> str:
    return join(directory, kind, f"{kind}-{part:05d}.npy")


POSTS = pa.schema([pa.field("post_id", pa.string(), nullable=False), pa.field("degree", pa.float64(), nullable=False)])


def read_posts(directory: str, part: int) -> pa.RecordBatch:
    """The posts of a part in the order of its columns: block of POSTS."""
    return parquet.read_file(join(directory, "posts", f"part-{part:05d}.parquet"))

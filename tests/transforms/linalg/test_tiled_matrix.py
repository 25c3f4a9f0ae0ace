from pathlib import Path

import numpy as np
import pytest

from transforms.linalg import tiled_matrix
from transforms.linalg.tiled_matrix import ENTRY, TiledMatrix


@pytest.fixture
def cut(tmp_path: Path) -> tuple[TiledMatrix, np.ndarray]:
    """A matrix of 7 x 9 in parts of rows 0 and 2 and parts of columns 0, 1 and 3; the tile (2, 1) is empty."""
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((7, 9)) * (rng.random((7, 9)) < 0.5)
    rows, columns = {0: range(4), 2: range(4, 7)}, {0: range(2), 1: range(2, 6), 3: range(6, 9)}
    whole[4:7, 2:6] = 0
    for part, of_part in rows.items():
        found = [
            (column_part, row - of_part[0], column - of_columns[0], whole[row, column])
            for column_part, of_columns in columns.items()
            for row in of_part
            for column in of_columns
            if whole[row, column]
        ]
        entries = np.array([entry[1:] for entry in found], ENTRY)
        tiled_matrix.write_rows(str(tmp_path), part, 5, np.array([entry[0] for entry in found]), entries)
    sizes = [{part: len(of_part) for part, of_part in side.items()} for side in (rows, columns)]
    tiled_matrix.write_sizes(str(tmp_path), {**sizes[0], 1: 0}, {**sizes[1], 4: 0})
    return tiled_matrix.open_matrix(str(tmp_path)), whole


def test_tiles_are_those_of_the_whole(cut: tuple[TiledMatrix, np.ndarray]) -> None:
    matrix, whole = cut
    assert (matrix.num_rows, matrix.num_columns) == whole.shape
    assert (list(matrix.row_parts), list(matrix.column_parts)) == ([0, 2], [0, 1, 3])
    np.testing.assert_array_equal(matrix.tile(2, 3).toarray(), whole[4:7, 6:9])
    assert matrix.tile(2, 1).nnz == 0 and matrix.tile(2, 1).shape == (3, 4)


def test_products_are_those_of_the_whole(cut: tuple[TiledMatrix, np.ndarray]) -> None:
    matrix, whole = cut
    dense = np.random.default_rng(1).standard_normal((9, 3))
    columns = {0: dense[:2], 1: dense[2:6], 3: dense[6:]}
    np.testing.assert_allclose(matrix.times(2, columns.__getitem__, 3), whole[4:] @ dense, atol=1e-12)
    tall = np.random.default_rng(2).standard_normal((7, 3))
    rows = {0: tall[:4], 2: tall[4:]}
    np.testing.assert_allclose(matrix.transposed_times(3, rows.__getitem__, 3), whole[:, 6:].T @ tall, atol=1e-12)
    assert matrix.squares(0) + matrix.squares(2) == pytest.approx(np.square(whole).sum())

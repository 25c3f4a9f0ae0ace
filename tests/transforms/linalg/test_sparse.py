import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from transforms.linalg import sparse

WIDTH, KEYS = 5, 30


def _world() -> tuple[sp.csc_array, pa.Array, pa.Array, np.ndarray]:
    """(entries of 10 rows, what their columns stand for, the keys of a table, its vectors): ten keys have no vector."""
    rng = np.random.default_rng(7)
    matrix = sp.random_array((10, KEYS + 10), density=0.3, rng=rng, format="csc")
    keys = pa.array([f"c{i}" for i in rng.permutation(KEYS + 10)])
    table = pa.array([f"c{i}" for i in rng.permutation(KEYS)] + ["nobody"])
    return matrix, keys, table, rng.standard_normal((KEYS + 1, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_equals_the_matrix_product(block_rows: int) -> None:
    matrix, keys, table, vectors = _world()
    streamed = (
        (table.slice(start, block_rows), vectors[start : start + block_rows])
        for start in range(0, len(table), block_rows)
    )
    columns = {"all": slice(0, WIDTH), "some": slice(1, 3)}
    sums, met = sparse.times_table({"all": matrix, "some": -matrix}, keys, streamed, columns)
    place = {key: row for row, key in enumerate(table.to_pylist())}
    dense = np.array([vectors[place[key]] if key in place else np.zeros(WIDTH) for key in keys.to_pylist()])
    np.testing.assert_allclose(sums["all"], matrix @ dense, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sums["some"], -(matrix @ dense)[:, 1:3], rtol=1e-12, atol=1e-12)
    assert met.tolist() == [key in place for key in keys.to_pylist()]


def test_the_order_of_the_columns_does_not_change_a_bit() -> None:
    matrix, keys, table, vectors = _world()
    order = np.random.default_rng(0).permutation(len(keys))
    found = [
        sparse.times_table({"": entries}, names, [(table, vectors)], {"": slice(0, WIDTH)})[0][""]
        for entries, names in ((matrix, keys), (matrix[:, order], keys.take(pa.array(order))))
    ]
    np.testing.assert_array_equal(*found)


def test_sums_are_of_float64() -> None:
    value = 1 + 1e-12
    sums, _ = sparse.times_table(
        {"": sp.csc_array([[1.0]])}, pa.array(["c"]), [(pa.array(["c"]), np.array([[value]]))], {"": slice(0, 1)}
    )
    assert sums[""].tolist() == [[value]]


def test_only_unknown_columns_give_zeros() -> None:
    known = pa.array(["y"]), np.ones((1, 2))
    sums, met = sparse.times_table({"": sp.csc_array([[1.0]])}, pa.array(["x"]), [known], {"": slice(0, 2)})
    assert (sums[""].tolist(), met.tolist()) == ([[0.0, 0.0]], [False])

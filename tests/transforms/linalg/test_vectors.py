import numpy as np

from transforms.linalg import vectors


def test_unit_rows_have_length_one_or_stay_zeros() -> None:
    values = np.array([[[3.0, 4], [0, 0]], [[1e-4, 0], [1e-12, 0]]])
    found = vectors.unit_rows(values)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[[0.6, 0.8], [0, 0]], [[1, 0], [0, 0]]], atol=1e-7)


def test_row_norms_are_summed_in_float64() -> None:
    values = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32)
    np.testing.assert_allclose(vectors.row_norms(values), np.linalg.norm(values.astype(float), axis=1), rtol=1e-12)

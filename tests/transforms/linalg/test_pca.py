import numpy as np

from transforms.linalg import pca


def test_whitening_makes_orthonormal_and_zeroes_dependent_columns() -> None:
    values = np.random.default_rng(0).standard_normal((50, 4)) * [1, 10, 1e-3, 1]
    values[:, 3] = values[:, 0] - values[:, 1]
    transform, roots = pca.whiten(values.T @ values)
    found = values @ transform
    np.testing.assert_allclose(found.T @ found, np.diag([0, 1, 1, 1]), atol=1e-6)
    np.testing.assert_allclose(roots[::-1][:3], np.linalg.svd(values).S[:3], rtol=1e-6)
    assert roots[0] == 0


def test_principal_components_are_the_right_singular_vectors() -> None:
    rows = np.random.default_rng(1).standard_normal((60, 5)) * [5, 4, 3, 2, 1]
    exact = np.linalg.svd(rows)
    singular_values, components = pca.principal_components(rows.T @ rows, 3)
    np.testing.assert_allclose(singular_values, exact.S[:3])
    np.testing.assert_allclose(np.abs(np.sum(components * exact.Vh[:3].T, axis=0)), 1)


def test_no_more_components_than_the_rank() -> None:
    rows = np.array([[1.0, 1, 0], [2, 2, 0], [0, 0, 3]])
    singular_values, components = pca.principal_components(rows.T @ rows, 10)
    np.testing.assert_allclose(singular_values, [np.sqrt(10), 3])
    assert components.shape == (3, 2)
    assert pca.principal_components(np.zeros((3, 3)), 2)[1].shape == (3, 0)

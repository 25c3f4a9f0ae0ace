import numpy as np
import pyarrow as pa
import pytest

from transforms.linalg import subspace_iteration


def test_random_numbers_are_told_by_ids() -> None:
    ids = pa.array([f"post{i}" for i in range(4000)])
    numbers = subspace_iteration.gaussian(ids, 7, seed=1)
    order = np.random.default_rng(0).permutation(4000)
    np.testing.assert_array_equal(subspace_iteration.gaussian(ids.take(pa.array(order)), 7, seed=1), numbers[order])
    assert np.abs(numbers.mean(axis=0)).max() < 0.06
    assert np.abs(np.cov(numbers.T) - np.eye(7)).max() < 0.1
    assert np.mean(np.abs(numbers) > 1.96) == pytest.approx(0.05, abs=0.01)
    assert np.abs(np.corrcoef(numbers[:, 0], subspace_iteration.gaussian(ids, 7, seed=2)[:, 0])[0, 1]) < 0.06


def test_sums_do_not_depend_on_the_order_of_arrival() -> None:
    values = np.random.default_rng(0).standard_normal((80, 3)) * 10.0 ** (np.arange(80)[:, None] / 8 - 4)
    numbered = [(part, subspace_iteration.PostSums(value, value * 2)) for part, value in enumerate(values)]
    sums: list[subspace_iteration.PostSums] = []
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(80)
        sums.append(subspace_iteration.sum_in_order([numbered[i] for i in order]))
    np.testing.assert_array_equal(sums[0].gram, sums[1].gram)
    np.testing.assert_allclose(sums[0].probe, 2 * values.sum(axis=0))


def test_the_shift_moves_half_way_up_and_never_down() -> None:
    before = subspace_iteration.SubspaceBasis(np.eye(2), 1.0)
    assert subspace_iteration.orthonormalize(np.diag([25.0, 9.0]), before).shift == pytest.approx(2)
    assert subspace_iteration.orthonormalize(np.diag([25.0, 0.25]), before).shift == 1
    assert subspace_iteration.first_basis(np.diag([25.0, 9.0])).shift == 0

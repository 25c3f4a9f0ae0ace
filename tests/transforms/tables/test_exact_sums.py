import numpy as np
import pyarrow as pa
import pytest

from transforms.tables import blocks, exact_sums


def test_sums_do_not_depend_on_the_order_or_on_the_blocks() -> None:
    rng = np.random.default_rng(0)
    ids, weights = (
        np.array([f"p{i}" for i in rng.integers(0, 20, 5000)]),
        rng.random(5000) * 10 ** rng.uniform(-6, 3, 5000),
    )
    wanted = pa.array([*(f"p{i}" for i in range(20)), "nobody"])
    found = []
    for seed, size in ((1, 5000), (2, 37)):
        order = np.random.default_rng(seed).permutation(5000)
        parts = [
            exact_sums.sum_by_post(pa.array(ids[rows]), weights[rows])
            for rows in (order[start : start + size] for start in range(0, 5000, size))
        ]
        found.append(exact_sums.totals(wanted, blocks.concat(parts)))
    np.testing.assert_array_equal(*found)
    expected = [weights[ids == post].sum() for post in wanted.to_pylist()]
    assert found[0] == pytest.approx(np.array(expected), rel=1e-6)


def test_nothing_sums_up_to_nothing() -> None:
    empty = exact_sums.sum_by_post(pa.array([], pa.string()), np.zeros(0))
    assert exact_sums.totals(pa.array(["a"]), empty).tolist() == [0]

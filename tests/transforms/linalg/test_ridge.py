import numpy as np
import pytest

from transforms.linalg import ridge

RNG = np.random.default_rng(1)
VALUES = {"text": RNG.standard_normal((9000, 3)), "image": RNG.standard_normal((9000, 2))}
PRESENT = {"text": np.ones(9000, bool), "image": RNG.random(9000) < 0.5}
VALUES["image"][~PRESENT["image"]] = 0
TARGETS = RNG.standard_normal((9000, 4))


def test_design_has_a_column_for_what_may_be_missing_and_one_of_ones() -> None:
    made = ridge.design(VALUES, PRESENT, 9000)
    assert made.owner.tolist() == ["text"] * 3 + ["image"] * 2 + ["image", ""]
    np.testing.assert_array_equal(made.columns[:, 5], PRESENT["image"])
    np.testing.assert_array_equal(made.columns[:, 6], 1)
    assert made.scales({"text": 4.0, "image": 0.25}).tolist() == [2, 2, 2, 0.5, 0.5, 1, 1]
    assert made.scales({"text": 1.0}).tolist() == [1, 1, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("weights", [{"text": 3.0, "image": 0.3}, {"text": 1.0, "image": 0.0}])
def test_the_map_is_what_weighting_the_blocks_themselves_gives(weights: dict[str, float]) -> None:
    made = ridge.design(VALUES, PRESENT, 9000)
    rows = np.flatnonzero(RNG.random(9000) < 0.7)
    coefficients = ridge.solve(ridge.sums(made.columns, TARGETS, rows), made.scales(weights), lam=5.0)
    kept = [name for name in VALUES if weights[name] > 0]
    columns = [VALUES[name] * weights[name] ** 0.5 for name in kept]
    columns += [PRESENT[name][:, None] * 1.0 for name in kept if not PRESENT[name].all()]
    z = np.hstack([*columns, np.ones((9000, 1))])
    solved = np.linalg.solve(z[rows].T @ z[rows] + 5 * np.eye(z.shape[1]), z[rows].T @ TARGETS[rows])
    np.testing.assert_allclose(made.columns @ coefficients, z @ solved, atol=1e-5)


def test_without_content_the_map_is_the_mean_drawn_to_zero() -> None:
    made = ridge.design({}, {}, 20)
    found = ridge.sums(made.columns, np.full((20, 1), 3.0), np.arange(20))
    assert ridge.solve(found, made.scales({}), lam=20.0).tolist() == [[pytest.approx(1.5)]]

from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from tests.transforms.interactions import factor_fixtures as fixtures
from transforms.interactions import collaborative_factors
from transforms.linalg import subspace_iteration

NewPipeline = Callable[[], beam.Pipeline]
row = fixtures.row


def exact(rows: fixtures.Rows, factors: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(matrix, singular values falling, right singular vectors in columns) by ARPACK."""
    matrix, _, _ = fixtures.scaled(rows)
    _, values, vectors = svds(sp.csr_array(matrix), factors, random_state=0)
    order = np.argsort(-values)
    return matrix, values[order], vectors[order].T


@pytest.mark.parametrize(("num_users", "num_posts", "factors"), [(200, 120, 10), (150, 400, 40), (60, 50, 30)])
def test_as_good_as_the_exact_decomposition(
    new_pipeline: NewPipeline, tmp_path: Path, num_users: int, num_posts: int, factors: int
) -> None:
    rows = fixtures.tasteful(num_users, num_posts)
    matrix, values, vectors = exact(rows, factors)
    made = fixtures.make_matrix(new_pipeline, tmp_path, rows)
    solution, found = fixtures.factorize(new_pipeline, made, factors, passes=collaborative_factors.choose_passes(made))
    np.testing.assert_allclose(solution.singular_values, values, rtol=1e-3)
    np.testing.assert_allclose(found.T @ found, np.eye(factors), atol=1e-6)
    captured = np.square(matrix @ found).sum()
    assert captured >= 0.99 * np.square(values).sum()
    assert captured == pytest.approx(np.square(solution.singular_values).sum(), rel=1e-5)
    assert solution.energy == pytest.approx(np.square(matrix).sum(), rel=1e-6)
    # Well separated vectors are the exact ones.
    assert np.abs(np.sum(found[:, :3] * vectors[:, :3], axis=0)) == pytest.approx(np.ones(3), abs=1e-4)


def test_energy_where_singular_values_hardly_fall(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = [row(f"u{u}", f"p{p}") for u, p in np.unique(rng.integers(0, 500, (4000, 2)), axis=0)]
    _, values, _ = exact(rows, 20)
    solution, _ = fixtures.factorize(new_pipeline, fixtures.make_matrix(new_pipeline, tmp_path, rows), 20)
    assert values[-1] / values[1] > 0.7
    assert np.square(solution.singular_values).sum() >= 0.99 * np.square(values).sum()


def test_the_parts_do_not_matter(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    rows = fixtures.tasteful(90, 70)
    results = []
    for number, (num_parts, history_parts) in enumerate([(1, 1), (2, 5), (7, 3)]):
        matrix = fixtures.make_matrix(new_pipeline, tmp_path / str(number), rows, num_parts, history_parts)
        results.append(fixtures.factorize(new_pipeline, matrix, 12, passes=3))
    for solution, found in results[1:]:
        np.testing.assert_allclose(solution.singular_values, results[0][0].singular_values, rtol=1e-9)
        np.testing.assert_allclose(found, results[0][1], atol=1e-6)


def test_alone_and_spread_give_the_same_bits(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    matrix = fixtures.make_matrix(new_pipeline, tmp_path, fixtures.tasteful(50, 40), 4)
    solution, _ = fixtures.factorize(new_pipeline, matrix, 8, passes=2)
    work = subspace_iteration.Work(matrix, collaborative_factors.FactorizeMatrix(matrix, 8).width, 0)
    alone = subspace_iteration.solve_alone(work, 8, passes=2)
    np.testing.assert_array_equal(alone.transform, solution.transform)
    np.testing.assert_array_equal(alone.singular_values, solution.singular_values)


def test_another_seed_finds_the_same(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    matrix = fixtures.make_matrix(new_pipeline, tmp_path, fixtures.tasteful(80, 60, num_topics=3))
    (first, _), (other, _) = (fixtures.factorize(new_pipeline, matrix, 10, seed=seed) for seed in (0, 1))
    np.testing.assert_allclose(first.singular_values, other.singular_values, rtol=1e-3)
    assert (first.singular_values != other.singular_values).any()


def test_more_passes_capture_more(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = [row(f"u{u}", f"p{p}") for u, p in np.unique(rng.integers(0, 400, (4000, 2)), axis=0)]
    matrix = fixtures.make_matrix(new_pipeline, tmp_path, rows)
    captured = [
        np.square(fixtures.factorize(new_pipeline, matrix, 20, passes=passes)[0].singular_values).sum()
        for passes in (1, 3, 6)
    ]
    assert captured == sorted(captured)
    _, values, _ = exact(rows, 20)
    assert captured[0] < 0.9 * np.square(values).sum()


@pytest.mark.parametrize("num_parts", [1, 3])
def test_rank_is_found_where_it_is_low(new_pipeline: NewPipeline, tmp_path: Path, num_parts: int) -> None:
    # Three groups that share nothing: rank 3, though twelve users and nine posts could have eight factors.
    rows = [row(f"u{u}", f"p{p}") for u in range(12) for p in range(9) if u % 3 == p % 3]
    matrix = fixtures.make_matrix(new_pipeline, tmp_path, rows, num_parts)
    assert collaborative_factors.max_factors(matrix, 128) == 8
    solution, found = fixtures.factorize(new_pipeline, matrix, 8, passes=2)
    np.testing.assert_allclose(solution.singular_values, [12**0.25] * 3, rtol=1e-9)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-6)
    same_group = np.arange(9)[:, None] % 3 == np.arange(9) % 3
    np.testing.assert_allclose(found @ found.T, same_group / 3, atol=1e-6)


def test_two_users_and_two_posts(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    rows = [row("a", "p"), row("a", "q"), row("b", "q")]
    matrix = fixtures.make_matrix(new_pipeline, tmp_path, rows)
    solution, found = fixtures.factorize(new_pipeline, matrix, 1)
    expected = np.linalg.svd(fixtures.scaled(rows)[0])
    np.testing.assert_allclose(solution.singular_values, expected.S[:1], rtol=1e-3)
    np.testing.assert_allclose(np.abs(found[:, 0]), np.abs(expected.Vh[0]), atol=1e-2)


@pytest.mark.parametrize("rows", [[], [row("a", "p")], [row("a", "p"), row("a", "q")], [row("a", "p"), row("b", "p")]])
def test_too_little_for_a_factor(new_pipeline: NewPipeline, tmp_path: Path, rows: fixtures.Rows) -> None:
    (tmp_path / "history").mkdir()
    matrix = fixtures.make_matrix(new_pipeline, tmp_path, rows)
    assert collaborative_factors.max_factors(matrix, 128) == 0
    with pytest.raises(ValueError, match=r"factors must be in \[1, 0\], got 1"):
        collaborative_factors.FactorizeMatrix(matrix, 1)


def test_signs_do_not_hang_on_rounding(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    # Two equal groups joined by one user: the second vector's largest entries are as large with either sign.
    rows = [row(f"u{u}", f"p{p}") for u in range(8) for p in range(8) if u % 2 == p % 2]
    rows += [row("both", "p0"), row("both", "p1")]
    found = []
    for parts in (1, 2, 3):
        matrix = fixtures.make_matrix(new_pipeline, tmp_path / str(parts), rows, parts)
        found.append(fixtures.factorize(new_pipeline, matrix, 2, passes=2)[1])
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)
    ids = pa.array([f"p{i}" for i in range(8)])
    assert (subspace_iteration.gaussian(ids, 1, 1)[:, 0] @ found[0] > 0).all()

import numpy as np
import pytest

from tests.transforms.search.test_top_k import EVERYTHING_BUT_VECTORS, as_lists, brute_force, make_candidates
from transforms.search import top_k, upper_bounds
from transforms.tables import blocks


def make_vectors(rng: np.random.Generator, num_rows: int, offset: float = 0.0) -> np.ndarray:
    """Few directions that matter, many that hardly do, and what all have in common."""
    scales = np.concatenate([np.full(8, 1.0), np.full(88, 0.01)])
    return (rng.standard_normal((num_rows, 96)) * scales + offset).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_bounds_are_never_below_the_scores(offset: float) -> None:
    rng = np.random.default_rng(0)
    queries, posts = make_vectors(rng, 500), make_vectors(rng, 2_000, offset)
    exact = queries.astype(np.float64) @ posts.astype(np.float64).T
    basis = upper_bounds.choose(queries, np.partition(exact, -5, axis=1)[:, -5].astype(np.float32), posts)
    assert basis is not None
    assert basis.width < 96
    other_posts = make_vectors(rng, 700, offset) * np.float32(1.5)  # not those that the basis was chosen by
    for some in (posts, other_posts):
        bounded_queries, bounded_posts = (
            upper_bounds.bound_queries(queries, basis),
            upper_bounds.bound_posts(some, basis),
        )
        bounds = bounded_queries.vectors @ bounded_posts.vectors.T
        slack = upper_bounds.error(bounded_queries, bounded_posts)
        scores = queries.astype(np.float64) @ some.astype(np.float64).T
        assert (bounds + slack[:, None] >= scores).all()
        if some is posts:
            # What they are good for: hardly anybody is looked at who is not among the best.
            kth = np.partition(scores, -5, axis=1)[:, -5:-4]
            assert (bounds + slack[:, None] >= kth).mean() < 0.02


def test_without_directions_that_matter_there_is_no_basis() -> None:
    rng = np.random.default_rng(1)
    queries, posts = (rng.standard_normal((1_000, 64)).astype(np.float32) for _ in range(2))
    kth = np.partition(queries @ posts.T, -10, axis=1)[:, -10]
    assert upper_bounds.choose(queries, kth, posts) is None


@pytest.mark.parametrize("values", [np.zeros((50, 8)), np.ones((50, 8))])
def test_equal_posts_or_queries_give_no_basis(values: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    some = rng.standard_normal((50, 8)).astype(np.float32)
    same = values.astype(np.float32)
    assert upper_bounds.choose(some, np.zeros(50, np.float32), same) is None
    if not values.any():
        assert upper_bounds.choose(same, np.zeros(50, np.float32), some) is None


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_lists_are_the_same(monkeypatch: pytest.MonkeyPatch, offset: float) -> None:
    monkeypatch.setattr(top_k, "_PRUNED_QUERIES", 10)
    monkeypatch.setattr(top_k, "TILE_ROWS", 200)
    monkeypatch.setattr(top_k, "_FIRST_TILES", 1)
    chosen = []
    choose = upper_bounds.choose

    def watched(
        queries: np.ndarray, kth: np.ndarray, posts: np.ndarray, number_cost: float
    ) -> upper_bounds.BalancedBasis | None:
        chosen.append(choose(queries, kth, posts, number_cost))
        return chosen[-1]

    monkeypatch.setattr(upper_bounds, "choose", watched)
    rng = np.random.default_rng(3)
    queries, posts = make_vectors(rng, 300), make_vectors(rng, 3_000, offset)
    posts[1_500:1_600] = posts[:100]  # ties
    candidates = make_candidates(posts)
    ranked = top_k.top_k(
        queries, blocks.split_rows(candidates, 450), 7, eligibility=EVERYTHING_BUT_VECTORS, num_threads=2
    )
    assert len(chosen) > 1
    assert chosen[-1] is not None
    assert as_lists(ranked, 300) == brute_force(queries, candidates, 7)

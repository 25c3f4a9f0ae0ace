import datetime
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from transforms.linalg import selection
from transforms.search import running_top_k, top_k
from transforms.search.eligibility import Eligibility
from transforms.search.exclusions import Exclusions
from transforms.search.surviving_posts import SurvivingPosts
from transforms.tables import blocks, schemas

EVERYTHING = Eligibility(include_sensitive=True, include_reposts=True)


def make_candidates(vectors: np.ndarray, **columns: Sequence[object]) -> pa.RecordBatch:
    num_posts, width = vectors.shape
    falses = [False] * num_posts
    defaults = {
        "post_id": [f"p{i:04d}" for i in range(num_posts)],
        "embedding": blocks.numpy_to_vectors(vectors),
        "profile": blocks.numpy_to_vectors(np.zeros((len(vectors), 1))),  # top-K does not look at it
        "author_id": [None] * num_posts,
        "created_at": [None] * num_posts,
        "lang": [None] * num_posts,
        "sensitive": falses,
        "is_repost": falses,
        "is_reply": falses,
        "popularity": [0.0] * num_posts,
    }
    schema = schemas.candidates(width, 1)
    values = defaults | columns
    return pa.RecordBatch.from_arrays(
        [v if isinstance(v := values[f.name], pa.Array) else pa.array(v, f.type) for f in schema], schema=schema
    )


def brute_force(
    queries: np.ndarray,
    candidates: pa.RecordBatch,
    k: int,
    excluded: set[tuple[int, str]] = frozenset(),  # type: ignore[assignment]
    cap: int | None = None,
) -> list[list[tuple[str, float]]]:
    vectors = blocks.vectors_to_numpy(candidates.column("embedding")).astype(np.float64)
    ids, authors = candidates.column("post_id").to_pylist(), candidates.column("author_id").to_pylist()
    found = []
    for i, query in enumerate(queries):
        scores = (vectors * query.astype(np.float64)).sum(axis=1).astype(np.float32)
        taken: list[tuple[str, float]] = []
        used: dict[str, int] = {}
        for j in sorted(range(len(ids)), key=lambda j: (-scores[j], ids[j])):
            author = authors[j]
            if len(taken) == k:
                break
            if (i, ids[j]) in excluded or (cap and author is not None and used.get(author, 0) >= cap):
                continue
            used[author] = used.get(author, 0) + 1
            taken.append((ids[j], float(scores[j])))
        found.append(taken)
    return found


def as_lists(ranked: top_k.Ranked, num_queries: int) -> list[list[tuple[str, float]]]:
    found: list[list[tuple[str, float]]] = [[] for _ in range(num_queries)]
    for query, rank, post_id, score in zip(
        ranked.query.tolist(), ranked.rank.tolist(), ranked.post_id.to_pylist(), ranked.score.tolist(), strict=True
    ):
        found[query].append((post_id, score))
        assert rank == len(found[query])
    return found


def coarse(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Vectors of few different numbers: many scores are equal."""
    return rng.integers(-1, 2, shape).astype(np.float32)


def smooth(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


MAKE = {"smooth": smooth, "ties": coarse}


@pytest.mark.parametrize("kind", ["smooth", "ties"])
@pytest.mark.parametrize("cap", [None, 1, 3])
@pytest.mark.parametrize(("tile_rows", "query_rows", "num_threads"), [(7, 512, 1), (64, 5, 2), (4096, 3, 1)])
def test_equals_brute_force(
    monkeypatch: pytest.MonkeyPatch, kind: str, cap: int | None, tile_rows: int, query_rows: int, num_threads: int
) -> None:
    monkeypatch.setattr(top_k, "TILE_ROWS", tile_rows)
    monkeypatch.setattr(running_top_k, "_QUERY_ROWS", query_rows)
    rng = np.random.default_rng(1)
    queries, vectors = MAKE[kind](rng, 23, 6), MAKE[kind](rng, 301, 6)
    authors = [None if i % 7 == 0 else f"a{i}" for i in rng.integers(0, 30, 301)]
    shuffled = rng.permutation(301)
    candidates = make_candidates(vectors, author_id=authors).take(pa.array(shuffled))
    pairs = [(int(q), f"p{i:04d}") for q, i in zip(rng.integers(0, 23, 900), rng.integers(0, 310, 900), strict=True)]
    exclusions = Exclusions(
        np.array([q for q, _ in pairs]),
        pa.array([p for _, p in pairs]),
        np.array([4, 4, 20]),
        pa.array(["a1", "nobody", "a2"]),
    )
    by_author = [(q, a) for q, a in [(4, "a1"), (20, "a2")]]
    excluded = set(pairs) | {
        (q, p)
        for q, a in by_author
        for p, b in zip(*map(pa.Array.to_pylist, candidates.columns[0:3:2]), strict=True)
        if a == b
    }
    ranked = top_k.top_k(
        queries,
        blocks.split_rows(candidates, 50),
        10,
        eligibility=EVERYTHING_BUT_VECTORS,
        exclusions=exclusions,
        max_per_author=cap,
        num_threads=num_threads,
    )
    assert as_lists(ranked, 23) == brute_force(queries, candidates, 10, excluded, cap)


@pytest.mark.parametrize("cap", [None, 2])
def test_how_many_columns_are_looked_at_at_once_does_not_show(monkeypatch: pytest.MonkeyPatch, cap: int | None) -> None:
    monkeypatch.setattr(top_k, "TILE_ROWS", 150)
    rng = np.random.default_rng(4)
    queries, vectors = coarse(rng, 11, 5), coarse(rng, 601, 5)
    candidates = make_candidates(vectors, author_id=[f"a{i}" for i in rng.integers(0, 90, 601)])
    pairs = [(int(q), f"p{i:04d}") for q, i in zip(rng.integers(0, 11, 900), rng.integers(0, 601, 900), strict=True)]
    nobody = np.empty(0, np.int64), pa.array([], pa.string())
    exclusions = Exclusions(np.array([q for q, _ in pairs]), pa.array([p for _, p in pairs]), *nobody)
    for columns in (1, 7, 150):
        monkeypatch.setattr(running_top_k, "_COLUMNS", columns)
        ranked = top_k.top_k(
            queries, [candidates], 4, eligibility=EVERYTHING_BUT_VECTORS, exclusions=exclusions, max_per_author=cap
        )
        assert as_lists(ranked, 11) == brute_force(queries, candidates, 4, set(pairs), cap)


EVERYTHING_BUT_VECTORS = Eligibility(include_sensitive=True, include_reposts=True, needs_embedding=False)


def test_few_authors_need_every_post_under_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_k, "TILE_ROWS", 128)
    rng = np.random.default_rng(2)
    queries, vectors = rng.standard_normal((9, 4), np.float32), rng.standard_normal((1000, 4), np.float32)
    authors = ["spam"] * 990 + [f"a{i}" for i in range(10)]
    candidates = make_candidates(vectors, author_id=authors)
    ranked = top_k.top_k(queries, [candidates], 20, eligibility=EVERYTHING, max_per_author=2)
    found = as_lists(ranked, 9)
    assert found == brute_force(queries, candidates, 20, cap=2)
    assert {len(posts) for posts in found} == {12}


@pytest.mark.parametrize("tile_rows", [16, 5000])
def test_copies_of_one_post_are_ordered_by_id(monkeypatch: pytest.MonkeyPatch, tile_rows: int) -> None:
    monkeypatch.setattr(top_k, "TILE_ROWS", tile_rows)
    rng = np.random.default_rng(3)
    vector = rng.standard_normal(32).astype(np.float32)
    candidates = make_candidates(np.tile(vector, (700, 1))).take(pa.array(rng.permutation(700)))
    ranked = top_k.top_k(vector[None], [candidates], 5, eligibility=EVERYTHING)
    assert ranked.post_id.to_pylist() == [f"p{i:04d}" for i in range(5)]


def test_scores_that_float32_cannot_tell_apart_are_ranked_exactly() -> None:
    # The large terms cancel: in float32 the order of the sum decides, in float64 it does not.
    rng = np.random.default_rng(4)
    queries = np.ones((3, 64), np.float32)
    vectors = (rng.standard_normal((400, 64)) * 1e3).astype(np.float32)
    vectors[:, 32:] = -vectors[:, :32] + rng.standard_normal((400, 32)).astype(np.float32) * np.float32(1e-3)
    candidates = make_candidates(vectors)
    ranked = top_k.top_k(queries, [candidates], 15, eligibility=EVERYTHING)
    assert as_lists(ranked, 3) == brute_force(queries, candidates, 15)


def test_k_beyond_the_catalog_gives_what_is_there() -> None:
    candidates = make_candidates(np.eye(3, dtype=np.float32))
    ranked = top_k.top_k(np.eye(3, dtype=np.float32)[:2], [candidates], 100, eligibility=EVERYTHING)
    assert [len(posts) for posts in as_lists(ranked, 2)] == [3, 3]


def test_no_queries_no_candidates_and_everything_seen_give_nothing() -> None:
    candidates = make_candidates(np.eye(3, dtype=np.float32))
    for queries, given in ((np.empty((0, 3), np.float32), [candidates]), (np.eye(3, dtype=np.float32), [])):
        ranked = top_k.top_k(queries, given, 2, eligibility=EVERYTHING)
        assert len(ranked.query) == len(ranked.post_id) == 0
    seen = Exclusions(np.zeros(3), candidates.column("post_id"), np.empty(0), pa.array([], pa.string()))
    ranked = top_k.top_k(np.eye(3, dtype=np.float32)[:1], [candidates], 2, eligibility=EVERYTHING, exclusions=seen)
    assert len(ranked.query) == 0


@pytest.mark.parametrize(
    ("eligibility", "expected"),
    [
        (Eligibility(), {"plain", "reply", "old", "undated"}),
        (Eligibility(include_sensitive=True), {"plain", "reply", "old", "undated", "sensitive"}),
        (Eligibility(exclude_replies=True), {"plain", "old", "undated"}),
        (Eligibility(created_after=datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)), {"plain", "reply"}),
        (Eligibility(needs_embedding=False), {"plain", "reply", "old", "undated", "empty"}),
        (Eligibility(include_reposts=True), {"plain", "reply", "old", "undated", "repost"}),
    ],
)
def test_eligibility(eligibility: Eligibility, expected: set[str]) -> None:
    names = ["plain", "reply", "old", "undated", "sensitive", "repost", "empty"]
    may, january = (datetime.datetime(2024, month, 2, tzinfo=datetime.UTC) for month in (5, 1))
    vectors = np.ones((7, 2), np.float32)
    vectors[names.index("empty")] = 0
    candidates = make_candidates(
        vectors,
        post_id=names,
        created_at=[may, may, january, None, may, may, may],
        sensitive=[name == "sensitive" for name in names],
        is_repost=[name == "repost" for name in names],
        is_reply=[name == "reply" for name in names],
    )
    ranked = top_k.top_k(np.ones((1, 2), np.float32), [candidates], 50, eligibility=eligibility)
    assert set(ranked.post_id.to_pylist()) == expected


def test_outranked_posts_are_dropped_without_changing_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_k, "TILE_ROWS", 20)
    rng = np.random.default_rng(5)
    queries, vectors = coarse(rng, 4, 5), coarse(rng, 900, 5)
    candidates = make_candidates(vectors)
    expected = brute_force(queries, candidates, 6)
    original = SurvivingPosts.drop_outranked

    def always(surviving: SurvivingPosts, places_in_use: Callable[[], Iterable[np.ndarray]]) -> None:
        surviving._limit = 0
        original(surviving, places_in_use)

    monkeypatch.setattr(SurvivingPosts, "drop_outranked", always)
    ranked = top_k.top_k(queries, [candidates], 6, eligibility=EVERYTHING_BUT_VECTORS)
    assert as_lists(ranked, 4) == expected
    assert len(ranked.items.post_id) <= 4 * 6 * 3


@pytest.mark.parametrize(("k", "cap", "name"), [(0, None, "k"), (5, 0, "max_per_author")])
def test_limits_are_checked(k: int, cap: int | None, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        top_k.top_k(np.eye(2, dtype=np.float32), [], k, eligibility=EVERYTHING, max_per_author=cap)


def test_a_query_with_many_ties_does_not_make_the_others_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_k, "TILE_ROWS", 400)
    sizes = []
    to_matrix = selection.to_matrix

    def watched(row: np.ndarray, *others: Any) -> tuple[np.ndarray, ...]:
        made = to_matrix(row, *others)
        sizes.append((made[0].size, len(row)))
        return made

    monkeypatch.setattr(selection, "to_matrix", watched)
    rng = np.random.default_rng(8)
    queries, vectors = (rng.standard_normal((n, 6)).astype(np.float32) for n in (300, 2_000))
    queries[7] = 0  # everything scores the same
    candidates = make_candidates(vectors)
    ranked = top_k.top_k(queries, [candidates], 5, eligibility=EVERYTHING)
    assert as_lists(ranked, 300) == brute_force(queries, candidates, 5)
    assert max(size for size, _ in sizes) < 10_000
    assert sum(size for size, _ in sizes) < 4 * sum(entries for _, entries in sizes)

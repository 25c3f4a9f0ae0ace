import datetime

import numpy as np
import pyarrow as pa
import pytest

from transforms.recommend import rerank
from transforms.recommend.rerank import Preferences
from transforms.recommend.tastes import MAX_TASTES, Tastes, likeness_vectors
from transforms.search.catalog import Tile
from transforms.search.top_k import Ranked, rank_by_order
from transforms.tables import schemas

NOW = datetime.datetime(2024, 6, 1, tzinfo=datetime.UTC)
CONTENT = (slice(1, 3), slice(3, 6))
NUM_POSTS, WIDTH = 90, 6


def make_ranked(seed: int = 0, sizes: tuple[int, ...] = (40, 0, 7, 1, 40)) -> Ranked:
    """Pools of random posts with some ties, some posts without content and some without a time."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((NUM_POSTS, WIDTH)).astype(np.float32)
    vectors[::9, 1:] = 0
    days = rng.integers(0, 60, NUM_POSTS)
    times = [None if i % 10 == 3 else NOW - datetime.timedelta(days=int(days[i])) for i in range(NUM_POSTS)]
    ids = pa.array([f"p{i:03d}" for i in range(NUM_POSTS)])
    posts = Tile(ids, pa.nulls(NUM_POSTS, pa.string()), pa.array(times, schemas.TIMESTAMP), vectors)
    query = np.repeat(np.arange(len(sizes)), sizes)
    nothing = np.empty(0, np.int64)
    item = np.concatenate([nothing, *(np.sort(rng.choice(NUM_POSTS, size, replace=False)) for size in sizes)])
    score = np.concatenate([nothing, *(np.sort(rng.integers(0, 30, size))[::-1] for size in sizes)]).astype(np.float32)
    return Ranked(query, rank_by_order(query), score, item, posts)


def obvious(ranked: Ranked, query: int, k: int, wanted: Preferences, tastes: Tastes | None) -> list[int]:
    """The list of a query, post by post."""
    entries = np.flatnonzero(ranked.query == query)
    scores = ranked.score[entries].astype(float)
    content = likeness_vectors(ranked.items.vectors[ranked.item[entries]], CONTENT).astype(float)
    known = content.any(axis=1)
    cosine = content @ content.T
    pairs = [cosine[i, j] for i in np.flatnonzero(known) for j in np.flatnonzero(known) if i != j]
    value = {}
    for i, score in enumerate(scores):
        value[i] = (score - scores.min()) / (scores.max() - scores.min()) if scores.max() > scores.min() else 1.0
        if wanted.half_life_days:
            created = ranked.items.created_at[int(ranked.item[entries[i]])].as_py()
            value[i] *= 0 if created is None else 0.5 ** ((NOW - created).days / wanted.half_life_days)
    taste = [
        None if tastes is None or (content[i] @ tastes.medoid[query].T).max() <= 0
        else int((content[i] @ tastes.medoid[query].T).argmax()) for i in range(len(entries))
    ]  # fmt: skip
    taken: list[int] = []

    def worth(i: int) -> float:
        like = [cosine[i, j] if known[i] and known[j] else np.mean(pairs) for j in taken]
        return float(np.float32((1 - wanted.diversity) * value[i] - wanted.diversity * max([0.0, *like])))

    while len(taken) < min(k, len(entries)):
        left = [i for i in value if i not in taken]
        if tastes is not None:
            due = wanted.taste_share * tastes.share[query] * (len(taken) + 1) + 1e-9
            short = [t for t in range(MAX_TASTES) if sum(taste[i] == t for i in taken) < np.floor(due[t])]
            left = [i for i in left if taste[i] in short] or left
        taken.append(max(left, key=lambda i: (worth(i), value[i], -i)))
    return [int(ranked.item[entries[i]]) for i in taken]


def make_tastes(num_queries: int) -> Tastes:
    rng = np.random.default_rng(5)
    medoid = likeness_vectors(rng.standard_normal((num_queries, MAX_TASTES, WIDTH)).astype(np.float32), CONTENT)
    share = rng.dirichlet(np.ones(MAX_TASTES), num_queries)
    share[-1] = 0
    return Tastes(medoid, share)


@pytest.mark.parametrize("held_bytes", [1, 1 << 30])
@pytest.mark.parametrize(
    "wanted",
    [
        Preferences(half_life_days=9, now=NOW, content=CONTENT),
        Preferences(diversity=0.3, content=CONTENT),
        Preferences(diversity=1, content=CONTENT),
        Preferences(taste_share=1, content=CONTENT),
        Preferences(diversity=0.5, half_life_days=30, now=NOW, taste_share=0.7, content=CONTENT),
    ],
)
def test_equals_the_obvious_computation(monkeypatch: pytest.MonkeyPatch, wanted: Preferences, held_bytes: int) -> None:
    monkeypatch.setattr(rerank, "_HELD_BYTES", held_bytes)
    ranked = make_ranked()
    tastes = make_tastes(5) if wanted.taste_share else None
    found = rerank.rerank(ranked, 10, wanted, tastes)
    for query in range(5):
        mine = found.query == query
        assert found.item[mine].tolist() == obvious(ranked, query, 10, wanted, tastes), query
        assert found.rank[mine].tolist() == list(range(1, mine.sum() + 1))
    scores = dict(zip(zip(ranked.query, ranked.item, strict=True), ranked.score, strict=True))
    assert [scores[key] for key in zip(found.query, found.item, strict=True)] == found.score.tolist()


def test_nothing_wanted_changes_nothing() -> None:
    ranked = make_ranked()
    assert rerank.rerank(ranked, 10, rerank.SCORES_ALONE) is ranked
    assert rerank.SCORES_ALONE.pool(10) == 10


def test_the_pool_is_bounded() -> None:
    wanted = Preferences(diversity=0.1)
    assert [wanted.pool(k) for k in (1, 50, 400, 5000)] == [4, 200, 1000, 5000]


def test_beyond_the_reach_of_diversity_the_order_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank, "MAX_POOL", 15)
    ranked = make_ranked(sizes=(40,))
    found = rerank.rerank(ranked, 40, Preferences(diversity=0.9, content=CONTENT))
    assert sorted(found.item[:15]) == sorted(ranked.item[:15]) and found.item[:15].tolist() != ranked.item[:15].tolist()
    assert found.item[15:].tolist() == ranked.item[15:].tolist()


def test_copies_are_not_shown_side_by_side() -> None:
    vectors = np.array([[0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    posts = Tile(pa.array(list("abcd")), pa.nulls(4, pa.string()), pa.nulls(4, schemas.TIMESTAMP), vectors)
    score = np.array([4, 3.9, 3.8, 2], np.float32)
    ranked = Ranked(np.zeros(4, np.int64), np.arange(1, 5, dtype=np.int32), score, np.arange(4), posts)
    found = rerank.rerank(ranked, 3, Preferences(diversity=0.6, content=(slice(1, 3),)))
    assert found.post_id.to_pylist() == ["a", "d", "b"]


def test_no_queries_give_no_lists() -> None:
    ranked = make_ranked(sizes=())
    assert len(rerank.rerank(ranked, 3, Preferences(diversity=0.5, content=CONTENT)).query) == 0


@pytest.mark.parametrize("wrong", [{"diversity": 1.1}, {"taste_share": -0.1}, {"half_life_days": 3.0}])
def test_refuses_what_makes_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        Preferences(**wrong)  # type: ignore[arg-type]

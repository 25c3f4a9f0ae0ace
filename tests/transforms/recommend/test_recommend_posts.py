import dataclasses
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from transforms.embed.embedding_space import Space
from transforms.embed.parameters import Content, Decoded, Mix, Own, Tuning
from transforms.recommend import recommend_posts, rerank, similar_posts, tastes
from transforms.recommend.recommend_posts import RecommendConfig
from transforms.search import catalog, top_k
from transforms.search import running_top_k as best
from transforms.search.eligibility import Eligibility
from transforms.tables import blocks, parquet, schemas

NewPipeline = Callable[[], beam.Pipeline]
Row = dict[str, Any]
WIDTH, WIDTHS = 6, (2, 1, 2)
PROFILE = WIDTH - 1
HALF_LIFE = 0.4
NUM_POSTS, NUM_USERS = 260, 41
NOW = datetime.datetime(2024, 6, 1, tzinfo=datetime.UTC)


MODALITIES = (("text", 0, 2), ("collaborative", 2, 2))
SPACE = Space(
    MODALITIES,
    np.ones(2),
    9,
    Tuning(own=Own(rank=2), decoded=Decoded(k=1), content=Content("text", b=0.7), mix=Mix(cold_weight=0.5)),
)
COVARIANCES = np.array([[2.0, 0.3], [0.3, 0.5]]), np.array([[0.2]]), np.array([[1.0, -0.4], [-0.4, 3.0]])


def profile_of_a_user_with(profile: np.ndarray) -> np.ndarray:
    """The embedding of a user in SPACE whose profile this is, by the formula: [WIDTH] float32."""
    own, decoded, content = profile[:2], profile[2:3], profile[3:]
    made = [
        block / np.sqrt(block @ covariance @ block)
        for block, covariance in zip((own, decoded, content), COVARIANCES, strict=True)
    ]
    return np.array([*made[0], *made[1], *(made[2] * 0.7 * 0.5), 0.0], np.float32).astype(float)


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    values = rng.standard_normal(shape)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def counted(row: Row, half_life: float | None = HALF_LIFE) -> float:
    """What a row of history counts in a profile."""
    fade = 1.0 if half_life is None else 0.5 ** (row["recency"] / half_life)
    return row["strength"] * fade if row["weight"] > 0 else row["weight"]


class World:
    """Random posts (some twice, some sensitive, reposts, replies, without vectors), users and histories.

    A user's embedding is the sum of what the liked posts and the interests add, scaled block by block, and a 1.
    """

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        vectors, profiles = unit(rng, NUM_POSTS, WIDTH), unit(rng, NUM_POSTS, PROFILE)
        profiles += vectors[:, :PROFILE]  # what is liked is like what is got
        for values in (vectors, profiles):
            values[100:120] = values[0:20]
            values[120:128] = 0
        vectors[125:128, -1] = -0.01  # nothing known but that it is put back
        self.posts: list[Row] = [
            {
                "post_id": f"p{i:03d}",
                "embedding": vectors[i].tolist(),
                "profile": profiles[i].tolist(),
                "author_id": None if i % 11 == 0 else f"u{rng.integers(30):02d}",
                "created_at": None if i % 17 == 0 else NOW - datetime.timedelta(days=int(rng.integers(100))),
                "lang": (None, "en", "de")[i % 3],
                "sensitive": bool(rng.random() < 0.1),
                "is_repost": bool(rng.random() < 0.1),
                "is_reply": bool(rng.random() < 0.2),
                "popularity": float(rng.integers(0, 12)),
            }
            for i in rng.permutation(NUM_POSTS)
        ]
        self.history: list[Row] = [
            {
                "user_id": f"u{u:02d}",
                "post_id": f"p{p:03d}",
                "weight": float(np.float32(rng.uniform(-0.3, 1))) if u % 4 in (0, 2) else -1.0,
                "strength": float(np.float32(rng.uniform(0.1, 2))),
                "recency": float(np.float32(rng.uniform(0, 1))),
                "num_interactions": 1,
                "created_at": NOW,
            }
            for u in range(NUM_USERS)
            for p in rng.choice(NUM_POSTS + 5, 0 if u % 4 == 1 else 15, replace=False)
        ]
        self.stated: list[Row] = [
            {"user_id": "u02", "blocked_authors": ["u05", "u06", "nobody"]},
            {"user_id": "u03", "lang": "DE-at", "blocked_authors": ["u07"]},
            {"user_id": "u04", "blocked_authors": []},
            {"user_id": "u07", "lang": "en"},
            {"user_id": "u11", "lang": "fi"},
            {"user_id": "stranger", "blocked_authors": ["u01"]},
        ]
        sources = ["history", "interests", "both", "none"]
        self.users: list[Row] = []
        self.scales: list[Row] = []
        for i in range(NUM_USERS):
            source, scales = sources[i % 4], rng.uniform(0.2, 2, 3).astype(np.float32)
            profile = self.liked_profile(f"u{i:02d}") if source in ("history", "both") else np.zeros(PROFILE)
            if source in ("interests", "both"):
                profile = profile + 5 * unit(rng, PROFILE)
            vector = [*(profile * np.repeat(scales, WIDTHS)).tolist(), float(source != "none")]
            ids = {"user_id": f"u{i:02d}"}
            self.users.append(ids | {"embedding": vector, "num_interactions": 5, "source": source})
            self.scales.append(ids | {"scales": scales.tolist()})

    def liked_profile(self, user: str) -> np.ndarray:
        posts = {post["post_id"]: np.array(post["profile"]) for post in self.posts}
        nothing = np.zeros(PROFILE)
        rows = (row for row in self.history if row["user_id"] == user and row["weight"] > 0)
        return sum((counted(row) * posts.get(row["post_id"], nothing) for row in rows), nothing)

    def eligible(self, user: Row, post: Row, config: RecommendConfig) -> bool:
        rules = config.eligibility
        weight = {(row["user_id"], row["post_id"]): row["weight"] for row in self.history}.get(
            (user["user_id"], post["post_id"])
        )
        blocked: list[str] = next(
            (row.get("blocked_authors", []) for row in self.stated if row["user_id"] == user["user_id"]), []
        )
        cut = rules.created_after
        return not (
            (post["sensitive"] and not rules.include_sensitive)
            or post["is_repost"]
            or (post["is_reply"] and rules.exclude_replies)
            or (cut is not None and (post["created_at"] is None or post["created_at"] < cut))
            or (not any(post["embedding"]) and user["source"] != "none")
            or (weight is not None and (weight < 0 or not config.include_seen))
            or post["author_id"] == user["user_id"]
            or (post["author_id"] in blocked)
        )

    def expected(self, user: Row, config: RecommendConfig) -> list[tuple[str, float]]:
        def score(post: Row) -> float:
            if user["source"] == "none":
                return float(np.float32(post["popularity"]))
            exact = np.array(user["embedding"], np.float32).astype(float) * np.array(post["embedding"], np.float32)
            return float(np.float32(exact.sum()))

        lang = next((row.get("lang", "") for row in self.stated if row["user_id"] == user["user_id"]), "")[:2].lower()

        def comes_last(post: Row) -> bool:
            can_read = not lang or post["lang"] in (None, lang)
            return user["source"] == "none" and not (can_read and post["popularity"] > 0)

        scored = [(comes_last(post), -score(post), post["post_id"], post["author_id"]) for post in self.posts
                  if self.eligible(user, post, config)]  # fmt: skip
        taken: list[tuple[str, float]] = []
        used: dict[str, int] = {}
        for _, value, post_id, author in sorted(scored, key=lambda entry: entry[:3]):
            if config.max_per_author and author is not None and used.get(author, 0) >= config.max_per_author:
                continue
            used[author] = used.get(author, 0) + 1
            taken.append((post_id, -value))
        return taken[: config.k]

    def write_candidates(self, directory: Path, num_files: int) -> str:
        for i in range(num_files):
            block = pa.RecordBatch.from_pylist(self.posts[i::num_files], schema=schemas.candidates(WIDTH, PROFILE))
            parquet.write_file(str(directory / f"part-{i:05d}.parquet"), block, block.schema)
        return str(directory)

    def run(
        self,
        new_pipeline: NewPipeline,
        directory: Path,
        config: RecommendConfig,
        num_parts: int = 3,
        num_files: int = 3,
    ) -> list[Row]:
        config = dataclasses.replace(config, half_lives=(HALF_LIFE, HALF_LIFE), block_widths=WIDTHS)
        given = {
            "embeddings": pa.RecordBatch.from_pylist(self.users, schema=schemas.user_embeddings(WIDTH)),
            "scales": pa.RecordBatch.from_pylist(self.scales[::-1], schema=schemas.user_scales(3)),
            "history": pa.RecordBatch.from_pylist(self.history, schema=schemas.HISTORY),
            "users": pa.RecordBatch.from_pylist(self.stated, schema=schemas.USERS),
        }
        candidates = self.write_candidates(directory / "candidates", num_files)
        with new_pipeline() as pipeline:
            _ = (
                {name: pipeline | name >> beam.Create(list(blocks.split_rows(b, 9))) for name, b in given.items()}
                | recommend_posts.Recommend(candidates, WIDTH, num_parts, config)
                | parquet.WriteParts(str(directory / "out"), schemas.RECOMMENDATIONS)
            )
        parts = [parquet.read_file(path).to_pylist() for path in parquet.list_files(str(directory / "out"))]
        for part in parts:
            keys = [(row["user_id"], row["rank"]) for row in part]
            assert keys == sorted(set(keys))
        return sorted((row for part in parts for row in part), key=lambda row: (row["user_id"], row["rank"]))


CONFIGS = {
    "defaults": RecommendConfig(k=10),
    "everything": RecommendConfig(k=1000),
    "capped": RecommendConfig(k=12, max_per_author=1),
    "capped_all": RecommendConfig(k=500, max_per_author=2),
    "seen": RecommendConfig(k=10, include_seen=True),
    "strict": RecommendConfig(
        k=7, eligibility=Eligibility(exclude_replies=True, created_after=NOW - datetime.timedelta(days=30))
    ),
    "sensitive": RecommendConfig(k=20, eligibility=Eligibility(include_sensitive=True), num_threads=2),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_lists_equal_the_obvious_computation(new_pipeline: NewPipeline, tmp_path: Path, name: str) -> None:
    world, config = World(), CONFIGS[name]
    rows = world.run(new_pipeline, tmp_path, config)
    for user in world.users:
        mine = [row for row in rows if row["user_id"] == user["user_id"]]
        assert [row["rank"] for row in mine] == list(range(1, len(mine) + 1))
        assert [(row["post_id"], row["score"]) for row in mine] == world.expected(user, config), user["user_id"]
        allowed = {"none": {"popular"}, "both": {"history", "interests"}}.get(user["source"], {user["source"]})
        assert {row["reason"] for row in mine} <= allowed
        assert all(row["because_post_id"] is None for row in mine if row["reason"] != "history")


def test_preferences_change_ranks_and_keep_scores_and_caps(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    world = World()
    wanted = rerank.Preferences(
        diversity=0.4, half_life_days=30, now=NOW, taste_share=0.5, content=(slice(2, 3), slice(3, 5))
    )
    plain = RecommendConfig(k=5, max_per_author=1)
    rows = world.run(new_pipeline, tmp_path, dataclasses.replace(plain, preferences=wanted))
    moved = 0
    for user in world.users:
        mine = [row for row in rows if row["user_id"] == user["user_id"]]
        got = [(row["post_id"], row["score"]) for row in mine]
        assert [row["rank"] for row in mine] == [1, 2, 3, 4, 5]
        if user["source"] != "none":
            assert set(got) <= set(world.expected(user, dataclasses.replace(plain, k=20)))
        moved += got != world.expected(user, plain)
        authors = [post["author_id"] for post in world.posts if post["post_id"] in dict(got) and post["author_id"]]
        assert len(authors) == len(set(authors))
    assert moved > NUM_USERS / 2


def test_reasons_are_the_exact_parts_of_the_score(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    world = World()
    rows = world.run(new_pipeline, tmp_path, RecommendConfig(k=30, include_seen=True))
    posts = {post["post_id"]: post for post in world.posts}
    users = {user["user_id"]: user for user in world.users}
    scales = {row["user_id"]: np.repeat(np.array(row["scales"]), WIDTHS) for row in world.scales}
    found, by_interests = 0, 0
    for row in (row for row in rows if row["reason"] != "popular"):
        user, item = users[row["user_id"]], np.array(posts[row["post_id"]]["embedding"])
        spoken = {
            entry["post_id"]: counted(entry)
            * float(scales[row["user_id"]] * posts[entry["post_id"]]["profile"] @ item[:PROFILE])
            for entry in world.history
            if entry["user_id"] == row["user_id"] and entry["weight"] > 0 and entry["post_id"] in posts
        }  # fmt: skip
        profile_score = row["score"] - item[PROFILE]
        if user["source"] == "history":
            assert sum(spoken.values()) == pytest.approx(profile_score, rel=1e-4, abs=1e-4)
        if user["source"] == "both" and abs(2 * sum(spoken.values()) - profile_score) > 1e-4:
            assert row["reason"] == ("history" if 2 * sum(spoken.values()) > profile_score else "interests")
        if row["reason"] == "interests":
            by_interests += user["source"] == "both"
            continue
        spoken.pop(row["post_id"], None)
        loudest = max(spoken.values(), default=0.0)
        if loudest <= 0:
            assert row["because_post_id"] is None
        else:
            assert spoken[row["because_post_id"]] == pytest.approx(loudest, rel=1e-5)
            found += 1
    assert found > 100 and by_interests > 50


def test_of_a_long_history_the_strongest_posts_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.recommend.reasons.MAX_LIKED", 2)
    axes = np.eye(PROFILE, dtype=np.float32)
    given = [("loud", 1.0, 0.0, 0), ("late", 1.0, 0.4, 0), ("weak", 0.2, 0.0, 2), ("hated", -9.0, 0.0, 1)]
    history = [
        {"user_id": "u", "post_id": name, "weight": weight, "strength": weight * 2, "recency": recency}
        | {"num_interactions": 1}
        for name, weight, recency, _ in given
    ]
    posts = [{"post_id": name, "embedding": [*axes[0], 0.0], "profile": axes[place]} for name, _, _, place in given]
    posts.append({"post_id": "new", "embedding": [0.1, 0.0, 5.0, 0.0, 0.0, 0.0], "profile": axes[4]})
    made = {strict: reasons_of(history, posts, "history", strict) for strict in (HALF_LIFE, None, 0.01)}
    # "weak" has the largest part of the score, but only two are asked: with a short half-life it is one of them.
    assert [made[half_life]["new"][1] for half_life in (HALF_LIFE, None, 0.01)] == ["loud", "late", "weak"]


@pytest.mark.parametrize(("num_parts", "num_files", "tile_rows", "query_rows", "user_rows"), [
    (1, 1, 4096, 512, 8192), (5, 7, 16, 4, 3), (2, 3, 50, 512, 7),
])  # fmt: skip
@pytest.mark.parametrize(("cap", "preferences"), [
    (None, rerank.SCORES_ALONE), (2, rerank.SCORES_ALONE),
    (2, rerank.Preferences(0.5, 20.0, NOW, 1.0, (slice(2, 3), slice(3, 5)))),
])  # fmt: skip
def test_tables_do_not_depend_on_parts_files_and_tiles(
    new_pipeline: NewPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_parts: int,
    num_files: int,
    tile_rows: int,
    query_rows: int,
    user_rows: int,
    cap: int | None,
    preferences: rerank.Preferences,
) -> None:
    config = RecommendConfig(k=9, max_per_author=cap, preferences=preferences)
    reference = World().run(new_pipeline, tmp_path / "a", config)
    monkeypatch.setattr(top_k, "TILE_ROWS", tile_rows)
    monkeypatch.setattr(best, "_QUERY_ROWS", query_rows)
    monkeypatch.setattr(recommend_posts, "USER_ROWS", user_rows)
    monkeypatch.setattr(rerank, "_HELD_BYTES", user_rows * 100_000)
    monkeypatch.setattr(tastes, "_USERS_AT_ONCE", query_rows)
    monkeypatch.setattr(recommend_posts, "READ_ROWS", tile_rows * 2)
    monkeypatch.setattr(catalog, "CACHED_BYTES", 0 if num_files > 1 else 1 << 20)
    assert World().run(new_pipeline, tmp_path / "b", config, num_parts, num_files) == reference


def test_a_checkerboard_world_gives_everybody_the_own_color(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    world = World()
    axes = np.eye(WIDTH, dtype=np.float32)[:2]
    for i, post in enumerate(world.posts):
        post |= {
            "embedding": axes[i % 2].tolist(),
            "profile": axes[i % 2, :PROFILE].tolist(),
            "sensitive": False,
            "is_repost": False,
            "author_id": None,
        }
    for i, user in enumerate(world.users):
        user |= {"embedding": axes[i % 2].tolist(), "source": "interests"}
    world.history = []
    color = {post["post_id"]: i % 2 for i, post in enumerate(world.posts)}
    rows = world.run(new_pipeline, tmp_path, RecommendConfig(k=NUM_POSTS // 2))
    assert len(rows) == NUM_USERS * NUM_POSTS // 2
    assert all(color[row["post_id"]] == int(row["user_id"][1:]) % 2 for row in rows)
    assert {row["score"] for row in rows} == {1.0}


def test_nobody_and_those_who_have_seen_everything_get_nothing(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    world = World()
    world.history = [
        {"user_id": user["user_id"], "post_id": post["post_id"], "weight": 1.0, "strength": 1.0, "recency": 0.0}
        | {"num_interactions": 1}
        for user in world.users[:4]
        for post in world.posts
    ]
    world.users, world.scales = world.users[:4], world.scales[:4]
    assert world.run(new_pipeline, tmp_path / "seen", RecommendConfig()) == []
    world.users, world.scales, world.stated = [], [], []
    assert world.run(new_pipeline, tmp_path / "nobody", RecommendConfig()) == []


def reasons_of(
    history: list[Row],
    posts: list[Row],
    source: str,
    half_life: float | None,
    interests: np.ndarray | float = 0.0,
    preferences: rerank.Preferences = rerank.SCORES_ALONE,
) -> dict[str, tuple[str, str | None]]:
    """(reason, because) by post, in the order of the list, of a user with this history and interests."""
    profiles = {post["post_id"]: np.array(post["profile"]) for post in posts}
    profile = interests + sum(
        counted(row, half_life) * profiles[row["post_id"]] for row in history if row["weight"] > 0
    )
    ids = {"user_id": "u"}
    falses = {"sensitive": False, "is_repost": False, "is_reply": False, "popularity": 0.0}
    user = ids | {"embedding": [*np.asarray(profile).tolist(), 1.0], "num_interactions": 1, "source": source}
    block = pa.RecordBatch.from_pylist([post | falses for post in posts], schema=schemas.candidates(WIDTH, PROFILE))

    class Memory(catalog.Catalog):
        def read(self, tile_rows: int, without: Any = ()) -> Any:
            return iter([block])

    found = recommend_posts.recommend(
        pa.RecordBatch.from_pylist([user], schema=schemas.user_embeddings(WIDTH)),
        pa.RecordBatch.from_pylist([ids | {"scales": [1.0, 1.0, 1.0]}], schema=schemas.user_scales(3)),
        pa.RecordBatch.from_pylist(history, schema=schemas.HISTORY),
        schemas.empty(recommend_posts.STATED),
        Memory(""),
        RecommendConfig(k=5, half_lives=(half_life, half_life), block_widths=WIDTHS, preferences=preferences),
    ).to_pylist()
    return {row["post_id"]: (row["reason"], row["because_post_id"]) for row in found}


@pytest.mark.parametrize(("taste_share", "expected"), [(0.0, 0), (0.5, 0), (0.8, 1), (1.0, 1)])
def test_the_smaller_taste_gets_its_share(taste_share: float, expected: int) -> None:
    """Three of four liked posts are of one kind, and so would be all five of the list."""
    axes = np.eye(PROFILE, dtype=np.float32)
    liked = {"main1": axes[2], "main2": axes[2], "main3": axes[2], "lesser": axes[4]}
    found = {f"m{i}": axes[2] for i in range(8)} | {f"z{i}": axes[4] for i in range(4)}
    posts = [{"post_id": name, "embedding": [*v, 0.0], "profile": v} for name, v in (liked | found).items()]
    history = [
        {"user_id": "u", "post_id": name, "weight": 1.0, "strength": 1.0, "recency": 0, "num_interactions": 1}
        for name in liked
    ]
    wanted = rerank.Preferences(taste_share=taste_share, content=(slice(2, 3), slice(3, 5)))
    got = reasons_of(history, posts, "history", None, preferences=wanted)
    assert len(got) == 5
    assert [got[post][1] for post in got if post.startswith("z")] == ["lesser"] * expected


@pytest.mark.parametrize("put_back", [0.0, -5.0])
def test_both_is_told_apart_by_the_larger_part(put_back: float) -> None:
    axes = np.eye(PROFILE, dtype=np.float32)
    vectors = {"liked": axes[0], "other": axes[1], "near_liked": 0.8 * axes[0] + 0.6 * axes[1]}
    posts = [{"post_id": name, "embedding": [*v, put_back], "profile": v} for name, v in vectors.items()]
    history = [
        {"user_id": "u", "post_id": "liked", "weight": 1.0, "strength": 1.0, "recency": 0, "num_interactions": 1}
    ]
    assert reasons_of(history, posts, "both", None, axes[1]) == {
        "near_liked": ("history", "liked"),
        "other": ("interests", None),
    }


@pytest.mark.parametrize(("num_files", "tile_rows"), [(1, 4096), (4, 30)])
def test_similar_posts_equal_the_obvious_computation(
    new_pipeline: NewPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_files: int, tile_rows: int
) -> None:
    monkeypatch.setattr(top_k, "TILE_ROWS", tile_rows)
    world = World()
    candidates = world.write_candidates(tmp_path / "candidates", num_files)
    with new_pipeline() as pipeline:
        _ = (
            pipeline
            | parquet.ReadParts(candidates)
            | similar_posts.FindSimilar(candidates, SPACE, COVARIANCES, 5)
            | parquet.WriteParts(str(tmp_path / "out"), schemas.SIMILAR_POSTS)
        )
    rows = [row for block in parquet.read_blocks(str(tmp_path / "out"), 10_000) for row in block.to_pylist()]
    eligible = {
        post["post_id"]: (np.array(post["profile"]), np.array(post["embedding"]))
        for post in world.posts
        if not post["sensitive"] and not post["is_repost"] and any(post["embedding"])
    }
    expected = []
    for post_id, (profile, _) in sorted(eligible.items()):
        if any(profile):
            query = profile_of_a_user_with(profile)
            scored = [(n, float(np.float32((query * item).sum()))) for n, (_, item) in eligible.items() if n != post_id]
            best = sorted(scored, key=lambda entry: (-entry[1], entry[0]))[:5]
            expected += [(post_id, rank, neighbor, score) for rank, (neighbor, score) in enumerate(best, 1)]
    found = sorted((row["post_id"], row["rank"], row["neighbor_id"], row["score"]) for row in rows)
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    np.testing.assert_allclose([row[3] for row in found], [row[3] for row in expected], rtol=1e-5, atol=1e-6)
    put_back = {f"p{i}" for i in range(125, 128)} & eligible.keys()
    assert put_back and not put_back & {row[0] for row in found}


def test_similar_posts_are_what_somebody_gets_who_has_just_this_one(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    world = World()
    asked = [post for post in world.posts if any(post["profile"])][:NUM_USERS]
    world.users, world.scales, world.stated = [], [], []
    world.history = [
        {"user_id": post["post_id"], "post_id": post["post_id"], "weight": 1.0, "strength": 2.0, "recency": 0.0}
        | {"num_interactions": 1}
        for post in asked
    ]
    for post in asked:
        user, vector = {"user_id": post["post_id"]}, profile_of_a_user_with(2 * np.array(post["profile"]))
        world.users.append(user | {"embedding": vector.tolist(), "num_interactions": 1, "source": "history"})
        world.scales.append(user | {"scales": [1.0, 1.0, 1.0]})
    lists = world.run(new_pipeline, tmp_path, RecommendConfig(k=20))
    whole = catalog.Catalog(str(tmp_path / "candidates"))
    block = pa.RecordBatch.from_pylist(asked, schema=schemas.candidates(WIDTH, PROFILE))
    found = similar_posts.similar_posts(block, whole, similar_posts.FindSimilar("", SPACE, COVARIANCES)).to_pylist()
    got = sorted((row["user_id"], row["rank"], row["post_id"]) for row in lists)
    assert got == sorted((row["post_id"], row["rank"], row["neighbor_id"]) for row in found)


@pytest.mark.parametrize(("made", "name"), [
    (lambda: RecommendConfig(k=0), "k"),
    (lambda: RecommendConfig(max_per_author=0), "max_per_author"),
    (lambda: similar_posts.FindSimilar("x", SPACE, COVARIANCES, 0), "similar_k"),
    (lambda: recommend_posts.Recommend("x", 3, 0), "num_parts"),
])  # fmt: skip
def test_limits_are_checked(made: Callable[[], object], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        made()

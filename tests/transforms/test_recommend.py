import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from transforms import blocks, recommend, schemas, similar, tables, tiles, topk
from transforms.recommend import RecommendConfig
from transforms.tiles import Eligibility

NewPipeline = Callable[[], beam.Pipeline]
Row = dict[str, Any]
WIDTH = 6
NUM_POSTS, NUM_USERS = 260, 41
NOW = datetime.datetime(2024, 6, 1, tzinfo=datetime.UTC)


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    values = rng.standard_normal(shape)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


class World:
    """Random posts (some twice, some sensitive, reposts, replies, without vectors), users and histories."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        vectors = unit(rng, NUM_POSTS, WIDTH)
        vectors[100:120] = vectors[0:20]
        vectors[120:125] = 0
        self.posts: list[Row] = [
            {
                "post_id": f"p{i:03d}",
                "embedding": vectors[i].tolist(),
                "author_id": None if i % 11 == 0 else f"u{rng.integers(30):02d}",
                "created_at": None if i % 17 == 0 else NOW - datetime.timedelta(days=int(rng.integers(100))),
                "sensitive": bool(rng.random() < 0.1),
                "is_repost": bool(rng.random() < 0.1),
                "is_reply": bool(rng.random() < 0.2),
                "popularity": float(rng.integers(0, 12)),
            }
            for i in rng.permutation(NUM_POSTS)
        ]
        sources = ["history", "interests", "both", "none"]
        self.users: list[Row] = []
        for i in range(NUM_USERS):
            source = sources[i % 4]
            vector = np.zeros(WIDTH) if source == "none" else unit(rng, WIDTH)
            self.users.append(
                {"user_id": f"u{i:02d}", "embedding": vector.tolist(), "num_interactions": 5, "source": source}
            )
        self.history: list[Row] = [
            {
                "user_id": f"u{u:02d}",
                "post_id": f"p{p:03d}",
                "weight": float(np.float32(rng.uniform(-0.3, 1))) if u % 4 in (0, 2) else -1.0,
                "num_interactions": 1,
                "created_at": NOW,
            }
            for u in range(NUM_USERS)
            for p in rng.choice(NUM_POSTS + 5, 0 if u % 4 == 1 else 15, replace=False)
        ]
        self.blocked: list[Row] = [
            {"user_id": "u02", "blocked_authors": ["u05", "u06", "nobody"]},
            {"user_id": "u03", "blocked_authors": ["u07"]},
            {"user_id": "u04", "blocked_authors": []},
            {"user_id": "stranger", "blocked_authors": ["u01"]},
        ]

    def eligible(self, user: Row, post: Row, config: RecommendConfig) -> bool:
        rules = config.eligibility
        weight = {(row["user_id"], row["post_id"]): row["weight"] for row in self.history}.get(
            (user["user_id"], post["post_id"])
        )
        blocked: list[str] = next(
            (row["blocked_authors"] for row in self.blocked if row["user_id"] == user["user_id"]), []
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

        scored = [(post["post_id"], score(post), post["author_id"]) for post in self.posts
                  if self.eligible(user, post, config)]  # fmt: skip
        taken: list[tuple[str, float]] = []
        used: dict[str, int] = {}
        for post_id, value, author in sorted(scored, key=lambda entry: (-entry[1], entry[0])):
            if config.max_per_author and author is not None and used.get(author, 0) >= config.max_per_author:
                continue
            used[author] = used.get(author, 0) + 1
            taken.append((post_id, value))
        return taken[: config.k]

    def write_candidates(self, directory: Path, num_files: int) -> str:
        for i in range(num_files):
            block = pa.RecordBatch.from_pylist(self.posts[i::num_files], schema=schemas.candidates(WIDTH))
            tables.write_file(str(directory / f"part-{i:05d}.parquet"), block, block.schema)
        return str(directory)

    def run(
        self,
        new_pipeline: NewPipeline,
        directory: Path,
        config: RecommendConfig,
        num_parts: int = 3,
        num_files: int = 3,
    ) -> list[Row]:
        given = {
            "embeddings": pa.RecordBatch.from_pylist(self.users, schema=schemas.user_embeddings(WIDTH)),
            "history": pa.RecordBatch.from_pylist(self.history, schema=schemas.HISTORY),
            "users": pa.RecordBatch.from_pylist(self.blocked, schema=schemas.USERS),
        }
        candidates = self.write_candidates(directory / "candidates", num_files)
        with new_pipeline() as pipeline:
            _ = (
                {name: pipeline | name >> beam.Create(list(blocks.split_rows(b, 9))) for name, b in given.items()}
                | recommend.Recommend(candidates, WIDTH, num_parts, config)
                | tables.WriteParts(str(directory / "out"), schemas.RECOMMENDATIONS)
            )
        parts = [tables.read_file(path).to_pylist() for path in tables.list_files(str(directory / "out"))]
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


def test_because_is_the_liked_post_with_the_largest_weighted_product(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    world = World()
    rows = world.run(new_pipeline, tmp_path, RecommendConfig(k=30, include_seen=True))
    vectors = {post["post_id"]: np.array(post["embedding"], np.float32).astype(float) for post in world.posts}
    found = 0
    for row in (row for row in rows if row["reason"] == "history"):
        spoken = {
            entry["post_id"]: float(np.float32(entry["weight"] * (vectors[entry["post_id"]] @ vectors[row["post_id"]])))
            for entry in world.history
            if entry["user_id"] == row["user_id"] and entry["weight"] > 0
            and entry["post_id"] in vectors and entry["post_id"] != row["post_id"]
        }  # fmt: skip
        loudest = max(spoken.values(), default=0.0)
        if loudest <= 0:
            assert row["because_post_id"] is None
        else:
            assert spoken[row["because_post_id"]] == pytest.approx(loudest, rel=1e-6)
            found += 1
    assert found > 100


@pytest.mark.parametrize(("num_parts", "num_files", "tile_rows", "query_rows", "user_rows"), [
    (1, 1, 4096, 512, 8192), (5, 7, 16, 4, 3), (2, 3, 50, 512, 7),
])  # fmt: skip
@pytest.mark.parametrize("cap", [None, 2])
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
) -> None:
    config = RecommendConfig(k=9, max_per_author=cap)
    reference = World().run(new_pipeline, tmp_path / "a", config)
    monkeypatch.setattr(topk, "TILE_ROWS", tile_rows)
    monkeypatch.setattr(topk, "_QUERY_ROWS", query_rows)
    monkeypatch.setattr(recommend, "USER_ROWS", user_rows)
    monkeypatch.setattr(recommend, "READ_ROWS", tile_rows * 2)
    monkeypatch.setattr(tiles, "CACHED_BYTES", 0 if num_files > 1 else 1 << 20)
    assert World().run(new_pipeline, tmp_path / "b", config, num_parts, num_files) == reference


def test_a_checkerboard_world_gives_everybody_the_own_colour(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    world = World()
    axes = np.eye(WIDTH, dtype=np.float32)[:2]
    for i, post in enumerate(world.posts):
        post |= {"embedding": axes[i % 2].tolist(), "sensitive": False, "is_repost": False, "author_id": None}
    for i, user in enumerate(world.users):
        user |= {"embedding": axes[i % 2].tolist(), "source": "interests"}
    world.history = []
    colour = {post["post_id"]: i % 2 for i, post in enumerate(world.posts)}
    rows = world.run(new_pipeline, tmp_path, RecommendConfig(k=NUM_POSTS // 2))
    assert len(rows) == NUM_USERS * NUM_POSTS // 2
    assert all(colour[row["post_id"]] == int(row["user_id"][1:]) % 2 for row in rows)
    assert {row["score"] for row in rows} == {1.0}


def test_nobody_and_those_who_have_seen_everything_get_nothing(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    world = World()
    world.history = [
        {"user_id": user["user_id"], "post_id": post["post_id"], "weight": 1.0, "num_interactions": 1}
        for user in world.users[:4]
        for post in world.posts
    ]
    world.users = world.users[:4]
    assert world.run(new_pipeline, tmp_path / "seen", RecommendConfig()) == []
    world.users, world.blocked = [], []
    assert world.run(new_pipeline, tmp_path / "nobody", RecommendConfig()) == []


def test_both_is_told_apart_by_the_larger_part() -> None:
    axes = np.eye(WIDTH, dtype=np.float32)
    user = np.float32(0.5**0.5) * (axes[0] + axes[1])
    users = pa.RecordBatch.from_pylist(
        [{"user_id": "u", "embedding": user.tolist(), "num_interactions": 1, "source": "both"}],
        schema=schemas.user_embeddings(WIDTH),
    )
    posts = [{"post_id": name, "embedding": axes[i].tolist()} for i, name in enumerate(["liked", "other"])]
    posts.append({"post_id": "near_liked", "embedding": (0.8 * axes[0] + 0.6 * axes[1]).tolist()})
    falses = {"sensitive": False, "is_repost": False, "is_reply": False, "popularity": 0.0}
    block = pa.RecordBatch.from_pylist([post | falses for post in posts], schema=schemas.candidates(WIDTH))
    history = pa.RecordBatch.from_pylist(
        [{"user_id": "u", "post_id": "liked", "weight": 1.0, "num_interactions": 1}], schema=schemas.HISTORY
    )

    class Memory(tiles.Catalogue):
        def read(self, tile_rows: int) -> Any:
            return iter([block])

    found = recommend.recommend(
        users, history, schemas.empty(recommend._BLOCKED), Memory(""), RecommendConfig(k=5)
    ).to_pylist()
    assert {row["post_id"]: (row["reason"], row["because_post_id"]) for row in found} == {
        "near_liked": ("history", "liked"),
        "other": ("interests", None),
    }


@pytest.mark.parametrize(("num_files", "tile_rows"), [(1, 4096), (4, 30)])
def test_similar_posts_equal_the_obvious_computation(
    new_pipeline: NewPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_files: int, tile_rows: int
) -> None:
    monkeypatch.setattr(topk, "TILE_ROWS", tile_rows)
    world = World()
    candidates = world.write_candidates(tmp_path / "candidates", num_files)
    with new_pipeline() as pipeline:
        _ = (
            pipeline
            | tables.ReadParts(candidates)
            | similar.FindSimilar(candidates, 5)
            | tables.WriteParts(str(tmp_path / "out"), schemas.SIMILAR_POSTS)
        )
    rows = [row for block in tables.read_blocks(str(tmp_path / "out"), 10_000) for row in block.to_pylist()]
    eligible = {
        post["post_id"]: np.array(post["embedding"], np.float32).astype(float)
        for post in world.posts
        if not post["sensitive"] and not post["is_repost"] and any(post["embedding"])
    }
    expected = [
        (post_id, rank, neighbor, score)
        for post_id, vector in sorted(eligible.items())
        for rank, (neighbor, score) in enumerate(
            sorted(
                ((n, float(np.float32((vector * v).sum()))) for n, v in eligible.items() if n != post_id),
                key=lambda entry: (-entry[1], entry[0]),
            )[:5],
            1,
        )
    ]
    assert sorted((row["post_id"], row["rank"], row["neighbor_id"], row["score"]) for row in rows) == expected


@pytest.mark.parametrize(("made", "name"), [
    (lambda: RecommendConfig(k=0), "k"),
    (lambda: RecommendConfig(max_per_author=0), "max_per_author"),
    (lambda: similar.FindSimilar("x", 0), "similar_k"),
    (lambda: recommend.Recommend("x", 3, 0), "num_parts"),
])  # fmt: skip
def test_limits_are_checked(made: Callable[[], object], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        made()

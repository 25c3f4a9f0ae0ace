from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from tests.transforms.embed.space_fixtures import make_space, own_space
from transforms.embed import user_embeddings
from transforms.embed.embedding_space import Covariances, Space
from transforms.embed.user_embeddings import MAX_DISLIKE, EncodeInterests
from transforms.tables import blocks, parquet, schemas

NewPipeline = Callable[[], beam.Pipeline]
Row = dict[str, Any]
AXES = {"x": [1.0, 0.0, 0.0], "y": [0.0, 1.0, 0.0], "z": [0.0, 0.0, 1.0], "blank": [0.0, 0.0, 0.0]}
DAY = 86_400_000_000
UNIT = np.eye(3), np.zeros((0, 0)), np.zeros((0, 0))


def interests_are_axes(users: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """The first interest names the axis, turned around after a minus."""
    firsts = [(words or ["blank"])[0] for words in users.column("interests").to_pylist()]
    vectors = np.array([np.multiply(AXES[word[-1]] if word != "blank" else 0.0, -1 if word[0] == "-" else 1)
                        * np.ones(3) for word in firsts], np.float32)  # fmt: skip
    return vectors, np.any(vectors != 0, axis=1)


def did(user: str, post: str, weight: float, strength: float | None = None, recency: float = 0.0, num: int = 1) -> Row:
    """A row of history; the strength is the weight where nothing else is said."""
    strength = max(weight, 0.0) if strength is None else strength
    counts = {"strength": strength, "recency": recency, "num_interactions": num}
    return {"user_id": user, "post_id": post, "weight": weight} | counts


def make_profiles(
    new_pipeline: NewPipeline,
    directory: Path,
    users: list[Row],
    history: list[Row],
    num_parts: int = 3,
    space: Space = own_space(3),  # noqa: B008 - frozen
    covariances: Covariances = UNIT,
    posts: dict[str, list[float]] = AXES,
    encode: EncodeInterests | None = interests_are_axes,
) -> dict[str, Row]:
    """The rows of users' embeddings by user, with their scales."""
    width = sum(space.widths)
    vectors = [{"post_id": name, "profile": vector} for name, vector in posts.items()]
    given = {
        "users": pa.RecordBatch.from_pylist(users, schema=schemas.USERS),
        "history": pa.RecordBatch.from_pylist(history, schema=schemas.HISTORY),
    }
    known = pa.RecordBatch.from_pylist(vectors, schema=schemas.post_profiles(width))
    for part, block in enumerate(blocks.split_rows(known, 2)):
        parquet.write_file(parquet.part_path(str(directory / "posts"), part), block, known.schema)
    with new_pipeline() as pipeline:
        made = {
            name: pipeline | name >> beam.Create(list(blocks.split_rows(block, 2))) for name, block in given.items()
        } | user_embeddings.MakeProfiles(
            str(directory / "posts"), space, covariances, num_parts, encode, interests_worth=5
        )
        _ = made.parts | parquet.WriteParts(str(directory / "users"), schemas.user_embeddings(space.width))
        _ = made.scales | "Scales" >> parquet.WriteParts(str(directory / "scales"), schemas.user_scales(3))
    rows = []
    for name in parquet.list_files(str(directory / "users")):
        part = parquet.read_file(name).to_pylist()
        assert [row["user_id"] for row in part] == sorted({row["user_id"] for row in part})
        scales = parquet.read_file(name.replace("/users/", "/scales/")).to_pylist()
        assert [row["user_id"] for row in scales] == [row["user_id"] for row in part]
        rows += [row | own for row, own in zip(part, scales, strict=True)]
    assert len({row["user_id"] for row in rows}) == len(rows)
    return {row["user_id"]: row for row in rows}


HISTORY = [
    did("likes_x", "x", 2.0, num=3),
    did("likes_x", "unknown", 9.0),
    did("mixed", "x", 0.1, 3.0),
    did("mixed", "y", 9.0, 4.0),
    did("old_y", "x", 1.0, recency=0.25),
    did("old_y", "y", 1.0, recency=0.75),
    did("turned", "x", 2.0),
    did("turned", "y", -0.5),
    did("hates_most", "x", 1.0),
    did("hates_most", "x2", -100.0),
    did("hates_most", "z", -100.0),
    did("rates_low", "x", 1.0),
    did("rates_low", "y", -0.5, 1.0),
    did("only_hates", "z", -1.0),
    did("hates_says_y", "z", -1.0, num=7),
    did("likes_x_says_y", "x", 1.0, num=5),
    did("likes_blank", "blank", 1.0),
    did("weak", "x", 1.0, 0.0),
    did("takes_back", "x", 2.0),
]
USERS: list[Row] = [
    {"user_id": "likes_x"},
    {"user_id": "hates_says_y", "interests": ["y"]},
    {"user_id": "likes_x_says_y", "interests": ["y"]},
    {"user_id": "silent"},
    {"user_id": "says_z", "interests": ["z"]},
    {"user_id": "takes_back", "interests": ["-x"]},
]


@pytest.mark.parametrize("num_parts", [1, 7])
def test_profiles_of_known_users(new_pipeline: NewPipeline, tmp_path: Path, num_parts: int) -> None:
    space = own_space(3, recency=0.5)
    found = make_profiles(new_pipeline, tmp_path, USERS, HISTORY, num_parts, space)
    # The sums of profile vectors; over the deviation of the scores they become vectors of length 1, as it is 1 along
    # each axis.
    expected: dict[str, tuple[list[float], int, str]] = {
        "likes_x": ([2, 0, 0], 4, "history"),
        "mixed": ([3, 4, 0], 2, "history"),
        "old_y": ([0.5**0.5, 0.5**1.5, 0], 2, "history"),
        "turned": ([2, -0.5, 0], 2, "history"),
        "hates_most": ([1, 0, -0.5], 3, "history"),
        "rates_low": ([1, -0.5, 0], 2, "history"),
        "only_hates": ([0, 0, 0], 1, "none"),
        "hates_says_y": ([0, 5, 0], 7, "interests"),
        "likes_x_says_y": ([1, 5, 0], 5, "both"),
        "likes_blank": ([0, 0, 0], 1, "none"),
        "weak": ([0, 0, 0], 1, "none"),
        "takes_back": ([-3, 0, 0], 1, "both"),
        "silent": ([0, 0, 0], 0, "none"),
        "says_z": ([0, 0, 5], 0, "interests"),
    }
    assert found.keys() == expected.keys()
    for user, (profile, num, source) in expected.items():
        row, length = found[user], float(np.linalg.norm(profile))
        assert (row["num_interactions"], row["source"]) == (num, source), user
        vector = [*np.divide(profile, length or 1), 0]  # nothing is known of a trend
        np.testing.assert_allclose(row["embedding"], vector, atol=1e-6, err_msg=user)
        np.testing.assert_allclose(row["scales"], [1 / length if length else 0, 0, 0], rtol=1e-6, err_msg=user)


def test_what_cancels_is_nothing_known(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    users = [{"user_id": "u", "interests": ["-x"]}]
    found = make_profiles(new_pipeline, tmp_path, users, [did("u", "x", 5.0)])
    assert (found["u"]["embedding"], found["u"]["source"]) == ([0, 0, 0, 0], "none")


class World:
    """Random posts, histories and interests in a space of all three blocks."""

    def __init__(self) -> None:
        rng = np.random.default_rng(8)
        self.space = make_space()
        self.posts = {f"p{i:02d}": rng.normal(size=9).astype(np.float32).tolist() for i in range(40)}
        halves = [rng.normal(size=(width, width)) for width in self.space.widths]
        own, decoded, content = (half @ half.T for half in halves)
        self.covariances = own, decoded, content
        self.said = rng.normal(size=(30, 9)).astype(np.float32)
        self.users: list[Row] = [{"user_id": f"u{i:02d}", "bio": str(i)} for i in range(30) if i % 3]
        self.history = [
            did(f"u{u:02d}", f"p{p:02d}", *rng.uniform([-0.5, 0, 0], [1, 2, 1]).astype(np.float32).tolist())
            | {"created_at": None if u % 5 == 4 else int(rng.uniform(0, 110) * DAY)}
            for u in range(0, 30, 2)
            for p in rng.choice(43, 12, replace=False)
        ]

    def encode(self, users: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        said = self.said[[int(bio) for bio in users.column("bio").to_pylist()]]
        present = np.array([int(bio) % 5 != 0 for bio in users.column("bio").to_pylist()], bool)
        return said * present[:, None], present

    def expected(self, number: int) -> np.ndarray:
        """The embedding of a user, by the formulas."""
        name = f"u{number:02d}"
        liked, disliked = np.zeros(9), np.zeros(9)
        for row in self.history:
            if row["user_id"] == name and row["post_id"] in self.posts:
                vector = np.array(self.posts[row["post_id"]])
                if row["weight"] > 0:
                    liked += row["strength"] * 0.5 ** (row["recency"] / 0.5) * vector
                else:
                    disliked += -row["weight"] * vector
        length = float(np.linalg.norm(disliked))
        profile = liked - disliked * min(1.0, MAX_DISLIKE * float(np.linalg.norm(liked)) / (length or 1))
        if number % 3 and number % 5:
            profile += 5 * self.said[number].astype(float)
        made: list[float] = []
        start = 0
        for covariance, factor in zip(self.covariances, (1, 1, 0.4 * 0.3), strict=True):
            block = profile[start : start + len(covariance)]
            deviation = np.sqrt(block @ covariance @ block)
            made += (block * factor / (deviation or 1)).tolist()
            start += len(covariance)
        times = [row["created_at"] for row in self.history if row["user_id"] == name]
        weight = 0.0
        if any(profile) and any(time is not None for time in times):
            away = max(100 - max(time for time in times if time is not None) / DAY, 0)
            weight = 1.5 * 0.5 ** ((away / 20) ** 2)
        return np.array([*made, weight])


@pytest.mark.parametrize("num_parts", [1, 4])
def test_profiles_equal_the_obvious_computation(new_pipeline: NewPipeline, tmp_path: Path, num_parts: int) -> None:
    world = World()
    given = world.users, world.history, num_parts, world.space, world.covariances, world.posts, world.encode
    found = make_profiles(new_pipeline, tmp_path, *given)
    assert sorted(found) == sorted({f"u{i:02d}" for i in range(30) if i % 3 or i % 2 == 0})
    for name, row in found.items():
        number = int(name[1:])
        np.testing.assert_allclose(row["embedding"], world.expected(number), rtol=1e-5, atol=1e-6, err_msg=name)
        says, has = bool(number % 3 and number % 5), number % 2 == 0
        assert row["source"] == {(1, 1): "both", (1, 0): "interests", (0, 1): "history", (0, 0): "none"}[says, has]


def test_profiles_do_not_depend_on_parts_or_order(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    world = World()
    found = []
    for place, num_parts in enumerate((1, 6)):
        order = np.random.default_rng(place).permutation(len(world.history))
        history = [world.history[i] for i in order]
        given = world.users, history, num_parts, world.space, world.covariances, world.posts, world.encode
        found.append(make_profiles(new_pipeline, tmp_path / str(place), *given))
    assert found[0].keys() == found[1].keys()
    for name, row in found[0].items():
        np.testing.assert_allclose(row["embedding"], found[1][name]["embedding"], rtol=1e-6, atol=1e-7)
        assert row["source"] == found[1][name]["source"]


def test_users_in_many_blocks_are_as_in_one(
    new_pipeline: NewPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    given = world.users, world.history, 2, world.space, world.covariances, world.posts, world.encode
    whole = make_profiles(new_pipeline, tmp_path / "whole", *given)
    monkeypatch.setattr(user_embeddings, "USERS_AT_ONCE", 4)
    monkeypatch.setattr(user_embeddings, "_MIXED_AT_ONCE", 3)
    assert make_profiles(new_pipeline, tmp_path / "blocks", *given) == whole


def test_parts_are_large_but_hold_no_more_users_than_rows_allow() -> None:
    assert user_embeddings.choose_num_parts(10_000_000, 200_000, 50_000) == 5
    assert user_embeddings.choose_num_parts(10_000_000, 2_000_000, 50_000) == 40
    assert user_embeddings.choose_num_parts(0, 0, 50_000) == 1


def test_embeddings_are_scaled_sums_whose_parts_add_up_to_the_score(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    world = World()
    history = [row for row in world.history if row["weight"] > 0]
    found = make_profiles(
        new_pipeline, tmp_path, [], history, 2, world.space, world.covariances, world.posts, encode=None
    )
    item = np.random.default_rng(1).normal(size=10)
    for name, row in found.items():
        scales = np.repeat(row["scales"], world.space.widths)
        parts = [
            entry["strength"] * 0.5 ** (entry["recency"] / 0.5) * (scales * world.posts[entry["post_id"]]) @ item[:9]
            for entry in history
            if entry["user_id"] == name and entry["post_id"] in world.posts
        ]
        lately = row["embedding"][9] * item[9]
        assert sum(parts) + lately == pytest.approx(float(np.dot(row["embedding"], item)), rel=1e-4, abs=1e-5)


def test_the_scores_of_a_block_have_one_deviation_for_everybody(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    items = rng.normal(2, [5, 0.1, 1], size=(300, 3))
    covariances = np.cov(items.T, ddof=0), *UNIT[1:]
    found = make_profiles(new_pipeline, tmp_path, USERS, HISTORY, covariances=covariances)
    known = [row["embedding"] for row in found.values() if row["source"] != "none"]
    assert len(known) > 5
    np.testing.assert_allclose((items @ np.array(known)[:, :3].T).std(axis=0), 1, rtol=1e-5)


def test_users_without_history_and_history_without_users(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    assert len(make_profiles(new_pipeline, tmp_path / "a", USERS, [])) == len(USERS)
    assert len(make_profiles(new_pipeline, tmp_path / "b", [], HISTORY)) == len({row["user_id"] for row in HISTORY})
    assert make_profiles(new_pipeline, tmp_path / "c", [], []) == {}


def test_more_interactions_move_a_profile_to_its_history(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    history = [did(name, "x", 1.0, 2.0**place) for place, name in enumerate(names)]
    users = [{"user_id": name, "interests": ["y"]} for name in names]
    found = make_profiles(new_pipeline, tmp_path, users, history)
    assert (np.diff([found[name]["embedding"][0] for name in names]) > 0.1).all()


@pytest.mark.parametrize("half_life", [None, 0.25])
def test_without_a_half_life_all_count_alike(
    new_pipeline: NewPipeline, tmp_path: Path, half_life: float | None
) -> None:
    space = own_space(3, recency=half_life)
    history = [did("u", "x", 1.0, recency=0.0), did("u", "y", 1.0, recency=0.5)]
    first, second, *_ = make_profiles(new_pipeline, tmp_path, [], history, space=space)["u"]["embedding"]
    assert second / first == pytest.approx(1 if half_life is None else 0.25, rel=1e-6)


def test_interests_worth_is_checked() -> None:
    with pytest.raises(ValueError, match="interests_worth must be more than 0, got 0"):
        user_embeddings.MakeProfiles("", own_space(3), UNIT, 1, interests_worth=0)

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from transforms import blocks, profiles, schemas, tables

NewPipeline = Callable[[], beam.Pipeline]
Row = dict[str, Any]
AXES = {"x": [1.0, 0.0, 0.0], "y": [0.0, 1.0, 0.0], "z": [0.0, 0.0, 1.0], "blank": [0.0, 0.0, 0.0]}


def interests_are_axes(users: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """The first interest names the axis."""
    firsts = [(words or ["blank"])[0] for words in users.column("interests").to_pylist()]
    vectors = np.array([AXES[word] for word in firsts], np.float32)
    return vectors, np.any(vectors != 0, axis=1)


def did(user: str, post: str, weight: float, num: int = 1) -> Row:
    return {"user_id": user, "post_id": post, "weight": weight, "num_interactions": num}


def make_profiles(
    new_pipeline: NewPipeline, directory: Path, users: list[Row], history: list[Row], num_parts: int = 3
) -> dict[str, Row]:
    items = [{"post_id": name, "embedding": v, "modalities": ["text"] if any(v) else []} for name, v in AXES.items()]
    given = {
        "users": pa.RecordBatch.from_pylist(users, schema=schemas.USERS),
        "history": pa.RecordBatch.from_pylist(history, schema=schemas.HISTORY),
        "items": pa.RecordBatch.from_pylist(items, schema=schemas.item_embeddings(3)),
    }
    with new_pipeline() as pipeline:
        made = {
            name: pipeline | name >> beam.Create(list(blocks.split_rows(block, 2))) for name, block in given.items()
        } | profiles.MakeProfiles(3, num_parts, interests_are_axes, interests_worth=5)
        _ = made.parts | tables.WriteParts(str(directory), schemas.user_embeddings(3))
    rows = []
    for path in tables.list_files(str(directory)):
        part = tables.read_file(path).to_pylist()
        assert [row["user_id"] for row in part] == sorted({row["user_id"] for row in part})
        rows += part
    assert len({row["user_id"] for row in rows}) == len(rows)
    return {row["user_id"]: row for row in rows}


HISTORY = [
    did("likes_x", "x", 2.0, 3),
    did("likes_x", "unknown", 9.0),
    did("mixed", "x", 3.0),
    did("mixed", "y", 4.0),
    did("turned", "x", 2.0),
    did("turned", "y", -0.5),
    did("hates_most", "x", 1.0),
    did("hates_most", "x2", -100.0),
    did("hates_most", "z", -100.0),
    did("only_hates", "z", -1.0),
    did("hates_says_y", "z", -1.0, 7),
    did("likes_x_says_y", "x", 1.0, 5),
    did("likes_blank", "blank", 1.0),
]
USERS: list[Row] = [
    {"user_id": "likes_x"},
    {"user_id": "hates_says_y", "interests": ["y"]},
    {"user_id": "likes_x_says_y", "interests": ["y"]},
    {"user_id": "silent"},
    {"user_id": "says_z", "interests": ["z"]},
]


@pytest.mark.parametrize("num_parts", [1, 7])
def test_profiles_of_known_users(new_pipeline: NewPipeline, tmp_path: Path, num_parts: int) -> None:
    found = make_profiles(new_pipeline, tmp_path, USERS, HISTORY, num_parts)
    half = 0.5**0.5
    expected: dict[str, tuple[Any, int, str]] = {
        "likes_x": ([1, 0, 0], 4, "history"),
        "mixed": ([0.6, 0.8, 0], 2, "history"),
        "turned": (np.array([4, -1, 0]) / 17**0.5, 2, "history"),
        "hates_most": (np.array([2, 0, -1]) / 5**0.5, 3, "history"),
        "only_hates": ([0, 0, 0], 1, "none"),
        "hates_says_y": ([0, 1, 0], 7, "interests"),
        "likes_x_says_y": ([half, half, 0], 5, "both"),
        "likes_blank": ([0, 0, 0], 1, "none"),
        "silent": ([0, 0, 0], 0, "none"),
        "says_z": ([0, 0, 1], 0, "interests"),
    }
    assert found.keys() == expected.keys()
    for user, (vector, num, source) in expected.items():
        assert (found[user]["num_interactions"], found[user]["source"]) == (num, source), user
        np.testing.assert_allclose(found[user]["embedding"], vector, atol=1e-6, err_msg=user)


def test_users_without_history_and_history_without_users(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    assert len(make_profiles(new_pipeline, tmp_path / "a", USERS, [])) == len(USERS)
    assert len(make_profiles(new_pipeline, tmp_path / "b", [], HISTORY)) == 8
    assert make_profiles(new_pipeline, tmp_path / "c", [], []) == {}


def test_opposite_parts_do_not_cancel() -> None:
    vectors, source = profiles.mix(np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]]), np.array([0.5]))
    assert (vectors.tolist(), source.to_pylist()) == ([[1.0, 0.0]], ["both"])


def test_more_interactions_move_a_profile_to_its_history() -> None:
    history, interests = np.tile([1.0, 0.0], (3, 1)), np.tile([0.0, 1.0], (3, 1))
    vectors, _ = profiles.mix(history, interests, np.array([0.1, 0.5, 0.9]))
    assert (np.diff(vectors[:, 0]) > 0.2).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_interests_worth_is_checked() -> None:
    with pytest.raises(ValueError, match="interests_worth must be more than 0, got 0"):
        profiles.MakeProfiles(3, 1, interests_worth=0)

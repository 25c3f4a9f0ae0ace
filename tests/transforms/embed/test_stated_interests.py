import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines import fuse
from pipelines.command_line.options import Options
from pipelines.stage.declaration import Places
from tests.transforms.embed.space_fixtures import TUNING
from transforms.embed.embedding_space import Space
from transforms.embed.parameters import Content
from transforms.embed.stated_interests import InterestsEncoder
from transforms.fuse import time_modality, transform_fn
from transforms.tables import blocks, parquet, schemas
from transforms.text.token_counts import text_terms

WORDS = ("football goal match striker league", "cooking soup onion butter oven")
SINGULAR_VALUES = np.array([3.0, 2.0, 0.5])
NUM_LIKED = 16
USERS: list[dict[str, Any]] = [
    {"user_id": "cook", "interests": ["cooking"], "bio": "soup and butter"},
    {"user_id": "silent"},
    {"user_id": "unknown", "bio": "zxqw"},
    {"user_id": "fan", "bio": "football goal match striker"},
    {"user_id": "cook_again", "interests": ["#Cooking"], "bio": "Soup and BUTTER"},
    {"user_id": "tagged", "interests": ["football"], "bio": "match of the league"},
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """transform_fn/, fitted on posts of two topics with text and time."""
    made = tmp_path_factory.mktemp("fitted")
    rng = np.random.default_rng(0)
    texts = pa.array([" ".join(rng.choice(WORDS[i % 2].split(), 4)) for i in range(60)])
    ids = pa.array([f"p{i}" for i in range(60)])
    times = pa.array(range(60), schemas.TIMESTAMP)
    columns = [ids, pa.nulls(60, pa.string()), times, *text_terms(texts)]
    schema = schemas.features({})
    block = pa.RecordBatch.from_arrays(columns, schema=schema)
    parquet.write_file(str(made / "run" / "features" / "part-00000.parquet"), block, schema)
    options = Options(output=str(made), run_date="2024-05-31", text_width=6)
    fuse.fit(options, Places(str(made / "run"), str(made), str(made / "local")))
    return made


def space_of(directory: Path) -> Space:
    layout = transform_fn.read_layout(str(directory / "transform_fn"))
    modalities = [(m.name, m.offset, m.width) for m in layout.modalities]
    assert [name for name, _, _ in modalities] == ["text", time_modality.TIME]
    return Space((*modalities, ("collaborative", layout.width, 3)), SINGULAR_VALUES, NUM_LIKED, TUNING)


def text_map_of(space: Space) -> np.ndarray:
    shape = space.block("text")[1], len(space.singular_values)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def encode(directory: Path, users: list[dict[str, Any]] = USERS) -> tuple[np.ndarray, np.ndarray]:
    space = space_of(directory)
    encoder = InterestsEncoder(str(directory / "transform_fn"), space, text_map_of(space))
    return encoder(pa.RecordBatch.from_pylist(users, schema=schemas.USERS))


def test_interests_are_the_text_of_a_post_and_the_factors_it_tells(directory: Path) -> None:
    profiles, present = encode(directory)
    assert present.tolist() == [True, False, False, True, True, True]
    space = space_of(directory)
    block = pa.RecordBatch.from_pylist(USERS, schema=schemas.USERS)
    terms, counts = text_terms(block.column("bio"), block.column("interests"))
    given = pa.RecordBatch.from_arrays([terms, counts], names=["text_terms", "text_counts"])
    fused, mask = transform_fn.load(str(directory / "transform_fn"))(given)
    for row, is_there in enumerate(present):
        words = fused[row, : space.modalities[0][2]].astype(float)
        told = words @ text_map_of(space)
        expected = (
            np.array([*told[:2], *told, *words / np.linalg.norm(words)]) if is_there else np.zeros(5 + len(words))
        )
        np.testing.assert_allclose(profiles[row], expected, rtol=1e-4, atol=1e-5, err_msg=USERS[row]["user_id"])
        assert mask[row].tolist()[1] == 0


def test_what_is_said_alike_is_near(directory: Path) -> None:
    profiles, _ = encode(directory)
    by_user = {user["user_id"]: profile[5:] for user, profile in zip(USERS, profiles, strict=True)}
    np.testing.assert_array_equal(by_user["cook"], by_user["cook_again"])
    assert by_user["fan"] @ by_user["tagged"] > 0.5 > by_user["cook"] @ by_user["tagged"]


def test_users_do_not_depend_on_their_neighbors(directory: Path) -> None:
    together, _ = encode(directory)
    alone = np.vstack([encode(directory, [user])[0] for user in USERS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    nobody, present = encode(directory, [])
    assert (nobody.shape, present.tolist()) == ((0, together.shape[1]), [])


def test_without_text_or_factors_there_is_less_to_say(directory: Path) -> None:
    users = pa.RecordBatch.from_pylist(USERS, schema=schemas.USERS)
    space = space_of(directory)
    (name, offset, width), *_ = space.modalities
    no_text = Space(
        (("image", offset, width), *space.modalities[1:]),
        SINGULAR_VALUES,
        NUM_LIKED,
        dataclasses.replace(TUNING, content=Content("image")),
    )
    profiles, present = InterestsEncoder(str(directory / "transform_fn"), no_text, np.zeros((width, 3)))(users)
    assert not profiles.any() and not present.any()
    cold = Space(space.modalities[:2], np.zeros(0), 0, TUNING)
    profiles, present = InterestsEncoder(str(directory / "transform_fn"), cold, np.zeros((width, 0)))(users)
    assert profiles.shape == (len(USERS), width) and present.tolist() == [True, False, False, True, True, True]
    np.testing.assert_allclose(np.linalg.norm(profiles, axis=1), present, atol=1e-6)
    assert blocks.numpy_to_vectors(profiles).type.list_size == sum(cold.widths) and name == "text"

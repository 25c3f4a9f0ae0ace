import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from tests.transforms.embed.space_fixtures import MODALITIES, TUNING, WIDTH, make_space
from tests.transforms.evaluate.test_set_fixtures import random_world
from transforms.embed.parameters import Tuning
from transforms.evaluate import ablation
from transforms.tables import blocks, schemas


def names(tuning: Tuning, content: list[str]) -> list[str]:
    return [variant.name for variant in ablation.variants(make_space(tuning), content)]


def test_every_part_that_is_there_is_left_out_once() -> None:
    assert names(TUNING, ["text", "image", "time"]) == [
        "no own block",
        "no decoded block",
        "no content block",
        "no trend",
        "no recency in profiles",
        "without text",
        "without image",
        "without time",
        "without collaborative",
        "ridge map for the autoencoder",
        "PCA for the autoencoder",
    ]
    bare = dataclasses.replace(TUNING, decoded=None, trend=None, recency=None, content_recency=None)
    assert names(bare, ["text"]) == ["no own block", "no content block", "without text", "without collaborative"]
    assert names(dataclasses.replace(bare, content=None), []) == []


def test_a_variant_differs_from_the_run_in_its_part_only() -> None:
    found = {variant.name: variant for variant in ablation.variants(make_space(), ["text", "image"])}
    space = make_space(found["no decoded block"].tuning)
    assert tuple(space.widths)[:3] == (2, 0, 4)
    assert found["no trend"].tuning == dataclasses.replace(TUNING, trend=None)
    without_own = found["no own block"].tuning
    assert tuple(make_space(without_own).widths)[:3] == (0, 3, 4)
    assert without_own.mix.warm_weight == without_own.mix.cold_weight == TUNING.mix.cold_weight
    assert found["without image"].tuning == TUNING and found["without image"].masked == "image"


def make_fused() -> pa.RecordBatch:
    values = {
        "post_id": pa.array(["a", "b"]),
        "fused": blocks.numpy_to_vectors(np.arange(1, 2 * WIDTH + 1).reshape(2, WIDTH)),
        "mask": blocks.numpy_to_vectors(np.array([[1, 1, 1, 1], [1, 0, 1, 1]])),
        "degree": pa.array([3.0, 1.0]),
    }
    return schemas.conform(
        pa.RecordBatch.from_pydict(
            {
                field.name: values.get(field.name, pa.array([1.0, 1.0]))
                if not pa.types.is_timestamp(field.type) and field.name != "author_id"
                else pa.nulls(2, field.type)
                for field in schemas.fused(WIDTH, 4)
            }
        ),
        schemas.fused(WIDTH, 4),
    )


@pytest.mark.parametrize("name", [name for name, _, _ in MODALITIES])
def test_a_hidden_modality_is_nowhere_and_nothing_else_is_changed(name: str) -> None:
    before = make_fused()
    after = ablation.mask_fused(before, make_space(), name)
    place, offset, width = next((i, o, w) for i, (n, o, w) in enumerate(MODALITIES) if n == name)
    fused, mask = (blocks.vectors_to_numpy(after.column(column)) for column in ("fused", "mask"))
    expected, expected_mask = (blocks.vectors_to_numpy(before.column(c)).copy() for c in ("fused", "mask"))
    expected[:, offset : offset + width] = 0
    expected_mask[:, place] = 0
    np.testing.assert_array_equal(fused, expected)
    np.testing.assert_array_equal(mask, expected_mask)
    assert after.column("degree").to_pylist() == ([0, 0] if name == "collaborative" else [3, 1])
    assert after.column("trend").to_pylist() == ([0, 0] if name == "collaborative" else [1, 1])
    assert after.schema == before.schema and after.column("post_id") == before.column("post_id")


def test_features_and_words_are_hidden_as_if_they_had_never_been() -> None:
    block = pa.RecordBatch.from_pydict(
        {"post_id": ["a"], "created_at": [1], "text_terms": [["x"]], "text_counts": [[1]], "image": [[1.0]]}
    )
    for name, gone in (("text", {"text_terms", "text_counts"}), ("time", {"created_at"}), ("image", {"image"})):
        part, after = ablation.mask_features((7, block), name)
        assert part == 7 and {n for n in after.schema.names if after.column(n).null_count} == gone
    users = pa.RecordBatch.from_pydict({"user_id": ["u"], "interests": [["cats"]], "bio": ["b"], "lang": ["en"]})
    assert ablation.mask_interests(users).to_pylist() == [
        {"user_id": "u", "interests": None, "bio": None, "lang": "en"}
    ]


def test_a_part_of_the_posts_is_judged_as_if_there_were_no_others() -> None:
    held_out = random_world()
    chosen = np.arange(len(held_out.posts.post_id)) % 2 == 0
    part = ablation.restrict_posts(held_out, chosen)
    assert not part.posts.eligible[~chosen].any() and 0 < part.targets.nnz < held_out.targets.nnz
    assert (np.diff(part.targets.indptr) > 0).all() and not part.targets[:, np.flatnonzero(~chosen)].nnz
    for row, user in enumerate(part.user_id.to_pylist()):
        old = held_out.user_id.to_pylist().index(user)
        assert (part.history[row] != held_out.history[old]).nnz == 0
        assert (part.fit[row] != part.history[row]).nnz == 0
    assert part.fit.shape == held_out.fit.shape and part.fit.nnz == held_out.fit.nnz


def test_at_most_so_many_users_are_judged() -> None:
    held_out = random_world()
    few, others = (ablation.limit_users(held_out, 4, seed) for seed in (0, 1))
    assert len(few.user_id) == 4 == few.targets.shape[0] and few.user_id != others.user_id
    assert few.user_id.to_pylist() == [user for user in held_out.user_id.to_pylist() if user in few.user_id.to_pylist()]
    assert ablation.limit_users(held_out, 100, 0) is held_out


def test_posts_without_interactions_are_ranked_apart_where_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = random_world()
    assert list(ablation.rankings(held_out, only_cold=True, seed=0)) == ["cold"]
    assert list(ablation.rankings(held_out, only_cold=False, seed=0)) == ["warm"]
    liked = held_out.posts.liked.copy()
    liked[::2] = 0
    mixed = dataclasses.replace(held_out, posts=dataclasses.replace(held_out.posts, liked=liked))
    monkeypatch.setattr(ablation, "MIN_COLD_POSTS", 10)
    monkeypatch.setattr(ablation, "MIN_COLD_USERS", 10)
    found = ablation.rankings(mixed, only_cold=False, seed=0)
    assert list(found) == ["warm", "cold"] and found["warm"] is mixed
    assert (found["cold"].posts.eligible == (mixed.posts.eligible & (liked == 0))).all()

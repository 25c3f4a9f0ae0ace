from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from transforms.fuse import transform_fn
from transforms.fuse.tft_graph import ModalityBlock
from transforms.tables import blocks, parquet, schemas
from transforms.tuning import histories, sample

LAYOUT = transform_fn.FusedLayout(
    (ModalityBlock("text", 0, 2, 9), ModalityBlock("image", 2, 3, 3), ModalityBlock(sample.COLLABORATIVE, 5, 1, 1))
)
NUM_USERS, NUM_POSTS = 30, 20


def history_rows() -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    return [
        {
            "user_id": f"u{user:02}",
            "post_id": f"p{post:02}",
            "weight": 1.0,
            "strength": 0.0 if user == 3 else float(rng.choice([0.5, 1, 2])),
            "recency": place / 6,
            "num_interactions": 1,
            "created_at": None,
        }
        for user in range(NUM_USERS)
        for place, post in enumerate(rng.choice(NUM_POSTS, 6, replace=False))
    ]


def write(directory: Path, rows: Sequence[dict[str, object]], schema: pa.Schema, num_parts: int) -> str:
    for part in range(num_parts):
        block = pa.RecordBatch.from_pylist(list(rows[part::num_parts]), schema=schema)
        parquet.write_file(str(directory / f"part-{part:05}.parquet"), block, schema)
    return str(directory)


@pytest.fixture
def fused(tmp_path: Path) -> str:
    rows: list[dict[str, object]] = [
        {
            "post_id": f"p{post:02}",
            "author_id": None,
            "created_at": None if post % 3 else post * 86_400_000_000,
            "fused": [post, 1, 0, 0, 0, 9] if post % 2 else [post, 1, 2, 3, 4, 9],
            "degree": 0.0,
            "trend": 0.0,
            "mask": [1, 0, 1] if post % 2 else [1, 1, 1],
        }
        for post in range(NUM_POSTS + 10)
        if post != 7
    ]
    directory = write(tmp_path / "fused", rows, LAYOUT.schema(), 2)
    transform_fn.write_layout(LAYOUT, directory)
    return directory


def pairs(found: sample.Sample) -> set[tuple[int, str]]:
    ids = found.post_ids.to_pylist()
    some = found.interactions
    return {(int(found.user_hash[u]), ids[p]) for u, p in zip(some.user, some.post, strict=True)}


def test_a_sample_of_everything_is_the_history(tmp_path: Path, fused: str) -> None:
    rows = history_rows()
    found = sample.sample_interactions(write(tmp_path / "history", rows, schemas.HISTORY, 3), fused)
    liked = [row for row in rows if row["user_id"] != "u03"]  # who likes nothing takes no place
    hashes = dict(
        zip((r["user_id"] for r in liked), blocks.stable_hash(pa.array([r["user_id"] for r in liked])), strict=True)
    )
    assert pairs(found) == {(int(hashes[row["user_id"]]), row["post_id"]) for row in liked}
    by_pair = {(int(hashes[row["user_id"]]), row["post_id"]): (row["strength"], row["recency"]) for row in liked}
    some, ids = found.interactions, found.post_ids.to_pylist()
    for user, post, strength, recency in zip(some.user, some.post, some.strength, some.recency, strict=True):
        assert (strength, pytest.approx(recency)) == by_pair[int(found.user_hash[user]), ids[post]]
    assert ids == sorted(ids)
    assert np.all(np.diff(some.user * some.num_posts + some.post) > 0)


def test_the_sample_is_the_same_whatever_the_parts(tmp_path: Path, fused: str) -> None:
    one = sample.sample_interactions(write(tmp_path / "one", history_rows(), schemas.HISTORY, 1), fused, 10, 12)
    shuffled = [history_rows()[i] for i in np.random.default_rng(1).permutation(NUM_USERS * 6)]
    other = sample.sample_interactions(write(tmp_path / "other", shuffled, schemas.HISTORY, 5), fused, 10, 12)
    for name in ("user", "post", "strength", "recency", "time"):
        np.testing.assert_array_equal(getattr(one.interactions, name), getattr(other.interactions, name))
    assert one.post_ids.equals(other.post_ids)
    np.testing.assert_array_equal(one.content["image"].values, other.content["image"].values)


def test_times_are_days(tmp_path: Path, fused: str) -> None:
    rows = history_rows()
    for number, row in enumerate(rows):
        row["created_at"] = None if number % 4 == 0 else number * 43_200_000_000
    found = sample.sample_interactions(write(tmp_path / "history", rows, schemas.HISTORY, 3), fused)
    days = {(row["user_id"], row["post_id"]): row["created_at"] for row in rows}
    hashes = {int(blocks.stable_hash(pa.array([user]))[0]): user for user, _ in days}
    some, ids = found.interactions, found.post_ids.to_pylist()
    assert some.time is not None and found.created is not None
    for user, post, time in zip(some.user, some.post, some.time, strict=True):
        known = days[hashes[int(found.user_hash[user])], ids[post]]
        assert np.isnan(time) if known is None else time == known / 86_400_000_000
    expected = [int(post[1:]) if int(post[1:]) % 3 == 0 and post != "p07" else np.nan for post in ids]
    np.testing.assert_array_equal(found.created, expected)
    undated = write(tmp_path / "undated", history_rows(), schemas.HISTORY, 1)
    assert sample.sample_interactions(undated, None).created is None


def test_limits_keep_those_with_the_smallest_hashes(tmp_path: Path) -> None:
    directory = write(tmp_path / "history", history_rows(), schemas.HISTORY, 2)
    whole, users, posts = (
        sample.sample_interactions(directory, None, *limits) for limits in ((99, 99), (8, 99), (99, 5))
    )
    assert users.user_hash.tolist() == whole.user_hash[whole.user_hash <= np.sort(whole.user_hash)[7]].tolist()
    assert pairs(users) == {pair for pair in pairs(whole) if pair[0] in set(users.user_hash.tolist())}
    assert sorted(posts.post_hash) == sorted(whole.post_hash)[:5]
    assert pairs(posts) == {pair for pair in pairs(whole) if pair[1] in set(posts.post_ids.to_pylist())}


def test_users_stop_before_there_are_too_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write(tmp_path / "history", history_rows(), schemas.HISTORY, 2)
    monkeypatch.setattr(sample, "MAX_INTERACTIONS", 6 * 4 + 3)
    assert sample.sample_interactions(directory, None).interactions.num_users == 4
    monkeypatch.setattr(sample, "MAX_HISTORY", 5)
    assert sample.sample_interactions(directory, None).interactions.num_users == 0


def test_content_is_the_blocks_of_the_posts_without_the_factors(tmp_path: Path, fused: str) -> None:
    found = sample.sample_interactions(write(tmp_path / "history", history_rows(), schemas.HISTORY, 1), fused)
    assert list(found.content) == ["text", "image"]
    text, image = found.content["text"], found.content["image"]
    for place, post_id in enumerate(found.post_ids.to_pylist()):
        post = int(post_id[1:])
        if post == 7:
            assert not text.present[place]
            assert not text.values[place].any()
            continue
        assert text.values[place].tolist() == [post, 1]
        assert image.present[place] == (post % 2 == 0)
        assert image.values[place].tolist() == ([0, 0, 0] if post % 2 else [2, 3, 4])
    assert found.coverage == {"text": 1, "image": pytest.approx(15 / 29)}


def test_no_history_is_an_empty_sample(tmp_path: Path, fused: str) -> None:
    found = sample.sample_interactions(write(tmp_path / "history", [], schemas.HISTORY, 1), fused)
    assert (len(found.interactions), found.interactions.num_users, found.interactions.num_posts) == (0, 0, 0)
    assert found.content["text"].values.shape == (0, 2)
    assert found.coverage["text"] == 1


def test_recency_ranks() -> None:
    user = np.array([0, 1, 0, 1, 0, 2, 1, 0])
    age = np.array([5, 0.1, 1, 0.1, 1, 3, 0.1, 9])
    expected = [2 / 4, 0, 0.5 / 4, 0, 0.5 / 4, 0, 0, 3 / 4]
    assert histories.recency_ranks(user, age).tolist() == pytest.approx(expected)
    assert histories.recency_ranks(np.zeros(0, int), np.zeros(0)).shape == (0,)


def test_selected_interactions_are_ranked_as_if_alone() -> None:
    recency = np.array([0, 0.25, 0.5, 0.75], np.float32)
    some = histories.Interactions(np.zeros(4, int), np.arange(4), np.ones(4, np.float32), recency, 1, 4)
    assert some.select(np.array([False, True, False, True])).recency.tolist() == [0, 0.5]
    assert some.filter(np.array([False, True, False, True])).recency.tolist() == [0.25, 0.75]
    assert some.profile_weights(0.25).toarray().tolist() == [[1, 0.5, 0.25, 0.125]]

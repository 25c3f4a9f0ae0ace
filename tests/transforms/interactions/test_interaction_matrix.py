from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from tests.transforms.interactions import factor_fixtures as fixtures
from transforms.interactions import interaction_matrix
from transforms.interactions.interaction_matrix import MakeMatrix, choose_num_parts, distinct_keys
from transforms.linalg import tiled_matrix
from transforms.tables import counts

NewPipeline = Callable[[], beam.Pipeline]
row = fixtures.row


@pytest.mark.parametrize(("num_parts", "history_parts"), [(1, 1), (3, 2), (11, 5)])
def test_the_tiles_are_the_scaled_matrix(
    new_pipeline: NewPipeline, tmp_path: Path, num_parts: int, history_parts: int
) -> None:
    rows = fixtures.tasteful(40, 30)
    matrix = fixtures.make_matrix(new_pipeline, tmp_path, rows, num_parts, history_parts)
    expected, users, posts = fixtures.scaled(rows)
    got = fixtures.dense(matrix)
    assert got.shape == expected.shape
    # The users' own order is that of their ids' hashes: compare as sets of rows.
    order, expected_order = np.lexsort(got.T.round(9)), np.lexsort(expected.T.round(9))
    np.testing.assert_allclose(got[order], expected[expected_order], rtol=1e-6)
    assert counts.read_counts(matrix.directory) == {
        "collaborative.users": len(users),
        "collaborative.posts": len(posts),
        "collaborative.entries": len(rows),
        "collaborative.left_out.hot_users": 0,
        "collaborative.left_out.hot_posts": 0,
    }


def test_degrees_are_sums_of_strengths(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    rows = [row("a", "p", 0.25), row("b", "p", 1.5), row("a", "q", 2), row("b", "r", -0.0)]
    matrix = fixtures.make_matrix(new_pipeline, tmp_path, rows)
    posts = tiled_matrix.read_posts(matrix.directory, 0).to_pydict()
    assert posts == {"post_id": ["p", "q"], "degree": [1.75, 2.0]}


def test_what_is_not_liked_is_not_there(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    rows = [
        row("a", "p"),
        row("a", "faded", 0.0, weight=0.1),
        row("a", "hated", 1.0, weight=-1.0),
        row("b", "hated", 0.0, weight=-1.0),
    ]
    matrix = fixtures.make_matrix(new_pipeline, tmp_path, rows)
    assert (fixtures.posts_of(matrix), matrix.num_rows) == (["p"], 1)


def test_of_a_hot_users_posts_the_newest_stay(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    rows = [row("hot", f"p{day}", days=day) for day in range(9)]
    rows += [row("hot", "undated", days=None), row("hot", "same", days=6), row("cool", "p0"), row("cool", "p1")]
    matrix = fixtures.make_matrix(new_pipeline, tmp_path, rows, max_user_posts=3)
    assert fixtures.posts_of(matrix) == ["p0", "p1", "p6", "p7", "p8"]  # of equal times the smaller id
    tallies = counts.read_counts(matrix.directory)
    assert tallies["collaborative.left_out.hot_users"] == 8
    assert tallies["collaborative.entries"] == 5


@pytest.mark.parametrize("num_parts", [1, 4])
def test_of_a_hot_posts_users_some_stay_told_by_their_ids(
    new_pipeline: NewPipeline, tmp_path: Path, num_parts: int
) -> None:
    rows = [row(f"u{user}", "hot") for user in range(50)] + [row(f"u{user}", f"p{user % 5}") for user in range(50)]
    matrix = fixtures.make_matrix(new_pipeline, tmp_path, rows, num_parts, max_post_users=20)
    whole = fixtures.dense(matrix)
    assert whole.shape == (50, 6)
    assert (whole > 0).sum(axis=0).tolist() == [20, 10, 10, 10, 10, 10]
    assert counts.read_counts(matrix.directory)["collaborative.left_out.hot_posts"] == 30
    again = fixtures.make_matrix(new_pipeline, tmp_path / "again", rows[::-1], 2, history_parts=7, max_post_users=20)
    # Of whom it is kept is told by their other post.
    kept = [sorted(np.argmax(m[m[:, 0] > 0, 1:], axis=1).tolist()) for m in (whole, fixtures.dense(again))]
    assert kept[0] == kept[1]


def test_the_same_bits_for_any_order_and_any_parts_of_the_history(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    rows = fixtures.tasteful(30, 20)
    first = fixtures.make_matrix(new_pipeline, tmp_path / "a", rows, 2, history_parts=1)
    again = fixtures.make_matrix(new_pipeline, tmp_path / "b", rows[::-1], 2, history_parts=6)
    np.testing.assert_array_equal(fixtures.dense(first), fixtures.dense(again))


def test_an_empty_history_makes_an_empty_matrix(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    (tmp_path / "history").mkdir()
    matrix = fixtures.make_matrix(new_pipeline, tmp_path, [])
    assert (matrix.num_rows, matrix.num_columns) == (0, 0)


def test_users_whose_ids_hash_alike_stay_apart() -> None:
    top = 2**64 - 1
    keys = distinct_keys(np.array([5, 5, 6, 5, top, top, 0], np.uint64))
    assert len(set(keys.tolist())) == 7
    assert {5, 6, top, 0} <= set(keys.tolist())


def test_numbers_are_within_parts_and_sorted() -> None:
    entries = pa.RecordBatch.from_pydict(
        {
            "user": pa.array([9, 4, 9, 4], pa.uint64()),
            "part": pa.array([1, 1, 0, 1], pa.int32()),
            "column": pa.array([2, 7, 0, 1], pa.int32()),
            "strength": pa.array([1, 1, 15, 1], pa.float32()),
            "scale": pa.array([1.0, 0.5, 1.0, 1.0]),
        }
    )
    part, found, num_users = interaction_matrix.number_users(entries)
    assert (part.tolist(), num_users) == ([0, 1, 1, 1], 2)
    assert found.dtype == tiled_matrix.ENTRY
    users = {(1, 0): 15 / 2, (0, 1): 2**-0.25, (0, 7): 0.5 * 2**-0.25, (1, 2): 1 / 2}
    assert [(int(r), int(c)) for r, c, _ in found] == list(users)
    assert found["value"].tolist() == pytest.approx(list(users.values()))


@pytest.mark.parametrize(
    ("num_entries", "num_parts"), [(0, 1), (1_000_000, 1), (1_000_001, 2), (10**9, 256), (10**10, 1250)]
)
def test_parts_are_chosen_by_the_data(num_entries: int, num_parts: int) -> None:
    assert choose_num_parts(num_entries) == num_parts


def test_a_history_of_too_many_parts_is_refused() -> None:
    assert choose_num_parts(32_768_000_000) == interaction_matrix.MAX_PARTS
    with pytest.raises(ValueError, match="has 32,768,000,001 rows, and the limit for factors is 32,768,000,000"):
        choose_num_parts(32_768_000_001)


@pytest.mark.parametrize("name", ["num_parts", "max_user_posts", "max_post_users"])
def test_parameters_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        MakeMatrix("somewhere", **{"num_parts": 1, name: 0})

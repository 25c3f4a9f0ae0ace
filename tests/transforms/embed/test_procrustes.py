from collections.abc import Callable

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from apache_beam.testing.util import assert_that

from transforms.embed import procrustes
from transforms.embed.formulas import Widths
from transforms.interactions.collaborative_factors import SumInOrder
from transforms.tables import blocks

NewPipeline = Callable[[], beam.Pipeline]
WIDTHS = Widths(3, 2, 4)
WIDTH = sum(WIDTHS) + 1


def turn(vectors: np.ndarray, rotations: tuple[np.ndarray, ...]) -> np.ndarray:
    turned = vectors.copy()
    for block, rotation in zip(WIDTHS.slices, rotations, strict=True):
        turned[:, block] = vectors[:, block] @ rotation
    return turned


def table(ids: list[str], vectors: np.ndarray) -> pa.RecordBatch:
    arrays = [pa.array(ids), blocks.numpy_to_vectors(vectors.astype(np.float32)), pa.array([1] * len(ids))]
    return pa.RecordBatch.from_arrays(arrays, names=["post_id", "embedding", "more"])


@pytest.mark.parametrize("num_parts", [1, 5])
def test_a_turned_space_is_turned_back(new_pipeline: NewPipeline, num_parts: int) -> None:
    rng = np.random.default_rng(0)
    old = rng.normal(size=(60, WIDTH))
    given = tuple(scipy.stats.ortho_group.rvs(width, random_state=1) for width in WIDTHS)
    new = turn(old, given) + 0.001 * rng.normal(size=old.shape)
    ids = [f"p{i}" for i in range(60)]
    order = rng.permutation(50)  # ten posts are gone, five are new
    tables = {
        procrustes.NEW: table(
            [*(ids[i] for i in order), *(f"q{i}" for i in range(5))], np.vstack([new[order], new[:5]])
        ),
        procrustes.OLD: table(ids, old),
    }

    def check(found: list[np.ndarray]) -> None:
        for one, rotation in zip(procrustes.rotations(found[0], WIDTHS), given, strict=True):
            np.testing.assert_allclose(one, rotation.T, atol=0.01)

    def count(found: list[np.ndarray]) -> None:
        assert procrustes.continuity(found[0]).posts == 50

    with new_pipeline() as pipeline:
        pairs = {
            name: pipeline | name >> beam.Create(list(blocks.split_rows(block, 7))) for name, block in tables.items()
        } | procrustes.MeetPosts(WIDTH, num_parts)
        products = pairs | "Products" >> beam.Map(procrustes.cross_products, WIDTHS)
        assert_that(products | "Sum" >> SumInOrder(), check)
        assert_that(pairs | "Cosines" >> beam.Map(procrustes.cosines) | "SumCosines" >> SumInOrder(), count, "count")


def test_cosines_leave_out_what_is_nothing() -> None:
    new = np.array([[1.0, 0], [0, 2], [0, 0], [3, 3]])
    old = np.array([[2.0, 0], [0, -1], [1, 1], [0, 5]])
    _, sums = procrustes.cosines((0, (new, old)))
    # Without the last number there is only one pair in which both are something.
    assert procrustes.continuity(sums) == procrustes.Continuity(3, pytest.approx((1 - 1 + 0.5**0.5) / 3, abs=1e-6), 1.0)
    assert procrustes.continuity(procrustes.cosines((0, (new[:0], old[:0])))[1]) == procrustes.Continuity(0, 0.0, 0.0)


def test_blocks_without_numbers_have_rotations_without_numbers() -> None:
    found = procrustes.rotations(np.eye(2).ravel(), Widths(0, 2, 0))
    assert [rotation.shape for rotation in found] == [(0, 0), (2, 2), (0, 0)]
    np.testing.assert_allclose(found[1], np.eye(2))


def test_the_same_posts_are_chosen_in_every_table() -> None:
    ids = [f"p{i}" for i in range(2000)]
    some, others = table(ids, np.zeros((2000, 2))), table(ids[::-1][500:], np.zeros((1500, 2)))
    taken = [set(procrustes.chosen(block, 0.1).column("post_id").to_pylist()) for block in (some, others)]
    assert taken[1] == taken[0] & set(ids[:1500])
    assert len(taken[0]) == pytest.approx(200, abs=60)
    assert procrustes.chosen(some, 1.0).num_rows == 2000
    assert procrustes.share_of(10) == 1
    assert procrustes.share_of(4 * procrustes.MAX_POSTS) == 0.25

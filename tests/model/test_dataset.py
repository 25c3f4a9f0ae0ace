from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model import spool as spool_module
from model.dataset import TrainBatches, drop_modalities, train_dataset, validation_dataset
from model.spool import Spool, write_spool


@pytest.fixture
def spool(
    new_world: Callable[..., Any],
    write_shard: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Spool:
    """9000 rows in 9 buckets, so that three pools are mixed."""
    monkeypatch.setattr(spool_module, "MAX_BUCKET_BYTES", 1 << 14)
    world = new_world(9000, missing=0)
    return write_spool([write_shard("one", world)], world.layout, str(tmp_path / "spool"), 0.0)


def test_an_epoch_has_every_row_at_most_once(spool: Spool) -> None:
    batches = TrainBatches(spool, 256, seed=3)
    epoch = list(batches)
    assert len(epoch) == batches.num_batches == 35
    assert {len(batch) for batch in epoch} == {batches.batch_rows} == {257}
    rows = np.concatenate(epoch)
    assert len(np.unique(rows, axis=0)) == len(rows) == 8995


def test_the_order_depends_on_seed_and_epoch_alone(spool: Spool) -> None:
    first = np.concatenate(list(TrainBatches(spool, 256, seed=3, epoch=2)))
    np.testing.assert_array_equal(np.concatenate(list(TrainBatches(spool, 256, seed=3, epoch=2))), first)
    for seed, epoch in ((3, 1), (4, 2)):
        other = np.concatenate(list(TrainBatches(spool, 256, seed, epoch)))
        assert (other[:, 0] == first[:, 0]).mean() < 0.01


@pytest.mark.parametrize(("batch_size", "num_batches", "rows"), [(20_000, 1, 9000), (6000, 2, 4500), (1, 9000, 1)])
def test_batches_waste_few_rows(spool: Spool, batch_size: int, num_batches: int, rows: int) -> None:
    batches = TrainBatches(spool, batch_size, seed=0)
    assert (batches.num_batches, batches.batch_rows) == (num_batches, rows)
    assert sum(len(batch) for batch in batches) == 9000


def test_the_training_dataset_follows_the_epoch(spool: Spool, new_layout: Callable[..., Any]) -> None:
    layout = new_layout(text=12, image=8)
    batches = TrainBatches(spool, 256, seed=3)
    dataset = train_dataset(batches, layout)
    assert int(dataset.cardinality()) == 35
    for epoch in (0, 1):
        batches.epoch = epoch
        read = list(dataset.as_numpy_iterator())
        expected = np.concatenate(list(TrainBatches(spool, 256, seed=3, epoch=epoch)))
        for side in (0, 1):
            np.testing.assert_array_equal(np.concatenate([b[side]["fused"] for b in read]), expected[:, :20])
            np.testing.assert_array_equal(np.concatenate([b[side]["mask"] for b in read]), expected[:, 20:])


def test_the_validation_dataset_has_every_batch_with_each_pair_of_masks(new_world: Callable[..., Any]) -> None:
    world = new_world(10, missing=0)
    rows, masked = np.hstack([world.fused, world.mask]), np.tile(np.array([0, 1], np.float32), (10, 1))
    masks = [(world.mask, world.mask), (masked, world.mask)]
    read = list(validation_dataset(rows, masks, 4, world.layout).as_numpy_iterator())
    assert [len(x["fused"]) for x, _ in read] == [4, 4, 4, 4, 2, 2]
    for index, (x, y) in enumerate(read):
        np.testing.assert_array_equal(y["mask"], 1)
        np.testing.assert_array_equal(x["mask"], [[1, 1] if index % 2 == 0 else [0, 1]] * len(x["mask"]))
        np.testing.assert_array_equal(x["fused"], y["fused"])


def test_the_validation_dataset_has_other_masks_for_inputs_and_targets(new_world: Callable[..., Any]) -> None:
    world = new_world(10, missing=0)
    rows = np.hstack([world.fused, world.mask])
    masks = [(world.mask * np.array([1, 0], np.float32), world.mask * np.array([0, 1], np.float32))]
    read = list(validation_dataset(rows, masks, 4, world.layout).as_numpy_iterator())
    assert [len(x["fused"]) for x, _ in read] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([x["fused"] for x, _ in read]), world.fused)
    for x, y in read:
        np.testing.assert_array_equal(x["mask"], [[1, 0]] * len(x["mask"]))
        np.testing.assert_array_equal(y["mask"], [[0, 1]] * len(x["mask"]))


def test_some_modality_always_remains() -> None:
    mask = (np.random.default_rng(0).random((4000, 3)) < 0.6).astype(np.float32)
    left = drop_modalities(mask, np.array([0.0, 0.5, 0.99]), seed=1)
    assert (left <= mask).all()
    np.testing.assert_array_equal(left.any(axis=1), mask.any(axis=1))
    np.testing.assert_array_equal(left[:, 0], mask[:, 0])
    share = left[:, 1][mask[:, 1] > 0].mean()
    assert 0.5 < share < 0.65  # spared now and then where it would have been the last
    np.testing.assert_array_equal(left, drop_modalities(mask, np.array([0.0, 0.5, 0.99]), seed=1))

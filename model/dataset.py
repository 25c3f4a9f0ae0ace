"""Batches of fused vectors for Keras, streamed from a spool."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from model.layout import Layout
from model.spool import Spool

# Number of buckets whose rows are shuffled together, in memory.
MIXED_BUCKETS = 4


@dataclasses.dataclass
class TrainBatches:
    """The training rows in an order that depends only on the seed and the epoch.

    Every row is in at most one batch of an epoch; the rows that do not fill the last batch (fewer than there are
    batches) are dropped, different ones in every epoch.

    Attributes:
      spool: the rows.
      batch_size: requested rows per batch; the actual number is `batch_rows`, the nearby size that drops fewest rows.
      seed: of the order.
      epoch: epoch of the next iteration. Set it before iterating.
    """

    spool: Spool
    batch_size: int
    seed: int
    epoch: int = 0

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        return max(1, round(self.spool.num_train / self.batch_size))

    @property
    def batch_rows(self) -> int:
        """Rows of every batch."""
        return self.spool.num_train // self.num_batches

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields `num_batches` batches, [batch_rows, D + M] float32."""
        random = np.random.default_rng([self.seed, self.epoch])
        buckets = random.permutation(len(self.spool.bucket_rows))
        size, left_to_yield = self.batch_rows, self.num_batches
        left_over = np.empty((0, self.spool.row_width), np.float32)
        for start in range(0, len(buckets), MIXED_BUCKETS):
            mixed = [self.spool.bucket(index) for index in buckets[start : start + MIXED_BUCKETS]]
            pool = np.concatenate([left_over, *mixed])
            order = random.permutation(len(pool))
            num_batches = min(len(pool) // size, left_to_yield)
            for index in range(num_batches):
                yield pool[order[index * size : (index + 1) * size]]
            left_to_yield -= num_batches
            left_over = pool[order[num_batches * size :]]
            del pool  # before the next one is made


def train_dataset(batches: TrainBatches, layout: Layout) -> tf.data.Dataset:
    """(inputs, targets) of every batch, both {"fused": [n, D], "mask": [n, M]}; each iteration reads `batches` anew."""
    rows = tf.data.Dataset.from_generator(
        batches.__iter__,
        output_signature=tf.TensorSpec((batches.batch_rows, batches.spool.row_width), tf.float32),
    )

    def split(row: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        inputs = {"fused": row[:, : layout.width], "mask": row[:, layout.width :]}
        return inputs, inputs

    rows = rows.apply(tf.data.experimental.assert_cardinality(batches.num_batches))
    return rows.map(split).prefetch(8)


def validation_dataset(rows: np.ndarray, kept: np.ndarray, batch_size: int, layout: Layout) -> tf.data.Dataset:
    """Batches with every row twice: complete, and with some modalities masked in the input but not in the target.

    Args:
      rows: [n, D + M] float32.
      kept: [n, M] float32, 1 where a modality remains in the second copy.
      batch_size: rows a batch, at most.
      layout: the blocks of the fused vector.
    """

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(rows), batch_size):
            part = np.array(rows[start : start + batch_size])
            yield part, part[:, layout.width :]
            yield part, kept[start : start + batch_size]

    def split(row: tf.Tensor, shown: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        fused, mask = row[:, : layout.width], row[:, layout.width :]
        return {"fused": fused, "mask": shown}, {"fused": fused, "mask": mask}

    specs = tuple(tf.TensorSpec((None, width), tf.float32) for width in (rows.shape[1], kept.shape[1]))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=specs)
    num_batches = 2 * -(-len(rows) // batch_size)
    return dataset.apply(tf.data.experimental.assert_cardinality(num_batches)).map(split).prefetch(8)


def stand_in_dataset(rows: np.ndarray, batch_size: int, layout: Layout) -> tf.data.Dataset:
    """Every row once: the input without the last modality, the target that modality alone.

    Args:
      rows: [n, D + M] float32, all of which have the last modality.
      batch_size: rows a batch, at most.
      layout: the blocks of the fused vector.
    """
    values = tf.constant(rows)
    alone = tf.one_hot(len(layout.modalities) - 1, len(layout.modalities))

    def batch(start: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        part = values[start : start + batch_size]
        fused, mask = part[:, : layout.width], part[:, layout.width :]
        return {"fused": fused, "mask": mask * (1 - alone)}, {"fused": fused, "mask": mask * alone}

    return tf.data.Dataset.range(0, len(rows), batch_size).map(batch)


def hide_modalities(mask: np.ndarray, rates: np.ndarray, seed: int) -> np.ndarray:
    """The mask with modalities dropped at random, [n, M] float32; each row retains at least one of its own.

    Args:
      mask: [n, M], 1 where a modality is present.
      rates: [M], the drop probability of each.
      seed: of the random choice.
    """
    random = np.random.default_rng(seed)
    kept = mask * (random.random(mask.shape) >= rates)
    spared = np.argmax(mask * (1 + random.random(mask.shape)), axis=1)
    bare = ~kept.any(axis=1)
    kept[bare, spared[bare]] = mask[bare, spared[bare]]
    return kept.astype(np.float32)

"""Batches of fused vectors for Keras, streamed from a spool."""

import dataclasses
from collections.abc import Iterator, Sequence

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
        size, batches_left = self.batch_rows, self.num_batches
        remainder = np.empty((0, self.spool.row_width), np.float32)
        for start in range(0, len(buckets), MIXED_BUCKETS):
            mixed = [self.spool.bucket(index) for index in buckets[start : start + MIXED_BUCKETS]]
            pool = np.concatenate([remainder, *mixed])
            order = random.permutation(len(pool))
            num_batches = min(len(pool) // size, batches_left)
            for index in range(num_batches):
                yield pool[order[index * size : (index + 1) * size]]
            batches_left -= num_batches
            remainder = pool[order[num_batches * size :]]
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


def validation_dataset(
    rows: np.ndarray, masks: Sequence[tuple[np.ndarray, np.ndarray]], batch_size: int, layout: Layout
) -> tf.data.Dataset:
    """Batches as of `train_dataset`, each once for every pair of masks.

    Args:
      rows: [n, D + M] float32.
      masks: (input mask, target mask), both [n, M] float32.
      batch_size: rows a batch, at most.
      layout: the blocks of the fused vector.
    """
    fused = tf.constant(rows[:, : layout.width])
    inputs, targets = (tf.constant(np.stack(kind)) for kind in zip(*masks, strict=True))

    def batch(number: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        pair, start = number % len(masks), number // len(masks) * batch_size
        part = slice(start, start + batch_size)
        return {"fused": fused[part], "mask": inputs[pair, part]}, {"fused": fused[part], "mask": targets[pair, part]}

    return tf.data.Dataset.range(len(masks) * -(-len(rows) // batch_size)).map(batch).prefetch(8)


def drop_modalities(mask: np.ndarray, rates: np.ndarray, seed: int) -> np.ndarray:
    """The mask with modalities dropped at random, [n, M] float32; each row retains at least one of its own.

    Args:
      mask: [n, M], 1 where a modality is present.
      rates: [M], the drop probability of each.
      seed: of the random choice.
    """
    random = np.random.default_rng(seed)
    left = mask * (random.random(mask.shape) >= rates)
    spared = np.argmax(mask * (1 + random.random(mask.shape)), axis=1)
    empty = ~left.any(axis=1)
    left[empty, spared[empty]] = mask[empty, spared[empty]]
    return left.astype(np.float32)

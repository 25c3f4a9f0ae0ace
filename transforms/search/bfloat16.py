"""Approximate scores by bfloat16 inner products, in half the time on processors with bfloat16 multiplication.

A bfloat16 is the upper half of a float32. The rounding error of a score is bounded for each query and the
posts of a tile, so posts further below the k-th score are pruned; the others are scored exactly. TensorFlow
multiplies (oneDNN, which sums in float32). The products keep their memory layout: of positive numbers the bits,
read as int16, have the order of the numbers, and those of every negative number are a negative int16.
"""

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from transforms.linalg import tensorflow_import
from transforms.linalg.vectors import row_norms

if TYPE_CHECKING:
    import tensorflow as tf

# Multiplications of float32 that take as long as it takes to load TensorFlow.
_WORTHWHILE = 1.5e11
# The share of the time of float32 that they may take, and that they take.
_FASTER, NUMBER_COST = 0.7, 0.5
_TRIED_SHAPE, _TRIED_TIMES = (512, 1024, 128), 5
_SAMPLED_QUERIES, _SAMPLED_POSTS = 512, 4096
# Unit roundoff of float32, doubled: the instruction rounds each sum of two products its own way.
_ROUNDOFF = 2.0**-23
# Unit roundoff of bfloat16.
_HALF_STEP = 2.0**-8
# Smallest product distinguishable from 0: far above the instruction's flush-to-zero limit.
SMALLEST = 1e-30


class Rounded(NamedTuple):
    """Vectors of bfloat16.

    Attributes:
      bits: [n, d] int16.
      norms: of what was rounded, [n] float64.
      errors: lengths of what rounding took away, [n] float64.
    """

    bits: np.ndarray
    norms: np.ndarray
    errors: np.ndarray


class Worth:
    """Counter of this process's multiplications, which decides when loading TensorFlow pays off."""

    def __init__(self) -> None:
        self._spent = 0.0

    def spend(self, multiplications: float) -> bool:
        """Adds to the counter; returns True if bfloat16 products are to be used from now on."""
        self._spent += multiplications
        return self._spent >= _WORTHWHILE and is_faster()


WORTH = Worth()


@functools.cache
def is_faster() -> bool:
    """True if bfloat16 products are faster than float32 ones and summed in float32; measured once per process."""
    tensorflow_import.import_tensorflow()
    random = np.random.default_rng(0)
    num_queries, num_posts, width = _TRIED_SHAPE
    queries = random.standard_normal((num_queries, width), np.float32)
    posts = random.standard_normal((num_posts, width), np.float32)
    few, many = tensor(rounded(queries).bits), tensor(rounded(posts).bits)
    return _seconds(lambda: products(few, many)) <= _FASTER * _seconds(lambda: queries @ posts.T) and _sums_in_float32()


def _seconds(run: Callable[[], object]) -> float:
    """Minimum time over all cores."""
    best = float("inf")
    for _ in range(_TRIED_TIMES):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def _sums_in_float32() -> bool:
    """True if small numbers add up beside a large one at any position: 1 and 1023 times 2^-11 give 1.4995."""
    vectors = np.full((1024, 1024), 2.0**-11, np.float32)
    np.fill_diagonal(vectors, 1)
    ones = np.ones((1, 1024), np.float32)
    made = products(tensor(rounded(ones).bits), tensor(rounded(vectors).bits))
    return bool((to_float32(made) == 1.5).all())


def rounded(vectors: np.ndarray) -> Rounded:
    """Vectors, [n, d] float32, rounded to bfloat16."""
    import tensorflow as tf

    with tf.device("/CPU:0"):
        bits = np.asarray(tf.cast(tf.constant(vectors, tf.float32), tf.bfloat16)).view(np.int16)
    return Rounded(bits, row_norms(vectors), row_norms(vectors - to_float32(bits)))


def tensor(bits: np.ndarray) -> "tf.Tensor":
    """Vectors with these bits, [n, d], as TensorFlow multiplies them."""
    import tensorflow as tf

    with tf.device("/CPU:0"):
        return tf.constant(bits.view(tf.bfloat16.as_numpy_dtype))


def products(queries: "tf.Tensor", posts: "tf.Tensor") -> np.ndarray:
    """The bits of the inner products of vectors, [num_queries, num_posts] int16, read-only."""
    import tensorflow as tf

    with tf.device("/CPU:0"):
        made = tf.raw_ops.MatMul(a=queries, b=posts, transpose_b=True)
    bits: np.ndarray = np.asarray(made).view(np.int16)
    return bits


def error(queries: Rounded, posts: Rounded) -> np.ndarray:
    """Error bound of the products, before their own rounding, against exact scores: [num_queries] float64."""
    longest = posts.norms.max(initial=0)
    lost = (queries.norms + queries.errors) * posts.errors.max(initial=0) + queries.errors * longest
    # Twice, for the rounded vectors may be longer.
    summed = 2 * (queries.bits.shape[1] + 4) * _ROUNDOFF * queries.norms * longest
    return lost + summed


def surplus(queries: np.ndarray, posts: np.ndarray, k: int) -> float:
    """Estimated share of pairs scored exactly though not in the top k, from a sample; 1 if the bounds are unusable.

    Large if scores are small relative to the norms of the vectors.

    Args:
      queries: [n, d] float32.
      posts: [m, d] float32, the candidates of each query's top k.
      k: posts per query.
    """
    few = queries[:: max(1, len(queries) // _SAMPLED_QUERIES)]
    many = posts[:: max(1, len(posts) // _SAMPLED_POSTS)]
    wanted = max(1, k * len(many) // len(posts))
    if len(many) < wanted:
        return 1.0
    scores = few @ many.T
    kth = np.partition(scores, len(many) - wanted, axis=1)[:, -wanted]
    bounds = kth * (1 - _HALF_STEP) - 2 * error(rounded(few), rounded(many))
    if bounds.min() < SMALLEST:
        return 1.0
    return float(np.mean(scores >= bounds[:, None]) - np.mean(scores >= kth[:, None]))


def to_float32(bits: np.ndarray) -> np.ndarray:
    """float32 values of these bits, int16 of any shape."""
    return (bits.astype(np.int32) << 16).view(np.float32)


def bits_below(bounds: np.ndarray) -> np.ndarray:
    """Lower bounds on the bits of products at or above the bound before rounding: int16.

    Args:
      bounds: float32, at least SMALLEST.
    """
    # Rounding is monotonic, so rounding the bound down suffices: truncate its lower half.
    return (bounds.view(np.int32) >> 16).astype(np.int16)


def least(bits: np.ndarray) -> np.ndarray:
    """Lower bounds on products before rounding, from their positive bits: float64."""
    return to_float32(bits).astype(np.float64) * (1 - _HALF_STEP)

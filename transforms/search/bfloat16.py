"""Inner products of bfloat16: a first look at scores in half the time, on processors that multiply such numbers.

A bfloat16 is the upper half of a float32. What rounding to it can take from a score is known for each query and for
the posts of a tile, so who is further below the k-th score is out; the others are looked at closely. TensorFlow
multiplies (oneDNN, which sums in float32). The products stay what they are in memory: of positive numbers the bits,
read as int16, have the order of the numbers, and those of every negative number are a negative int16.
"""

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from transforms.linalg import selection, tensorflow_import

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
# Products that may be told from 0: far above what the instruction takes for 0.
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
    """Tells when so much has been multiplied in this process that loading TensorFlow would have paid."""

    def __init__(self) -> None:
        self._spent = 0.0

    def spend(self, multiplications: float) -> bool:
        """Adds to what has been multiplied; whether products of bfloat16 are to be used from now on."""
        self._spent += multiplications
        return self._spent >= _WORTHWHILE and is_faster()


WORTH = Worth()


@functools.cache
def is_faster() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32, and sums in float32; tried once a process."""
    tensorflow_import.import_tensorflow()
    random = np.random.default_rng(0)
    num_queries, num_posts, width = _TRIED_SHAPE
    queries = random.standard_normal((num_queries, width), np.float32)
    posts = random.standard_normal((num_posts, width), np.float32)
    few, many = tensor(rounded(queries).bits), tensor(rounded(posts).bits)
    return _seconds(lambda: products(few, many)) <= _FASTER * _seconds(lambda: queries @ posts.T) and _sums_in_float32()


def _seconds(run: Callable[[], object]) -> float:
    """The least time of all cores."""
    best = float("inf")
    for _ in range(_TRIED_TIMES):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def _sums_in_float32() -> bool:
    """Whether small numbers are seen beside a large one, wherever it stands: 1 and 1023 times 2^-11 make 1.4995."""
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
    return Rounded(bits, selection.norms(vectors), selection.norms(vectors - to_float32(bits)))


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
    """How far a product, before it is rounded itself, can be from the exact score: [num_queries] float64."""
    longest = posts.norms.max(initial=0)
    lost = (queries.norms + queries.errors) * posts.errors.max(initial=0) + queries.errors * longest
    # Twice, for the rounded vectors may be longer.
    summed = 2 * (queries.bits.shape[1] + 4) * _ROUNDOFF * queries.norms * longest
    return lost + summed


def surplus(queries: np.ndarray, posts: np.ndarray, k: int) -> float:
    """The share of pairs that would be looked at though they cannot win, judged by a sample; 1 where nothing is told.

    It is large where scores are small beside the lengths of the vectors.

    Args:
      queries: [n, d] float32.
      posts: [m, d] float32, of which each query's k best are wanted.
      k: how many.
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
    """The numbers of these bits, int16 of any shape."""
    return (bits.astype(np.int32) << 16).view(np.float32)


def bits_below(bounds: np.ndarray) -> np.ndarray:
    """Bits that a product has at least which is not below the bound before it is rounded: int16.

    Args:
      bounds: float32, at least SMALLEST.
    """
    # Rounding keeps the order, so it is enough to round the bound down: to cut its lower half off.
    return (bounds.view(np.int32) >> 16).astype(np.int16)


def least(bits: np.ndarray) -> np.ndarray:
    """What a product with these positive bits was at least before it was rounded: float64."""
    return to_float32(bits).astype(np.float64) * (1 - _HALF_STEP)

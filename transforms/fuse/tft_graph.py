"""The tensorflow-transform graph that turns features into fused vectors, fitted once and saved.

Text: terms -> indices in the vocabulary -> TF-IDF -> projection to the singular vectors -> unit length -> minus the
mean. (The mean is common to all posts, mostly stop words of any language; without this step recall on cold MovieLens
posts falls from .24 to .16.) The text model is fitted before: tft analyzes dense modalities only and reads no texts.

Dense modalities: z-scores by dimension, then PCA if they are wide. Every block is divided by a scalar so that the mean
squared length of its present rows is 1 (except for clipping), which makes blocks comparable. The scalar is derived from
the earlier statistics, not fitted in another pass: with analyzers nested more than two deep Beam's in-process runner
stalls ("watermark-pending bundles did not execute", apache/beam#26190).

Every fitted statistic is rounded immediately, to a grid far coarser than float64's rounding error and too fine to
affect results, and the sums of PCA are exact (see `_GRID`): the fit does not depend on how posts are split into parts.
The graph computes in float64; its output is float32.

TensorFlow and tft are imported inside functions: this module is also imported for its names alone.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.linalg.vectors import LEAST_LENGTH
from transforms.text.tfidf_svd import TextFit

TEXT = "text"
# z-scores enter PCA's sums as multiples of 2^-10 up to 10 in size: products add up exactly in float64 for 2^26 posts.
_GRID = 1024.0
_MOST = 10.0
# Fitted scales are rounded to 12 significant bits.
_SCALE_BITS = 4096.0


@dataclasses.dataclass(frozen=True)
class ModalityBlock:
    """A block of the fused vector.

    Attributes:
      name: text, or the name of a column of features/.
      offset: first column of the block in the fused vector.
      width: number of its columns.
      input_width: width of the source column (for text: size of the vocabulary).
    """

    name: str
    offset: int
    width: int
    input_width: int


def input_schema(dense: Mapping[str, int]) -> pa.Schema:
    """Schema of the graph's input: terms and counts of the text, and two columns per dense modality."""
    fields = [("text_terms", pa.list_(pa.string())), ("text_counts", pa.list_(pa.int64()))]
    for name in dense:
        fields += [(dense_input(name), pa.list_(pa.float32())), (present_input(name), pa.list_(pa.int64()))]
    return pa.schema(fields)


def dense_input(name: str) -> str:
    """Name of the graph's input for the values of a dense modality."""
    return f"dense_{name}"


def present_input(name: str) -> str:
    """Name of the graph's input for the presence of a dense modality."""
    return f"present_{name}"


def tensor_adapter_config(dense: Mapping[str, int]) -> Any:
    """Config for feeding Arrow batches of `input_schema` to tft, without rows as dicts."""
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tfx_bsl.tfxio import tensor_adapter

    def sparse(name: str) -> Any:
        representation = schema_pb2.TensorRepresentation()
        representation.varlen_sparse_tensor.column_name = name
        return representation

    def fixed(name: str, shape: tuple[int, ...]) -> Any:
        representation = schema_pb2.TensorRepresentation()
        representation.dense_tensor.column_name = name
        representation.dense_tensor.shape.dim.extend(schema_pb2.FixedShape.Dim(size=size) for size in shape)
        return representation

    representations = {name: sparse(name) for name in ("text_terms", "text_counts")}
    for name, width in dense.items():
        representations[dense_input(name)] = fixed(dense_input(name), (width,))
        representations[present_input(name)] = fixed(present_input(name), ())
    return tensor_adapter.TensorAdapterConfig(input_schema(dense), representations)


def preprocessing_fn(modalities: tuple[ModalityBlock, ...], text: TextFit | None) -> Callable[[Mapping[str, Any]], Any]:
    """The function that tft traces: inputs as in `input_schema` -> fused [n, width] and mask [n, num_modalities]."""

    def preprocess(inputs: Mapping[str, Any]) -> dict[str, Any]:
        import tensorflow as tf

        encoded = []
        for modality in modalities:
            if modality.name == TEXT and text is not None:
                values, present = _encode_text(inputs, text)
            else:
                present = inputs[present_input(modality.name)] > 0
                values = _encode_dense(inputs[dense_input(modality.name)], present, modality)
            encoded.append((tf.cast(tf.where(present[:, tf.newaxis], values, 0), tf.float32), present))
        masks = [tf.cast(present, tf.float32) for _, present in encoded]
        return {"fused": tf.concat([values for values, _ in encoded], axis=1), "mask": tf.stack(masks, axis=1)}

    return preprocess


def _encode_text(inputs: Mapping[str, Any], text: TextFit) -> tuple[Any, Any]:
    """Text block [n, width] float64, and mask of posts with a term of the vocabulary, [n] bool.

    The arrays are variables of the graph: constants are copied with it several times a trace.
    """
    import tensorflow as tf

    fitted = text.numbers()
    components, idf = (_track(name, getattr(fitted, name)) for name in ("components", "idf"))
    terms, counts = inputs["text_terms"], inputs["text_counts"]
    indices = _lookup(terms.values, text)
    known = indices >= 0
    rows = tf.boolean_mask(terms.indices[:, 0], known)
    columns = tf.boolean_mask(indices, known)
    frequencies = tf.math.log(tf.cast(tf.boolean_mask(counts.values, known), tf.float64)) + 1
    values = frequencies * tf.cast(tf.gather(idf, columns), tf.float64)
    num_rows = terms.dense_shape[0]
    matrix = tf.SparseTensor(tf.stack([rows, columns], axis=1), tf.cast(values, tf.float32), (num_rows, text.num_terms))
    # TF-IDF rows need no normalization: the projected row is scaled to length 1.
    projected = tf.cast(tf.sparse.sparse_dense_matmul(matrix, components), tf.float64)
    length = tf.norm(projected, axis=1, keepdims=True)
    present = length[:, 0] > LEAST_LENGTH
    unit = tf.math.divide_no_nan(projected, tf.where(length > LEAST_LENGTH, length, 0))
    mean = tf.constant(fitted.mean)
    # The mean squared distance of unit vectors from their mean.
    return _over_root(unit - mean, 1 - tf.reduce_sum(tf.square(mean))), present


def _track(name: str, values: np.ndarray) -> Any:
    """An array as a variable that is saved with the graph."""
    import tensorflow as tf
    import tensorflow_transform as tft

    return tft.make_and_track_object(lambda: tf.Variable(values, trainable=False, name=name), name=name)


def _lookup(terms: Any, text: TextFit) -> Any:
    """Line numbers of terms in the vocabulary's file, -1 for unknown terms: [terms] int64."""
    import tensorflow as tf
    import tensorflow_transform as tft

    def table() -> Any:
        key, value = 1, tf.lookup.TextFileIndex.LINE_NUMBER
        lines = tf.lookup.TextFileInitializer(text.vocabulary, tf.string, key, tf.int64, value, delimiter=" ")
        return tf.lookup.StaticHashTable(lines, default_value=-1)

    return tft.make_and_track_object(table, name="vocabulary").lookup(terms)


def _encode_dense(values: Any, present: Any, modality: ModalityBlock) -> Any:
    """A dense modality as z-scores or their principal components: [n, width] float64."""
    import tensorflow as tf
    import tensorflow_transform as tft

    values = tf.cast(values, tf.float64)
    rows = tf.boolean_mask(values, present)
    mean = tft.mean(rows, reduce_instance_dims=False, output_dtype=tf.float64)
    variance = tft.var(rows, reduce_instance_dims=False, output_dtype=tf.float64)
    # The variance of a constant dimension is rounding error, not a divisor.
    varies = variance > 1e-12 * tf.square(mean)
    deviation = _round_significant(tf.sqrt(tf.where(varies, variance, 1)))
    center = _round_to(mean / deviation, _SCALE_BITS)
    scores = tf.where(varies, tf.clip_by_value(values / deviation - center, -_MOST, _MOST), 0)
    if modality.width == modality.input_width:
        return _over_root(scores, tf.reduce_sum(tf.cast(varies, tf.float64)))
    rows = _round_to(tf.boolean_mask(scores, present), _GRID)
    components = tft.pca(rows, modality.width, tf.float64)
    components, variances = _principal(components, tft.covariance(rows, tf.float64))
    return _over_root(tf.matmul(scores, components), tf.reduce_sum(variances))


def _over_root(values: Any, squared: Any) -> Any:
    """The values divided by the root of `squared`; zeros if that is zero."""
    import tensorflow as tf

    size = _round_significant(tf.sqrt(tf.where(squared > 1e-12, squared, 0)))
    return tf.math.divide_no_nan(values, size)


def _principal(components: Any, covariance: Any) -> tuple[Any, Any]:
    """Eigenvectors [width, k] with their largest entry positive (as randomized_svd.fix_signs), and their variances [k].

    A variance is computed from the largest entry alone (covariance x vector = variance x vector), as this runs on every
    batch.
    """
    import tensorflow as tf

    sizes = tf.abs(components)
    largest = tf.cast(sizes >= tf.reduce_max(sizes, axis=0) * (1 - 1e-6), tf.int32)
    places = tf.argmax(largest, axis=0)
    entries = tf.gather(tf.transpose(components), places, axis=1, batch_dims=1)
    variances = tf.reduce_sum(tf.gather(covariance, places) * tf.transpose(components), axis=1) / entries
    return components * tf.sign(entries), tf.maximum(variances, 0)


def _round_to(values: Any, unit: float) -> Any:
    import tensorflow as tf

    return tf.round(values * unit) / unit


def _round_significant(values: Any) -> Any:
    """Positive numbers rounded to 12 or 13 significant bits; zero stays zero."""
    import tensorflow as tf

    exponent = tf.floor(tf.math.log(tf.where(values > 0, values, 1)) / math.log(2))
    unit = tf.pow(tf.constant(2.0, tf.float64), exponent) / _SCALE_BITS
    return tf.round(values / unit) * unit

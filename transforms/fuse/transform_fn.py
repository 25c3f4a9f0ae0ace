"""A saved transform_fn: its layout, and its application to blocks of posts or users."""

import functools
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.fuse import tft_graph
from transforms.fuse.tft_graph import TEXT, ModalityBlock
from transforms.linalg import runs
from transforms.tables import blocks, schemas
from transforms.tables.files import copy_directory, exists, is_local, join, read_json, write_json

LAYOUT_FILE = "_layout.json"
# Version of the saved graph's inputs and outputs; a graph of another version is refused.
GRAPH_VERSION = 2
# Rows per call of the graph, always padded to as many: a matrix product may round a row differently in a batch of
# another size.
BATCH_ROWS = 1024


class FusedLayout(NamedTuple):
    """The blocks of the fused vector, side by side in their order."""

    modalities: tuple[ModalityBlock, ...]

    @property
    def width(self) -> int:
        """Width of the fused vector."""
        return sum(modality.width for modality in self.modalities)

    @property
    def dense(self) -> dict[str, int]:
        """The dense modalities and the widths of their columns in features/."""
        return {modality.name: modality.input_width for modality in self.modalities if modality.name != TEXT}

    def schema(self) -> pa.Schema:
        """The schema of fused/."""
        return schemas.fused(self.width, len(self.modalities))


def write_layout(layout: FusedLayout, directory: str) -> None:
    """Writes DIRECTORY/_layout.json: {"modalities": [{"name", "offset", "width", "input_width"}], "width", "graph"}."""
    value = {"modalities": [vars(modality) for modality in layout.modalities], "width": layout.width}
    write_json(join(directory, LAYOUT_FILE), value | {"graph": GRAPH_VERSION})


def read_layout(directory: str) -> FusedLayout:
    """The layout written by `write_layout` into content/, fused/ or transform_fn/.

    Raises:
      FileNotFoundError: there is none.
    """
    return FusedLayout(tuple(ModalityBlock(**entry) for entry in _read(directory)["modalities"]))


def _read(directory: str) -> dict[str, Any]:
    path = join(directory, LAYOUT_FILE)
    if not exists(path):
        raise FileNotFoundError(f"{path} is not there: {directory} was not written by fusefeed, or not to the end")
    found: dict[str, Any] = read_json(path)
    return found


def check_version(directory: str) -> None:
    """Raises ValueError if the graph of a transform_fn/ has another version than GRAPH_VERSION.

    A missing version is assumed to be this one.
    """
    version = _read(directory).get("graph", GRAPH_VERSION)
    if version != GRAPH_VERSION:
        raise ValueError(
            f"{directory} was saved by another version of fusefeed (its graph is {version}, not {GRAPH_VERSION}): "
            "fit a new transform_fn"
        )


def check_widths(layout: FusedLayout, features: pa.Schema) -> None:
    """Raises ValueError if a column of features/ has another width than the transform_fn was fitted on.

    A modality that only one of the two has is no error: it is dropped, or missing in all posts.
    """
    widths = schemas.widths_of(features)
    for name, width in layout.dense.items():
        if widths.get(name, width) != width:
            raise ValueError(
                f"{name} has {widths[name]} numbers a post, but transform_fn was fitted on {width}: "
                "fit a new one, or bring vectors of the same encoder"
            )


@functools.lru_cache(maxsize=2)
def load(directory: str) -> "TransformApplier":
    """The transform_fn of a directory; cached in the process."""
    return TransformApplier(directory)


class TransformApplier:
    """Applies a saved transform_fn to blocks of features.

    Calling it with a block returns (fused, mask): [n, width] float32 and [n, num_modalities] float32. The block has any
    of the columns text_terms with text_counts and one nullable list<float32> for each dense modality; a modality
    without a column is missing in all rows (users have terms only).
    """

    def __init__(self, directory: str) -> None:
        import tensorflow as tf

        self.layout = read_layout(directory)
        self._module = tf.saved_model.load(_local_copy(join(directory, "transform_fn")))

    def __call__(self, block: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        fused = np.zeros((block.num_rows, self.layout.width), np.float32)
        mask = np.zeros((block.num_rows, len(self.layout.modalities)), np.float32)
        for start in range(0, block.num_rows, BATCH_ROWS):
            rows = block.slice(start, BATCH_ROWS)
            result = self._module.transform_fn(self._tensors(graph_inputs(rows, self.layout.dense), BATCH_ROWS))
            fused[start : start + rows.num_rows] = result["fused"].numpy()[: rows.num_rows]
            mask[start : start + rows.num_rows] = result["mask"].numpy()[: rows.num_rows]
        return fused, mask

    def _tensors(self, batch: pa.RecordBatch, num_rows: int) -> dict[str, Any]:
        import tensorflow as tf

        tensors = {
            "text_terms": _sparse(batch.column("text_terms"), num_rows, tf.string),
            "text_counts": _sparse(batch.column("text_counts"), num_rows, tf.int64),
        }
        for name, width in self.layout.dense.items():
            dense, present = tft_graph.dense_input(name), tft_graph.present_input(name)
            tensors[dense] = _padded(batch.column(dense), num_rows, (width,))
            tensors[present] = _padded(batch.column(present), num_rows, ())
        return tensors


def _sparse(column: pa.Array, num_rows: int, dtype: Any) -> Any:
    import tensorflow as tf

    lengths = column.value_lengths().to_numpy()
    rows = np.repeat(np.arange(len(column)), lengths)
    places = runs.places_in(lengths)
    flat = column.flatten()
    values = flat.cast(pa.binary()).to_numpy(zero_copy_only=False) if dtype == tf.string else flat.to_numpy()
    indices = np.stack([rows, places], axis=1).astype(np.int64).reshape(-1, 2)
    return tf.SparseTensor(indices, tf.constant(values, dtype), (num_rows, int(lengths.max(initial=0))))


def _padded(column: pa.Array, num_rows: int, shape: tuple[int, ...]) -> Any:
    import tensorflow as tf

    values = column.flatten().to_numpy().reshape(len(column), *shape)
    padded = np.zeros((num_rows, *shape), values.dtype)
    padded[: len(column)] = values
    return tf.constant(padded)


def graph_inputs(block: pa.RecordBatch, dense: Mapping[str, int]) -> pa.RecordBatch:
    """A block of features in the schema of `tft_graph.input_schema`; values that are not finite count as missing."""
    schema = tft_graph.input_schema(dense)
    num_rows = block.num_rows
    names = block.schema.names
    columns: dict[str, pa.Array] = {}
    for name in ("text_terms", "text_counts"):
        kind = schema.field(name).type
        columns[name] = _no_nulls(block.column(name).cast(kind)) if name in names else _empty_lists(num_rows, kind)
    for name, width in dense.items():
        values, present = np.zeros((num_rows, width), np.float32), np.zeros(num_rows, bool)
        if name in names:
            values, present = blocks.optional_to_numpy(block.column(name), width)
            present = present & np.isfinite(values).all(axis=1)
            values[~present] = 0
        columns[tft_graph.dense_input(name)] = blocks.numpy_to_optional(values, np.ones(num_rows, bool))
        columns[tft_graph.present_input(name)] = _single(present.astype(np.int64))
    return pa.RecordBatch.from_arrays([columns[field.name] for field in schema], schema=schema)


def _single(values: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1, dtype=np.int32)), pa.array(values))


def _empty_lists(num_rows: int, kind: pa.DataType) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.zeros(num_rows + 1, np.int32)), pa.array([], kind.value_type))


def _no_nulls(column: pa.ListArray) -> pa.ListArray:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(starts), column.flatten())


def _local_copy(directory: str) -> str:
    """The directory itself if it is local; else a local copy: TensorFlow reads fewer file systems than Beam."""
    if is_local(directory):
        return directory
    copy = tempfile.mkdtemp(prefix="fusefeed-transform_fn-")
    copy_directory(directory, copy)
    return copy

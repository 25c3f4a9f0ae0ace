"""Fusion: all modalities of a post side by side in one vector, by a transform that is fitted on all posts and saved.

    CountPresent, FitTimes    posts by modality; quantiles of times           (features/ read once)
    FitText                   singular vectors of TF-IDF, mean text vector    (read once; its rows once a pass)
    FitTransform              tft: means, scales, PCA -> transform_fn/        (read once a phase of tft, without texts)
    FuseParts                 transform_fn applied to every part

Memory is bounded by the vocabulary (times the text's width) and the widths of the modalities, not by posts.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from transforms.fuse import tft_graph, time_modality, transform_fn
from transforms.fuse.tft_graph import TEXT, ModalityBlock
from transforms.fuse.transform_fn import BATCH_ROWS, FusedLayout
from transforms.tables import blocks, progress, schemas
from transforms.text.tfidf_svd import TextFit

MIN_PRESENT = 2
# Most numbers of a dense modality's block: the leading components hold nearly all of the variance of descriptors, and
# every vector, shuffle and covariance grows with it.
PCA_WIDTH = 64
# Limit on vocabulary_size x text_width: a worker holds the singular vectors a few times over.
MAX_TEXT_NUMBERS = 200_000_000
Part = tuple[int, pa.RecordBatch]


@dataclasses.dataclass
class CountPresent(beam.PTransform):
    """Features parts -> counts ("posts.read", n) and ("present.MODALITY", n), to be summed.

    Example:
        parts | CountPresent({"image": 512}) | counts.WriteCounts("scratch/survey")
    """

    dense: Mapping[str, int]

    def expand(self, parts: beam.PCollection[Part]) -> beam.PCollection[tuple[str, int]]:
        return parts | beam.FlatMap(_count_present, tuple(self.dense))


def _count_present(part: Part, dense: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    _, block = part
    yield "posts.read", block.num_rows
    for name, column in [(TEXT, "text_terms"), (time_modality.TIME, "created_at"), *((name, name) for name in dense)]:
        yield f"present.{name}", block.num_rows - block.column(column).null_count


def check_text_size(vocabulary_size: int, text_width: int) -> None:
    """Raises ValueError if the singular vectors exceed MAX_TEXT_NUMBERS, which a worker can hold."""
    if vocabulary_size * text_width > MAX_TEXT_NUMBERS:
        raise ValueError(
            f"vocabulary_size x text_width must be at most {MAX_TEXT_NUMBERS:,}, got {vocabulary_size * text_width:,}"
        )


def plan(present: Mapping[str, int], widths: Mapping[str, int], text: TextFit | None) -> FusedLayout:
    """The blocks of the fused vector: text first, then the dense modalities in the order of features/.

    Args:
      present: modality -> posts that have it; a modality of fewer than two posts is dropped.
      widths: dense modality -> width of its column.
      text: the fitted text model, None if there is none.

    Raises:
      ValueError: no modality remains.
    """
    modalities: list[ModalityBlock] = []
    offset = 0
    wanted = [(TEXT, text.num_terms, text.width)] if text is not None else []
    for name, width in widths.items():
        if present.get(name, 0) >= MIN_PRESENT:
            wanted.append((name, width, width if width <= PCA_WIDTH else min(PCA_WIDTH, present[name] - 1)))
    for name, input_width, width in wanted:
        modalities.append(ModalityBlock(name, offset, width, input_width))
        offset += width
    if not modalities:
        raise ValueError("nothing to fuse: no modality (text, media or ready-made vectors) is present in two posts")
    return FusedLayout(tuple(modalities))


@dataclasses.dataclass
class FitTransform(beam.PTransform):
    """Features parts -> the path of the saved transform_fn, fitted by tensorflow-transform on all of them.

    Parts need no text columns: the text model is fitted before.

    Use it inside a `tensorflow_transform.beam.Context`, and never in a pipeline that is built at module level: the
    interpreter then crashes at exit.

    Example:
        with beam.Pipeline() as root, tft_context("scratch/tft"):
            root | parquet.ReadParts("run/features", columns) | FitTransform("run/transform_fn", layout, text)

    Attributes:
      directory: output directory of transform_fn.
      layout: the blocks of the fused vector.
      text: the fitted text model, None if there is none.
    """

    directory: str
    layout: FusedLayout
    text: TextFit | None

    def expand(self, parts: beam.PCollection[Part]) -> beam.PCollection[str]:
        import tensorflow_transform as tft
        import tensorflow_transform.beam as tft_beam

        dense = self.layout.dense
        inputs = parts | "GraphInputs" >> beam.FlatMap(_part_inputs, dense)
        config = tft_graph.tensor_adapter_config(dense)
        function = tft_graph.preprocessing_fn(self.layout.modalities, self.text)
        fitted = (inputs, config) | "Analyze" >> tft_beam.AnalyzeDataset(function)
        _ = fitted | "Write" >> tft.beam.WriteTransformFn(self.directory)
        return fitted[0]


def _part_inputs(part: Part, dense: Mapping[str, int]) -> Iterator[pa.RecordBatch]:
    for rows in blocks.split_rows(part[1], BATCH_ROWS):
        yield transform_fn.graph_inputs(rows, dense)


@dataclasses.dataclass
class FuseParts(beam.PTransform):
    """Features parts -> fused parts, by the transform_fn of a directory.

    Example:
        parts | FuseParts("run/transform_fn") | parquet.WriteParts("run/content", layout.schema())
    """

    directory: str

    def expand(self, parts: beam.PCollection[Part]) -> beam.PCollection[Part]:
        return parts | "Apply" >> beam.Map(_fuse_part, self.directory)


def _fuse_part(part: Part, directory: str) -> Part:
    number, block = part
    apply = transform_fn.load(directory)
    fused: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    for rows in blocks.split_rows(block, 8 * BATCH_ROWS):
        values, mask = apply(rows)
        fused.append(values)
        masks.append(mask)
        progress.advance(rows.num_rows)
    schema = apply.layout.schema()
    if not fused:
        return number, schemas.empty(schema)
    ids = [block.column(name) for name in ("post_id", "author_id", "created_at")]
    vectors = [blocks.numpy_to_vectors(np.concatenate(values)) for values in (fused, masks)]
    zeros = pa.array(np.zeros(block.num_rows))  # degree and trend come with the factors
    return number, pa.RecordBatch.from_arrays([*ids, *vectors, zeros, zeros], schema=schema)


def count_fused(part: Part, layout: FusedLayout) -> Iterator[tuple[str, int]]:
    """Exact counts of a fused part: posts.read, posts.written and, per modality, fused.NAME (posts that have it)."""
    _, block = part
    yield "posts.read", block.num_rows
    yield "posts.written", block.num_rows
    mask = blocks.vectors_to_numpy(block.column("mask"))
    for place, modality in enumerate(layout.modalities):
        yield f"fused.{modality.name}", int(mask[:, place].sum())


def dropped_modalities(present: Mapping[str, int], layout: FusedLayout) -> list[str]:
    """Modalities of some post that are not in the layout."""
    names = {modality.name for modality in layout.modalities}
    return [name for name, number in present.items() if number and name not in names]


def tft_context(directory: str) -> Any:
    """The context for FitTransform, with tft's temporary files in a directory."""
    import tensorflow_transform.beam as tft_beam

    return tft_beam.Context(temp_dir=directory)

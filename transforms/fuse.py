"""Fusing: all modalities of a post side by side in one vector, by a transform that is fitted on all posts and saved.

    SurveyFeatures   which modalities there are, and the vocabulary          (features/ read once)
    FitText          singular vectors of the posts' TF-IDF                   (read once, its rows once a pass)
    FitTransform     tft: vocabulary, means, scales, PCA -> transform_fn/    (read once a phase of tft)
    FuseParts        transform_fn applied to every part

Memory is bounded by the vocabulary (times the text's width) and the widths of the modalities, not by posts.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from apache_beam.io.filesystems import FileSystems

from transforms import (
    blocks,
    files,
    post_time,
    preprocessing,
    progress,
    schemas,
    svd,
    tables,
    tiled_matrix,
    transform_fn,
    vocabulary,
)
from transforms.preprocessing import TEXT, Modality, TextFit
from transforms.transform_fn import BATCH_ROWS, Layout

MIN_PRESENT = 2
# The singular vectors stand in the graph as a constant, and a graph has at most 2 GB.
MAX_TEXT_NUMBERS = 200_000_000
SPARSE_BLOCK_ROWS = 65_536
Part = tuple[int, pa.RecordBatch]


@dataclasses.dataclass
class CountPresent(beam.PTransform):
    """Features parts -> exact counts ("posts.read", n) and ("present.MODALITY", n), to be summed."""

    dense: Mapping[str, int]

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, parts: beam.PCollection[Part]) -> beam.PCollection[tuple[str, int]]:
        return parts | beam.FlatMap(_count_present, tuple(self.dense))


def _count_present(part: Part, dense: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    _, block = part
    yield "posts.read", block.num_rows
    for name, column in [(TEXT, "text_terms"), (post_time.TIME, "created_at"), *((name, name) for name in dense)]:
        yield f"present.{name}", block.num_rows - block.column(column).null_count


@dataclasses.dataclass
class FitText(beam.PTransform):
    """Root -> one svd.Svd: the singular vectors of all posts' TF-IDF rows, on primitive 2 in its bounded form.

    Attributes:
      features: directory of the features table.
      vocabulary: directory of a table of vocabulary.SCHEMA.
      scratch: directory for the rows, which every pass reads, and for what passes leave to each other.
      num_posts: posts that have terms.
      num_terms: terms of the vocabulary.
      width: singular vectors wanted.
    """

    features: str
    vocabulary: str
    scratch: str
    num_posts: int
    num_terms: int
    width: int
    seed: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, root: beam.Pipeline) -> beam.PCollection[svd.Svd]:
        written = (
            root
            | tables.ReadParts(self.features, ("text_terms", "text_counts"))
            | "WriteRows" >> beam.Map(_write_rows, self.scratch, self.vocabulary, self.num_posts)
            | "Written" >> beam.Reshuffle()
        )
        rows_of = functools.partial(text_rows, directory=self.scratch, num_terms=self.num_terms)
        return written | svd.RandomizedSvd(
            rows_of, self.num_posts, self.num_terms, self.scratch, self.width, seed=self.seed
        )


def _write_rows(part: Part, directory: str, terms: str, num_posts: int) -> tuple[int, int]:
    """Writes the TF-IDF rows of a part as a tile, which is read a few times faster than terms: (part, its rows)."""
    number, block = part
    known = vocabulary.read_vocabulary(terms, num_posts)
    rows = vocabulary.sparse_rows(block.column("text_terms"), block.column("text_counts"), known)
    entries = np.empty(rows.nnz, tiled_matrix.ENTRY)
    entries["row"] = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    entries["column"], entries["value"] = rows.indices, rows.data
    tiled_matrix.write_rows(directory, number, 1, np.zeros(rows.nnz, np.int8), entries)
    return number, rows.shape[0]


def text_rows(part: tuple[int, int], directory: str, num_terms: int) -> Iterator[sp.csr_array]:
    """What `_write_rows` wrote of a part, in blocks."""
    number, num_rows = part
    rows = tiled_matrix.TiledMatrix(directory, {number: num_rows}, {0: num_terms}).tile(number, 0)
    for start in range(0, num_rows, SPARSE_BLOCK_ROWS):
        yield rows[start : start + SPARSE_BLOCK_ROWS]


def write_text(found: svd.Svd, path: str, directory: str, num_posts: int) -> None:
    """Writes the singular vectors and the vocabulary's idf for the graph."""
    files.make_directory(path.rsplit("/", 1)[0])
    preprocessing.write_text(found.components, vocabulary.read_vocabulary(directory, num_posts).idf(), path)


def text_fit(path: str) -> TextFit | None:
    """The text that was fitted; None where the posts' texts have nothing to tell them by."""
    components, _ = preprocessing.read_text(path)
    return TextFit(path, *components.shape) if components.shape[1] else None


def check_text_size(vocabulary_size: int, text_width: int) -> None:
    """Raises ValueError where the singular vectors would not fit into a graph."""
    if vocabulary_size * text_width > MAX_TEXT_NUMBERS:
        raise ValueError(
            f"vocabulary_size x text_width must be at most {MAX_TEXT_NUMBERS:,}, got {vocabulary_size * text_width:,}"
        )


def plan(present: Mapping[str, int], widths: Mapping[str, int], text: TextFit | None, pca_width: int) -> Layout:
    """The blocks of the fused vector: text first, then the dense modalities in the order of features/.

    Args:
      present: modality -> posts that have it; one that fewer than two posts have is left out.
      widths: dense modality -> width of its column.
      text: the fitted text, None where there is none.
      pca_width: most numbers of a dense modality's block.

    Raises:
      ValueError: nothing is left.
    """
    modalities: list[Modality] = []
    offset = 0
    wanted = [(TEXT, text.num_terms, text.width)] if text is not None else []
    for name, width in widths.items():
        if present.get(name, 0) >= MIN_PRESENT:
            wanted.append((name, width, width if width <= pca_width else min(pca_width, present[name] - 1)))
    for name, input_width, width in wanted:
        modalities.append(Modality(name, offset, width, input_width))
        offset += width
    if not modalities:
        raise ValueError("nothing to fuse: no modality (text, media or ready-made vectors) is there in two posts")
    return Layout(tuple(modalities))


@dataclasses.dataclass
class FitTransform(beam.PTransform):
    """Features parts -> the path of the saved transform_fn, fitted by tensorflow-transform on all of them.

    Use it inside a `tensorflow_transform.beam.Context`, and never in a pipeline that is built at module level: the
    interpreter then crashes at exit.

    Attributes:
      directory: where transform_fn is written (with _layout.json).
      layout: the blocks of the fused vector.
      text: the fitted text, None where there is none.
      vocabulary: the vocabulary's block; without rows where there is no text.
    """

    directory: str
    layout: Layout
    text: TextFit | None
    vocabulary: pa.RecordBatch

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, parts: beam.PCollection[Part]) -> beam.PCollection[str]:
        import tensorflow_transform as tft
        import tensorflow_transform.beam as tft_beam

        dense = self.layout.dense
        posts = parts | "GraphInputs" >> beam.FlatMap(_part_inputs, dense)
        terms = parts.pipeline | "Vocabulary" >> beam.Create(
            list(transform_fn.vocabulary_inputs(self.vocabulary, dense))
        )
        inputs = (posts, terms) | beam.Flatten()
        config = preprocessing.tensor_adapter_config(dense)
        function = preprocessing.preprocessing_fn(self.layout.modalities, self.text)
        fitted = (inputs, config) | "Analyze" >> tft_beam.AnalyzeDataset(function)
        _ = fitted | "Write" >> tft.beam.WriteTransformFn(self.directory)
        return fitted[0]


def _part_inputs(part: Part, dense: Mapping[str, int]) -> Iterator[pa.RecordBatch]:
    for rows in blocks.split_rows(part[1], BATCH_ROWS):
        yield transform_fn.graph_inputs(rows, dense)


def check_vocabulary(directory: str, block: pa.RecordBatch) -> None:
    """Raises ValueError where the saved vocabulary has another order than the singular vectors' rows."""
    path = FileSystems.join(directory, "transform_fn", "assets", preprocessing.VOCABULARY_FILE)
    with FileSystems.open(path, compression_type="uncompressed") as file:
        saved = [line.split(" ", 1)[1] for line in file.read().decode().splitlines()]
    if saved != block.column("term").to_pylist():
        raise ValueError(f"{path} is not in the order of the vocabulary that the text vectors were fitted on")


@dataclasses.dataclass
class FuseParts(beam.PTransform):
    """Features parts -> fused parts, by the transform_fn of a directory."""

    directory: str

    def __post_init__(self) -> None:
        super().__init__()

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
    nothing = pa.array(np.zeros(block.num_rows))  # degree and trend come with the factors
    return number, pa.RecordBatch.from_arrays([*ids, *vectors, nothing, nothing], schema=schema)


def count_fused(part: Part, layout: Layout) -> Iterator[tuple[str, int]]:
    """Exact counts of a fused part: posts.read, posts.written and, per modality, fused.NAME (posts that have it)."""
    _, block = part
    yield "posts.read", block.num_rows
    yield "posts.written", block.num_rows
    mask = blocks.vectors_to_numpy(block.column("mask"))
    for place, modality in enumerate(layout.modalities):
        yield f"fused.{modality.name}", int(mask[:, place].sum())


def left_out(present: Mapping[str, int], layout: Layout) -> list[str]:
    """The modalities that some post has but the layout leaves out."""
    kept = {modality.name for modality in layout.modalities}
    return [name for name, number in present.items() if number and name not in kept]


def tft_context(directory: str) -> Any:
    """The context in which FitTransform has to stand, with tft's temporary files in a directory."""
    import tensorflow_transform.beam as tft_beam

    return tft_beam.Context(temp_dir=directory)

"""Latent semantic analysis of the posts' texts: vocabulary, singular vectors of TF-IDF rows, mean unit vector."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from transforms.linalg import randomized_svd, tiled_matrix
from transforms.linalg.vectors import LEAST_LENGTH, row_norms
from transforms.tables import arrays, files, parquet
from transforms.text import vocabulary

SPARSE_BLOCK_ROWS = 65_536
# Its lines are "POSTS TERM", in the order of the singular vectors' rows; no term has a space.
VOCABULARY_FILE = "vocabulary"
_COMPONENTS_FILE, _IDF_FILE, _MEAN_FILE = "components.npy", "idf.npy", "mean.npy"
# Binary places of a unit vector's entries: their sums are exact up to 2^29 posts.
_UNIT_BITS = 24
# Binary places of the mean.
_MEAN_BITS = 16


class TextFit(NamedTuple):
    """Path and shape of the fitted arrays.

    The graph's function is pickled (and compressed by bz2, at 1 MB/s) many times: it holds a path, not the arrays.

    Attributes:
      directory: output of `FitText`.
      num_terms: terms of the vocabulary.
      width: singular vectors.
    """

    directory: str
    num_terms: int
    width: int

    @property
    def vocabulary(self) -> str:
        """The path of the vocabulary's file."""
        path: str = files.join(self.directory, VOCABULARY_FILE)
        return path

    def numbers(self) -> "Numbers":
        """The fitted arrays."""
        return read_numbers(self.directory)


class Numbers(NamedTuple):
    """Fitted arrays.

    Attributes:
      components: [num_terms, width] float32, singular vectors.
      idf: [num_terms] float32.
      mean: [width] float64, of the posts' projected rows, each scaled to length 1.
    """

    components: np.ndarray
    idf: np.ndarray
    mean: np.ndarray


@dataclasses.dataclass
class FitText(beam.PTransform):
    """Root -> one element, the directory that `open_fit` reads.

    Example:
        root | FitText("run/features", "scratch/vocabulary", "scratch/svd", num_posts, num_terms, 128, "scratch/text")

    Attributes:
      features: directory of the features table.
      vocabulary: directory of a table of vocabulary.SCHEMA.
      scratch: directory for the TF-IDF rows and the arrays between passes.
      num_posts: posts that have terms.
      num_terms: terms of the vocabulary.
      width: number of singular vectors.
      directory: output directory.
      seed: of the random start.
    """

    features: str
    vocabulary: str
    scratch: str
    num_posts: int
    num_terms: int
    width: int
    directory: str
    seed: int = 0

    def expand(self, root: beam.Pipeline) -> beam.PCollection[str]:
        rows = (
            root
            | parquet.ReadParts(self.features, ("text_terms", "text_counts"))
            | "WriteRows" >> beam.Map(_write_rows, self.scratch, self.vocabulary, self.num_posts)
            | "Written" >> beam.Reshuffle()
        )
        rows_of = functools.partial(text_rows, directory=self.scratch, num_terms=self.num_terms)
        found = rows | randomized_svd.RandomizedSvd(
            rows_of, self.num_posts, self.num_terms, self.scratch, self.width, seed=self.seed
        )
        written = found | "WriteNumbers" >> beam.Map(_write_numbers, self.directory, self.vocabulary, self.num_posts)
        return (
            rows
            | "SumUnits" >> beam.Map(_sum_units, beam.pvalue.AsSingleton(written), rows_of)
            | "SumParts" >> beam.CombineGlobally(_add).without_defaults()
            | "WriteMean" >> beam.Map(_write_mean, self.directory)
        )


def _write_rows(part: tuple[int, pa.RecordBatch], directory: str, terms: str, num_posts: int) -> tuple[int, int]:
    """Writes the TF-IDF rows of a part as a tile, which loads several times faster than terms: (part, num_rows)."""
    number, block = part
    known = vocabulary.read_vocabulary(terms, num_posts)
    rows = vocabulary.sparse_rows(block.column("text_terms"), block.column("text_counts"), known)
    entries = np.empty(rows.nnz, tiled_matrix.ENTRY)
    entries["row"] = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    entries["column"], entries["value"] = rows.indices, rows.data
    tiled_matrix.write_rows(directory, number, 1, np.zeros(rows.nnz, np.int8), entries)
    return number, rows.shape[0]


def text_rows(part: tuple[int, int], directory: str, num_terms: int) -> Iterator[sp.csr_array]:
    """Rows of a part written by `_write_rows`, in blocks."""
    number, num_rows = part
    rows = tiled_matrix.TiledMatrix(directory, {number: num_rows}, {0: num_terms}).tile(number, 0)
    for start in range(0, num_rows, SPARSE_BLOCK_ROWS):
        yield rows[start : start + SPARSE_BLOCK_ROWS]


class _Units(NamedTuple):
    """Number of unit vectors and their sum [width] float64."""

    number: int
    total: np.ndarray


def _write_numbers(components: np.ndarray, directory: str, terms: str, num_posts: int) -> str:
    """Writes the vocabulary, its idf and the singular vectors."""
    files.make_directory(directory)
    known = vocabulary.read_vocabulary(terms, num_posts)
    lines = zip(known.posts.tolist(), known.terms.to_pylist(), strict=True)
    files.write_text(files.join(directory, VOCABULARY_FILE), "".join(f"{n} {term}\n" for n, term in lines))
    for name, values in ((_COMPONENTS_FILE, components), (_IDF_FILE, known.idf())):
        arrays.save(files.join(directory, name), values.astype(np.float32))
    return directory


def _sum_units(part: tuple[int, int], directory: str, rows_of: Callable[..., Iterator[sp.csr_array]]) -> _Units:
    components = _read(directory, _COMPONENTS_FILE)
    found = [unit_sum(rows, components) for rows in rows_of(part)]
    return _add([_Units(0, np.zeros(components.shape[1])), *found])


def unit_sum(rows: sp.csr_array, components: np.ndarray) -> _Units:
    """Sum of the projected rows (rows [n, num_terms] @ components), each scaled to length 1; exact, in any order."""
    projected = rows.astype(np.float32) @ components
    length = row_norms(projected)
    present = length > LEAST_LENGTH
    units = projected[present] / length[present, None]
    return _Units(len(units), randomized_svd.rounded(units, _UNIT_BITS).sum(axis=0))


def _add(found: Iterable[_Units]) -> _Units:
    numbers, totals = zip(*found, strict=True)
    return _Units(sum(numbers), np.sum(totals, axis=0))


def _write_mean(found: _Units, directory: str) -> str:
    mean = randomized_svd.rounded(found.total / max(found.number, 1), _MEAN_BITS)
    arrays.save(files.join(directory, _MEAN_FILE), mean)
    return directory


def open_fit(directory: str) -> TextFit | None:
    """The fitted text model; None if no term distinguishes the posts."""
    components = read_numbers(directory).components
    return TextFit(directory, *components.shape) if components.shape[1] else None


@functools.lru_cache(maxsize=3)
def _read(directory: str, name: str) -> np.ndarray:
    """An array of `FitText`, cached in the process: the graph is traced several times."""
    return arrays.load(files.join(directory, name))


def read_numbers(directory: str) -> Numbers:
    """Numbers written by `FitText`."""
    return Numbers(*(_read(directory, name) for name in (_COMPONENTS_FILE, _IDF_FILE, _MEAN_FILE)))

"""Vocabulary of the text vectors, and posts as sparse TF-IDF rows over them.

Terms are counted within every part first, so that a shuffled row is a term of a part and not a word of a post:
tensorflow-transform's vocabulary over the tokens of 200,000 posts took 24 s, this takes 1 s.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from transforms.tables import blocks, parquet, shuffle

SCHEMA = pa.schema([pa.field("term", pa.string(), nullable=False), pa.field("posts", pa.int64(), nullable=False)])

# In a corpus of any size a term may occur in this many posts; below POSTS_PER_FREQUENCY posts, one is enough.
ALWAYS_ALLOWED = 10
POSTS_PER_FREQUENCY = 50


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The terms of the text vectors.

    Attributes:
      terms: [num_terms] string, by falling number of posts, then by falling bytes of the term (tft's order).
      posts: [num_terms] int64, document frequency of each.
      num_posts: posts that have any term.
    """

    terms: pa.StringArray
    posts: np.ndarray
    num_posts: int

    def idf(self) -> np.ndarray:
        """[num_terms] float64: ln((1 + num_posts) / (1 + posts)) + 1, the smoothed form of scikit-learn."""
        idf: np.ndarray = np.log((1 + self.num_posts) / (1 + self.posts)) + 1
        return idf


# A term of one post relates it to no other.
MIN_DOCUMENT_FREQUENCY = 2
# A term of more posts than that separates none; scikit-learn's max_df has no such default, stop words are not listed.
MAX_DOCUMENT_SHARE = 0.5


@dataclasses.dataclass
class SelectVocabulary(beam.PTransform):
    """Features parts -> one block of SCHEMA, the vocabulary in its order; without rows if no post has a term.

    A term has to occur in at least MIN_DOCUMENT_FREQUENCY posts (fewer in a corpus of less than 50 posts for each of
    these: one post is enough below 100 posts) and in at most MAX_DOCUMENT_SHARE of the posts that have terms (or 10
    posts, whichever is more). The `vocabulary_size` most frequent of these are selected. Counts are shuffled in
    `num_parts` parts: the number of rare terms grows with the posts.

    Example:
        root | parquet.ReadParts("run/features", ("text_terms",)) | SelectVocabulary(vocabulary_size=50_000)
    """

    vocabulary_size: int = 50_000
    num_parts: int = 16

    def __post_init__(self) -> None:
        shuffle.check_num_parts(self.num_parts)
        if self.vocabulary_size < 1:
            raise ValueError(f"vocabulary_size must be at least 1, got {self.vocabulary_size}")

    def expand(self, parts: beam.PCollection[tuple[int, pa.RecordBatch]]) -> beam.PCollection[pa.RecordBatch]:
        num_posts = parts | "CountPosts" >> beam.Map(_num_texts) | "SumPosts" >> beam.CombineGlobally(sum)
        return (
            parts
            | "CountTerms" >> beam.Map(lambda part: document_frequencies(part[1].column("text_terms")))
            | "GroupByTerm" >> shuffle.GroupBlocks("term", self.num_parts)
            | "SumTerms" >> beam.Map(lambda part: sum_frequencies(part[1]))
            | "DropOthers" >> beam.Map(_select, beam.pvalue.AsSingleton(num_posts), self.vocabulary_size)
            | "KeepMostFrequent" >> beam.CombineGlobally(functools.partial(_merge, size=self.vocabulary_size))
        )


def _num_texts(part: tuple[int, pa.RecordBatch]) -> int:
    column = part[1].column("text_terms")
    return len(column) - column.null_count


def document_frequencies(terms: pa.ListArray) -> pa.RecordBatch:
    """Document frequency of each term: a block of SCHEMA. A post's terms have to be distinct."""
    found = pc.value_counts(terms.flatten())
    return pa.RecordBatch.from_arrays([found.field("values"), found.field("counts")], schema=SCHEMA)


def sum_frequencies(block: pa.RecordBatch) -> pa.RecordBatch:
    """Document frequencies summed by term."""
    summed = pa.Table.from_batches([block]).group_by("term", use_threads=False).aggregate([("posts", "sum")])
    return parquet.to_block(summed.select(["term", "posts_sum"]).rename_columns(["term", "posts"]).cast(SCHEMA))


def _select(block: pa.RecordBatch, num_posts: int, size: int) -> pa.RecordBatch:
    low, high = frequency_range(num_posts)
    posts = block.column("posts")
    return most_frequent(block.filter(pc.and_(pc.greater_equal(posts, low), pc.less_equal(posts, high))), size)


def frequency_range(num_posts: int) -> tuple[int, int]:
    """Minimum and maximum document frequency of a term of the vocabulary."""
    low = max(1, min(MIN_DOCUMENT_FREQUENCY, num_posts // POSTS_PER_FREQUENCY))
    return low, max(ALWAYS_ALLOWED, math.floor(MAX_DOCUMENT_SHARE * num_posts))


def most_frequent(block: pa.RecordBatch, size: int) -> pa.RecordBatch:
    """The first `size` terms in the vocabulary's order."""
    return blocks.sort(block, ("posts", "descending"), ("term", "descending")).slice(0, size)


def _merge(found: Iterable[pa.RecordBatch], size: int) -> pa.RecordBatch:
    return most_frequent(blocks.concat([_empty(), *found]), size)


def read_table(directory: str) -> pa.RecordBatch:
    """The vocabulary's table as one block."""
    return blocks.concat([_empty(), *(parquet.read_file(path) for path in parquet.list_files(directory))])


def from_block(block: pa.RecordBatch, num_posts: int) -> Vocabulary:
    """The vocabulary in a block of SCHEMA."""
    return Vocabulary(block.column("term"), block.column("posts").to_numpy(), num_posts)


@functools.lru_cache(maxsize=2)
def read_vocabulary(directory: str, num_posts: int) -> Vocabulary:
    """The vocabulary in a table; cached in the process."""
    return from_block(read_table(directory), num_posts)


def _empty() -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=SCHEMA)


def sparse_rows(terms: pa.ListArray, counts: pa.ListArray, vocabulary: Vocabulary) -> sp.csr_array:
    """TF-IDF of posts: [num_posts, num_terms] float64, (1 + ln count) x idf, rows of length 1 or 0."""
    columns = pc.index_in(terms.flatten(), value_set=vocabulary.terms)
    known = columns.is_valid().to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(terms), 0).to_numpy()
    rows = np.repeat(np.arange(len(terms)), lengths)[known]
    indices = columns.drop_null().to_numpy().astype(np.int64)
    values = (1 + np.log(counts.flatten().to_numpy()[known])) * vocabulary.idf()[indices]
    norms = np.sqrt(np.bincount(rows, values**2, len(terms)))
    matrix = sp.csr_array((values / norms[rows], (rows, indices)), shape=(len(terms), len(vocabulary.terms)))
    matrix.sort_indices()
    return matrix

"""Rotation of a run's embeddings onto the last run's, so that the vectors of consecutive runs can be compared.

Factors are determined only up to a rotation, and a new factorization may give another one. Each block is multiplied by
the orthogonal matrix that brings the posts of both runs nearest to their last vectors: orthogonal Procrustes
(Schönemann 1966; for embeddings over time Hamilton, Leskovec and Jurafsky 2016). Users are rotated with the posts, so
that no inner product changes.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.linalg

from transforms.embed.formulas import Widths
from transforms.tables import blocks, schemas, shuffle

# Approximate number of posts of both runs that are compared; chosen by a hash of their ids.
MAX_POSTS = 200_000
NEW, OLD = "new", "old"
COLUMNS = ("post_id", "embedding")

# Of the own, the decoded and the content block.
Rotations = tuple[np.ndarray, np.ndarray, np.ndarray]


class Continuity(NamedTuple):
    """Similarity of the embeddings of two runs.

    Attributes:
      posts: number of compared posts.
      cosine: the mean of their cosines, 0 where there is none.
      cosine_without_trend: the same without the vectors' last number, recent popularity, which does not depend on the
        space and may be most of a vector.
    """

    posts: int
    cosine: float
    cosine_without_trend: float


def share_of(num_posts: int) -> float:
    """The share of so many posts that is compared."""
    return min(1.0, MAX_POSTS / max(num_posts, 1))


def chosen(block: pa.RecordBatch, share: float) -> pa.RecordBatch:
    """The rows whose post_id has a small hash: the same posts in every table."""
    return block.filter(pa.array(blocks.stable_hash(block.column("post_id")) < share * 2.0**64))


@dataclasses.dataclass(frozen=True)
class WeighFactors:
    """Blocks of collaborative/ -> blocks with post_id and embedding: leading factors times the roots of some values.

    Attributes:
      values: [k] their singular values.
    """

    values: np.ndarray

    def __call__(self, block: pa.RecordBatch) -> pa.RecordBatch:
        factors = blocks.vectors_to_numpy(block.column("factors"))[:, : len(self.values)]
        weighed = factors * np.sqrt(self.values).astype(np.float32)
        return pa.RecordBatch.from_arrays([block.column("post_id"), blocks.numpy_to_vectors(weighed)], names=COLUMNS)


@dataclasses.dataclass
class MeetPosts(beam.PTransform):
    """{NEW, OLD: blocks with post_id and embedding} -> (part, (new [n, d], old [n, d])), the posts of both.

    Example:
        pairs = {NEW: items, OLD: last_items} | MeetPosts(width=161, num_parts=8)
    """

    width: int
    num_parts: int

    def __post_init__(self) -> None:
        shuffle.check_num_parts(self.num_parts)

    def expand(
        self, inputs: Mapping[str, beam.PCollection[pa.RecordBatch]]
    ) -> beam.PCollection[tuple[int, tuple[np.ndarray, np.ndarray]]]:
        schema = pa.schema([schemas.item_embeddings(self.width).field(name) for name in COLUMNS])
        taken = {
            name: inputs[name] | f"Take {name}" >> beam.Map(lambda block: block.select(schema.names))
            for name in (NEW, OLD)
        }
        met = taken | "MeetByPost" >> shuffle.CoGroupBlocks(
            dict.fromkeys(taken, "post_id"), dict.fromkeys(taken, schema), self.num_parts
        )
        return met | "Pairs" >> beam.Map(_pairs)


def _pairs(numbered: tuple[int, dict[str, pa.RecordBatch]]) -> tuple[int, tuple[np.ndarray, np.ndarray]]:
    part, met = numbered
    new, old = blocks.sort(met[NEW], "post_id"), met[OLD]
    found = pc.index_in(new.column("post_id"), value_set=old.column("post_id"))
    have = blocks.valid(found)
    vectors = {name: blocks.vectors_to_numpy(block.column("embedding")) for name, block in ((NEW, new), (OLD, old))}
    return part, (vectors[NEW][have], vectors[OLD][found.drop_null().to_numpy()])


def cross_products(numbered: tuple[int, tuple[np.ndarray, np.ndarray]], widths: Widths) -> tuple[int, np.ndarray]:
    """(part, of each block new^T old, all in one: [sum of w * w] float64)."""
    part, (new, old) = numbered
    products = [new[:, block].astype(np.float64).T @ old[:, block] for block in widths.slices]
    return part, np.concatenate([product.ravel() for product in products])


def rotations(products: np.ndarray, widths: Widths) -> Rotations:
    """Of each block the orthogonal matrix [w, w] with which new @ matrix is nearest to old, by summed products."""
    found, start = [], 0
    for width in widths:
        left, _, right = scipy.linalg.svd(products[start : start + width * width].reshape(width, width))
        found.append(left @ right)
        start += width * width
    return found[0], found[1], found[2]


def cosines(numbered: tuple[int, tuple[np.ndarray, np.ndarray]]) -> tuple[int, np.ndarray]:
    """(part, [number of pairs in which both are something, sum of their cosines; both without the last number])."""
    part, pair = numbered
    new, old = (vectors.astype(np.float64) for vectors in pair)
    sums: list[float] = []
    for width in (new.shape[1], new.shape[1] - 1):
        products = np.einsum("ij,ij->i", new[:, :width], old[:, :width])
        lengths = np.linalg.norm(new[:, :width], axis=1) * np.linalg.norm(old[:, :width], axis=1)
        some = lengths > 0
        sums += [some.sum(), (products[some] / lengths[some]).sum()]
    return part, np.array(sums)


def continuity(sums: np.ndarray) -> Continuity:
    """Similarity of two runs, from the sums of `cosines`."""
    means = [round(float(total / number), 6) if number else 0.0 for number, total in (sums[:2], sums[2:])]
    return Continuity(int(sums[0]), *means)

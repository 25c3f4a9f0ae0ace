"""Fused vectors -> item embeddings, and the contribution of each post to the profiles of users who liked it."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue

from transforms.embed import formulas
from transforms.embed.embedding_space import Space
from transforms.embed.exported_model import FactorPredictor
from transforms.embed.formulas import VectorMoments
from transforms.fuse.time_modality import TIME
from transforms.tables import blocks, schemas

BlockMoments = tuple[VectorMoments, VectorMoments, VectorMoments]


class Items(NamedTuple):
    """Outputs of EmbedItems.

    Attributes:
      parts: (part, block of schemas.item_embeddings).
      profiles: (part, block of schemas.post_profiles), the same posts.
      moments: one element, the moments of the three blocks over all posts.
    """

    parts: beam.PCollection[tuple[int, pa.RecordBatch]]
    profiles: beam.PCollection[tuple[int, pa.RecordBatch]]
    moments: beam.PCollection[BlockMoments]


@dataclasses.dataclass
class EmbedItems(beam.PTransform):
    """(part, block of schemas.fused) -> Items, row by row.

    Example:
        items = root | parquet.ReadParts("out/fused") | EmbedItems(space, FactorPredictor("out/model"))

    Attributes:
      space: the blocks of an embedding.
      predictor: predicts factors from content; None where there are no factors.
    """

    space: Space
    predictor: FactorPredictor | None

    def expand(self, parts: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Items:
        embed_parts = beam.FlatMap(_embed_part, space=self.space, predictor=self.predictor)
        embed_parts = embed_parts.with_output_types(tuple[int, pa.RecordBatch])
        made = parts | "EmbedPart" >> embed_parts.with_outputs("profiles", "moments", main="parts")
        moments = made.moments | "SumMoments" >> beam.CombineGlobally(sum_moments).without_defaults()
        return Items(made.parts, made.profiles, moments)


def _embed_part(
    numbered: tuple[int, pa.RecordBatch], space: Space, predictor: FactorPredictor | None
) -> Iterable[object]:
    part, fused = numbered
    items, profiles, moments = embed(fused, space, predictor)
    yield part, items
    yield pvalue.TaggedOutput("profiles", (part, profiles))
    yield pvalue.TaggedOutput("moments", moments)


def embed(
    fused: pa.RecordBatch, space: Space, predictor: FactorPredictor | None
) -> tuple[pa.RecordBatch, pa.RecordBatch, BlockMoments]:
    """Blocks of schemas.item_embeddings and schemas.post_profiles for some posts, and the moments of their blocks.

    A post without any modality (its time is none) has zeros in both.
    """
    values, mask = (blocks.vectors_to_numpy(fused.column(name)) for name in ("fused", "mask"))
    shown = [place for place, name in enumerate(space.names) if name != TIME]
    present = np.asarray(mask[:, shown] > 0)
    known = np.asarray(present.any(axis=1))
    degree = fused.column("degree").to_numpy()
    predicted = predicted_factors(values, mask * known[:, None], space, predictor)
    own, decoded, content, profile = space.post_blocks(values, degree, predicted)
    trend = fused.column("trend").to_numpy()
    embedding = formulas.item_vectors(own, decoded, content, degree, trend, space.tuning.mix)
    embedding[~known] = 0
    rows = np.flatnonzero(known)
    moments = formulas.block_moments(own[rows], decoded[rows], content[rows], degree[rows])
    columns = {name: fused.column(name) for name in ("post_id", "author_id", "created_at")}
    columns["embedding"] = blocks.numpy_to_vectors(embedding)
    columns["modalities"] = names_of(present, [space.names[place] for place in shown])
    items = schemas.conform(pa.RecordBatch.from_pydict(columns), schemas.item_embeddings(space.width))
    profiles = pa.RecordBatch.from_arrays(
        [fused.column("post_id"), blocks.numpy_to_vectors(profile)], schema=schemas.post_profiles(sum(space.widths))
    )
    return items, profiles, moments


def predicted_factors(
    values: np.ndarray, mask: np.ndarray, space: Space, predictor: FactorPredictor | None
) -> np.ndarray:
    """Factors predicted from content alone, in units of the singular vectors: [n, F'] float32; F' 0 without a model."""
    if predictor is None or not predictor.knows_factors:
        return np.zeros((len(values), 0), np.float32)
    factors: np.ndarray = predictor.factors(values, space.content_only(mask)) / np.float32(np.sqrt(space.num_posts))
    return factors


def sum_moments(found: Iterable[BlockMoments]) -> BlockMoments:
    sums = [
        VectorMoments(
            sum(m.rows for m in block), np.sum([m.total for m in block], 0), np.sum([m.outer for m in block], 0)
        )
        for block in zip(*found, strict=True)
    ]
    return sums[0], sums[1], sums[2]


def names_of(present: np.ndarray, names: list[str]) -> pa.ListArray:
    """Names of the modalities present in each row: [n] list<string>, possibly empty."""
    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int32)
    values = pa.array(names, pa.string()).take(pa.array(np.nonzero(present)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), values)

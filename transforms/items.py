"""Fused vectors -> item embeddings through the exported encoder."""

import dataclasses
from collections.abc import Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa

from transforms import blocks, schemas
from transforms.latent import LatentEncoder, read_json
from transforms.post_time import TIME


@dataclasses.dataclass
class EmbedItems(beam.PTransform):
    """(part, block of schemas.fused) -> (part, block of schemas.item_embeddings), row by row.

    Attributes:
      encoder: gives vectors of unit length.
      modalities: names in the order of the mask.
    """

    encoder: LatentEncoder
    modalities: Sequence[str]

    def __post_init__(self) -> None:
        super().__init__()

    def expand(
        self, parts: beam.PCollection[tuple[int, pa.RecordBatch]]
    ) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        return parts | "EncodePart" >> beam.Map(_encode_part, encoder=self.encoder, modalities=list(self.modalities))


def _encode_part(
    numbered: tuple[int, pa.RecordBatch], encoder: LatentEncoder, modalities: Sequence[str]
) -> tuple[int, pa.RecordBatch]:
    part, fused = numbered
    mask = blocks.vectors_to_numpy(fused.column("mask"))
    # When a post was made says nothing alone, and is no modality that a reader would look for.
    shown = [place for place, name in enumerate(modalities) if name != TIME]
    present = mask[:, shown] > 0
    latent = encoder.encode(blocks.vectors_to_numpy(fused.column("fused")), mask * present.any(axis=1, keepdims=True))
    return part, item_embeddings(fused, latent, present, [modalities[place] for place in shown])


def item_embeddings(
    fused: pa.RecordBatch, latent: np.ndarray, present: np.ndarray, modalities: Sequence[str]
) -> pa.RecordBatch:
    """A block of schemas.item_embeddings.

    Args:
      fused: the posts.
      latent: [n, L] float32.
      present: [n, M] bool, which modalities each post has.
      modalities: [M] their names.
    """
    return pa.RecordBatch.from_arrays(
        [
            fused.column("post_id"),
            blocks.numpy_to_vectors(latent),
            names_of(present, modalities),
            fused.column("author_id"),
            fused.column("created_at"),
        ],
        schema=schemas.item_embeddings(latent.shape[1]),
    )


def names_of(present: np.ndarray, names: Sequence[str]) -> pa.ListArray:
    """The names of what is present in each row: [n] list<string>, empty where there is nothing."""
    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int32)
    values = pa.array(list(names), pa.string()).take(pa.array(np.nonzero(present)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def read_modalities(fused_dir: str) -> list[str]:
    """The names of the modalities of a fused table, in the order of its masks."""
    return [modality["name"] for modality in read_json(fused_dir, "_layout.json")["modalities"]]

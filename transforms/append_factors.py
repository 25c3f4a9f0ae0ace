"""The collaborative factors of posts as the last modality of their fused vectors."""

import dataclasses

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms import blocks, schemas, shuffle


@dataclasses.dataclass
class AppendFactors(beam.PTransform):
    """{"fused", "factors": blocks of schemas.fused and schemas.collaborative} -> (part, block of schemas.fused).

    The fused vector gets `rank` more numbers, the factors times the root of the number of posts that have any (so that
    their mean square is 1 like that of other modalities), and the mask one more; `degree` says how many interactions
    there are. A post without interactions has zeros and is masked.

    Attributes:
      width: numbers of the fused vectors that come in.
      num_modalities: of them.
      rank: factors of a post; 0 adds nothing.
      num_posts: posts with factors.
    """

    width: int
    num_modalities: int
    rank: int
    num_posts: int
    num_parts: int

    def __post_init__(self) -> None:
        super().__init__()
        shuffle.check_num_parts(self.num_parts)

    def expand(
        self, inputs: dict[str, beam.PCollection[pa.RecordBatch]]
    ) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        met = inputs | "JoinByPost" >> shuffle.CoGroupBlocks(
            keys={"fused": "post_id", "factors": "post_id"},
            schemas={
                "fused": schemas.fused(self.width, self.num_modalities),
                "factors": schemas.collaborative(max(self.rank, 1)),
            },
            num_parts=self.num_parts,
        )
        return met | "Append" >> beam.Map(_append, rank=self.rank, scale=float(np.sqrt(self.num_posts)))


def _append(numbered: tuple[int, dict[str, pa.RecordBatch]], rank: int, scale: float) -> tuple[int, pa.RecordBatch]:
    part, met = numbered
    return part, append(blocks.sort(met["fused"], "post_id"), met["factors"], rank, scale)


def append(fused: pa.RecordBatch, factors: pa.RecordBatch, rank: int, scale: float) -> pa.RecordBatch:
    """The fused rows, in their order, with their factors; a block of schemas.fused."""
    found = pc.index_in(fused.column("post_id"), value_set=factors.column("post_id"))
    have, rows = blocks.valid(found), found.drop_null().to_numpy()
    degree = np.zeros(fused.num_rows)
    degree[have] = factors.column("degree").to_numpy()[rows]
    values, mask = (blocks.vectors_to_numpy(fused.column(name)) for name in ("fused", "mask"))
    if rank:
        added = np.zeros((fused.num_rows, rank), np.float32)
        added[have] = blocks.vectors_to_numpy(factors.column("factors"))[rows] * np.float32(scale)
        values = np.hstack([values, added])
        mask = np.hstack([mask, have[:, None].astype(np.float32)])
    columns = {name: fused.column(name) for name in ("post_id", "author_id", "created_at")}
    columns |= {"fused": blocks.numpy_to_vectors(values), "mask": blocks.numpy_to_vectors(mask)}
    schema = schemas.fused(values.shape[1], mask.shape[1])
    return schemas.conform(pa.RecordBatch.from_pydict(columns | {"degree": pa.array(degree)}), schema)

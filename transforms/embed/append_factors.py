"""The collaborative factors of posts as the last modality of their fused vectors, and their recent popularity."""

import dataclasses
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.embed import trend
from transforms.embed.parameters import Trend
from transforms.tables import blocks, exact_sums, schemas, shuffle


@dataclasses.dataclass
class AppendFactors(beam.PTransform):
    """{"fused", "factors", perhaps "history" (trend.COLUMNS): blocks} -> (part, block of schemas.fused).

    The fused vector gets `rank` more numbers, the factors times the root of the number of posts that have any (so that
    their mean square is 1 like that of other modalities), and the mask one more; `degree` is the number of
    interactions. A post without interactions has zeros and is masked. `trend` is computed from the history, which is
    needed if a trend is given.

    Example:
        sizes = {"width": 128, "num_modalities": 3, "rank": 64, "num_posts": 1_682, "num_users": 943}
        {"fused": content, "factors": factors} | AppendFactors(**sizes, num_parts=8)

    Attributes:
      width: of the fused vectors that come in.
      num_modalities: of them.
      rank: factors of a post; 0 adds nothing.
      num_posts: posts with interactions.
      num_users: users with some.
      trend: parameters of recent popularity; None leaves zeros.
    """

    width: int
    num_modalities: int
    rank: int
    num_posts: int
    num_users: int
    num_parts: int
    trend: Trend | None = None

    def __post_init__(self) -> None:
        shuffle.check_num_parts(self.num_parts)

    def expand(
        self, inputs: dict[str, beam.PCollection[pa.RecordBatch]]
    ) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        joined = {name: inputs[name] for name in ("fused", "factors")}
        kinds = {
            "fused": schemas.fused(self.width, self.num_modalities),
            "factors": schemas.collaborative(max(self.rank, 1)),
        }
        if self.trend is not None:
            joined["heat"] = inputs["history"] | "Heat" >> beam.Map(trend.heat_by_post, self.trend)
            kinds["heat"] = exact_sums.SCHEMA
        met = joined | "JoinByPost" >> shuffle.CoGroupBlocks(dict.fromkeys(joined, "post_id"), kinds, self.num_parts)
        return met | "Append" >> beam.Map(_append, config=_Config.of(self))


class _Config(NamedTuple):
    rank: int
    num_posts: int
    num_users: int
    trend: Trend | None

    @classmethod
    def of(cls, transform: AppendFactors) -> "_Config":
        return cls(*(getattr(transform, name) for name in cls._fields))


def _append(numbered: tuple[int, dict[str, pa.RecordBatch]], config: _Config) -> tuple[int, pa.RecordBatch]:
    part, met = numbered
    appended = append(
        blocks.sort(met["fused"], "post_id"), met["factors"], config.rank, float(np.sqrt(config.num_posts))
    )
    if config.trend is None:
        return part, appended
    levels = trend.levels_of_posts(appended, met["heat"], config.trend, config.num_users, config.num_posts)
    field = appended.schema.get_field_index("trend")
    return part, appended.set_column(field, appended.schema.field(field), pa.array(levels))


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
    columns |= {"degree": pa.array(degree), "trend": fused.column("trend")}
    schema = schemas.fused(values.shape[1], mask.shape[1])
    return schemas.conform(pa.RecordBatch.from_pydict(columns), schema)

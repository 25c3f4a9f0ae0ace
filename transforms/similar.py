"""Similar posts: the nearest neighbours of every post by cosine (embeddings are of unit length)."""

import dataclasses

import apache_beam as beam
import numpy as np
import pyarrow as pa

from transforms import blocks, schemas
from transforms.tiles import Catalogue, Eligibility, Exclusions
from transforms.topk import top_k

# Posts whose neighbours are looked for at a time; each such block scans the catalogue once.
POST_ROWS = 8192
_READ_ROWS = 65_536


@dataclasses.dataclass
class FindSimilar(beam.PTransform):
    """(part, block of schemas.candidates) -> (part, block of schemas.SIMILAR_POSTS), by post and rank.

    Eligible posts have neighbours and are neighbours; never of themselves.

    Attributes:
      candidates: the directory of all candidates, complete when this runs.
      similar_k: most neighbours a post.
    """

    candidates: str
    similar_k: int = 20
    eligibility: Eligibility = dataclasses.field(default_factory=Eligibility)
    num_threads: int = 1

    def __post_init__(self) -> None:
        super().__init__()
        if self.similar_k < 1:
            raise ValueError(f"similar_k must be at least 1, got {self.similar_k}")

    def expand(
        self, parts: beam.PCollection[tuple[int, pa.RecordBatch]]
    ) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        return parts | "RankPart" >> beam.Map(
            _rank_part,
            catalogue=Catalogue(self.candidates),
            similar_k=self.similar_k,
            eligibility=self.eligibility,
            num_threads=self.num_threads,
        )


def _rank_part(
    numbered: tuple[int, pa.RecordBatch],
    catalogue: Catalogue,
    similar_k: int,
    eligibility: Eligibility,
    num_threads: int,
) -> tuple[int, pa.RecordBatch]:
    part, candidates = numbered
    posts = blocks.sort(candidates.filter(pa.array(eligibility.mask(candidates))), "post_id")
    made = [
        similar_posts(piece, catalogue, similar_k, eligibility, num_threads)
        for piece in blocks.split_rows(posts, POST_ROWS)
    ]
    return part, blocks.concat(made) if made else schemas.empty(schemas.SIMILAR_POSTS)


def similar_posts(
    posts: pa.RecordBatch, catalogue: Catalogue, similar_k: int, eligibility: Eligibility, num_threads: int = 1
) -> pa.RecordBatch:
    """The neighbours of some candidates, a block of schemas.SIMILAR_POSTS by post (in their order) and rank."""
    post_id = posts.column("post_id")
    nobody = np.empty(0, np.int64), pa.array([], pa.string())
    ranked = top_k(
        blocks.vectors_to_numpy(posts.column("embedding")),
        catalogue.read(_READ_ROWS),
        similar_k,
        eligibility=eligibility,
        exclusions=Exclusions(np.arange(len(post_id)), post_id, *nobody),
        num_threads=num_threads,
    )
    arrays = [post_id.take(pa.array(ranked.query)), pa.array(ranked.rank), ranked.post_id, pa.array(ranked.score)]
    return pa.RecordBatch.from_arrays(arrays, schema=schemas.SIMILAR_POSTS)

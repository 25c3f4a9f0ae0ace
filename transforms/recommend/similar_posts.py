"""Similar posts: the recommendations of a user with one post in the history and nothing else."""

import dataclasses

import apache_beam as beam
import numpy as np
import pyarrow as pa

from transforms.embed import formulas
from transforms.embed.embedding_space import Covariances, Space
from transforms.search.catalog import Catalog
from transforms.search.eligibility import Eligibility
from transforms.search.exclusions import Exclusions
from transforms.search.top_k import top_k_of
from transforms.tables import blocks, schemas

# Posts whose neighbors are searched at a time; each such block scans the catalog, or the regions within its bounds.
POST_ROWS = 1 << 16


@dataclasses.dataclass
class FindSimilar(beam.PTransform):
    """(part, block of schemas.candidates) -> (part, block of schemas.SIMILAR_POSTS), by post and rank.

    Eligible posts have neighbors and are neighbors; never of themselves. A post with a zero profile vector
    has none.

    Example:
        neighbors = candidates | FindSimilar("out/candidates", space, covariances, similar_k=20)

    Attributes:
      candidates: the directory of all candidates, complete when this runs.
      space: the blocks of an embedding.
      covariances: of the items' blocks.
      similar_k: most neighbors a post.
    """

    candidates: str
    space: Space
    covariances: Covariances
    similar_k: int = 20
    eligibility: Eligibility = dataclasses.field(default_factory=Eligibility)
    num_threads: int = 1

    def __post_init__(self) -> None:
        if self.similar_k < 1:
            raise ValueError(f"similar_k must be at least 1, got {self.similar_k}")

    def expand(
        self, parts: beam.PCollection[tuple[int, pa.RecordBatch]]
    ) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        return parts | "RankPart" >> beam.Map(_rank_part, Catalog(self.candidates), self)


def _rank_part(
    numbered: tuple[int, pa.RecordBatch], catalog: Catalog, config: FindSimilar
) -> tuple[int, pa.RecordBatch]:
    part, candidates = numbered
    # In the order of the catalog: similar posts visit the same regions.
    posts = candidates.filter(pa.array(config.eligibility.mask(candidates)))
    made = [similar_posts(piece, catalog, config) for piece in blocks.split_rows(posts, POST_ROWS)]
    together = blocks.concat(made) if made else schemas.empty(schemas.SIMILAR_POSTS)
    return part, blocks.sort(together, "post_id", "rank")


def similar_posts(posts: pa.RecordBatch, catalog: Catalog, config: FindSimilar) -> pa.RecordBatch:
    """The neighbors of some candidates, a block of schemas.SIMILAR_POSTS by post (in their order) and rank."""
    no_authors = np.empty(0, np.int64), pa.array([], pa.string())
    tuning = config.space.tuning
    profiles = blocks.vectors_to_numpy(posts.column("profile"))
    queries = formulas.user_vectors(profiles, config.covariances, tuning.content_weight, tuning.mix)
    has_query = queries.any(axis=1)
    post_id = posts.column("post_id").filter(pa.array(has_query))
    ranked = top_k_of(
        queries[has_query],
        catalog,
        config.similar_k,
        eligibility=config.eligibility,
        exclusions=Exclusions(np.arange(len(post_id)), post_id, *no_authors),
        with_vectors=False,
        num_threads=config.num_threads,
    )
    arrays = [post_id.take(pa.array(ranked.query)), pa.array(ranked.rank), ranked.post_id, pa.array(ranked.score)]
    return pa.RecordBatch.from_arrays(arrays, schema=schemas.SIMILAR_POSTS)

"""Recommendation lists of users, with scores and reasons."""

import dataclasses
from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.recommend.popular_posts import popular
from transforms.recommend.reasons import GatheredVectors, Reasons, explain, strongest
from transforms.recommend.rerank import SCORES_ALONE, Preferences, rerank
from transforms.recommend.tastes import find_tastes, likeness_vectors
from transforms.search.catalog import VECTORS, Catalog
from transforms.search.eligibility import Eligibility
from transforms.search.exclusions import Exclusions
from transforms.search.top_k import Ranked, top_k_of
from transforms.tables import blocks, progress, schemas, shuffle, threads
from transforms.text.language_tags import primary_language

# Users whose lists are in memory at a time; each such block scans the catalog, or the regions within its bounds.
USER_ROWS = 1 << 14
# Rows of the catalog that are read at a time.
READ_ROWS = 65_536
# Columns of users that restrict their lists.
STATED = pa.schema([schemas.USERS.field(name) for name in ("user_id", "lang", "blocked_authors")])


@dataclasses.dataclass(frozen=True)
class RecommendConfig:
    """Constraints on a recommendation list.

    Attributes:
      k: most posts a user.
      eligibility: posts that any user may get.
      include_seen: also posts that the user has interacted with, unless negatively (hide, report).
      max_per_author: most posts of one author in a list; None for any number.
      preferences: criteria besides the scores.
      half_lives: of recency in the own columns of a profile and in the others, as in the users' profiles.
      block_widths: numbers of each block of a profile.
      num_threads: threads of the search.
    """

    k: int = 50
    eligibility: Eligibility = dataclasses.field(default_factory=Eligibility)
    include_seen: bool = False
    max_per_author: int | None = None
    preferences: Preferences = SCORES_ALONE
    half_lives: tuple[float | None, float | None] = (None, None)
    block_widths: tuple[int, ...] = ()
    num_threads: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")
        if self.max_per_author is not None and self.max_per_author < 1:
            raise ValueError(f"max_per_author must be at least 1, got {self.max_per_author}")


@dataclasses.dataclass
class Recommend(beam.PTransform):
    """{"embeddings", "scales", "history", "users": blocks} -> (part, block of schemas.RECOMMENDATIONS).

    A user's list is the exact top k by inner product with what is in `candidates`, or chosen from a longer one by
    `config.preferences`; a user without history or interests gets the popular posts, those in the own language first.
    Excluded are posts seen, the user's own, and those of blocked authors. A part is sorted by user and rank.

    Example:
        tables = {"embeddings": user_embeddings, "scales": user_scales, "history": history, "users": users}
        lists = tables | Recommend("out/candidates", width=161, num_parts=8, config=RecommendConfig(k=20))

    Attributes:
      candidates: the directory of schemas.candidates, complete when this runs.
      width: the numbers of an embedding.
    """

    candidates: str
    width: int
    num_parts: int
    config: RecommendConfig = dataclasses.field(default_factory=RecommendConfig)

    def __post_init__(self) -> None:
        shuffle.check_num_parts(self.num_parts)

    def expand(
        self, inputs: dict[str, beam.PCollection[pa.RecordBatch]]
    ) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        stated = inputs["users"] | "Stated" >> beam.Map(lambda block: block.select(STATED.names))
        met = {
            "embeddings": inputs["embeddings"],
            "scales": inputs["scales"],
            "history": inputs["history"],
            "stated": stated,
        } | "GroupByUser" >> shuffle.CoGroupBlocks(
            keys=dict.fromkeys(("embeddings", "scales", "history", "stated"), "user_id"),
            schemas={
                "embeddings": schemas.user_embeddings(self.width),
                "scales": schemas.user_scales(len(self.config.block_widths)),
                "history": schemas.HISTORY,
                "stated": STATED,
            },
            num_parts=self.num_parts,
        )
        catalog = Catalog(self.candidates)
        return met | "RankPart" >> beam.Map(_rank_part, catalog=catalog, config=self.config)


def _rank_part(
    numbered: tuple[int, dict[str, pa.RecordBatch]], catalog: Catalog, config: RecommendConfig
) -> tuple[int, pa.RecordBatch]:
    part, met = numbered
    users = blocks.sort(met["embeddings"], "user_id")
    made = []
    for piece in blocks.split_rows(users, USER_ROWS):
        made.append(recommend(piece, met["scales"], met["history"], met["stated"], catalog, config))
        progress.advance(piece.num_rows)
    return part, blocks.concat(made) if made else schemas.empty(schemas.RECOMMENDATIONS)


def recommend(
    users: pa.RecordBatch,
    scales: pa.RecordBatch,
    history: pa.RecordBatch,
    stated: pa.RecordBatch,
    catalog: Catalog,
    config: RecommendConfig,
) -> pa.RecordBatch:
    """The lists of some users, a block of schemas.RECOMMENDATIONS by user (in their order) and rank.

    Args:
      users: user_embeddings, each user once.
      scales: user_scales of these users, and perhaps of others.
      history: of these users, and perhaps of others.
      stated: STATED: likewise.
      catalog: the candidates.
      config: constraints on the lists.
    """
    unknown = pc.equal(users.column("source"), "none").to_numpy(zero_copy_only=False)
    lists = []
    for is_popular in (False, True):
        places = np.flatnonzero(unknown == is_popular)
        if len(places):
            chosen = users.take(pa.array(places))
            exclusions = exclusions_of(chosen.column("user_id"), history, stated, config.include_seen)
            if is_popular:
                made = _popular_lists(chosen.column("user_id"), stated, exclusions, catalog, config)
            else:
                made = _own_lists(chosen, scales, history, exclusions, catalog, config)
            lists.append((places, *made))
    return _to_block(users.column("user_id"), lists)


def _own_lists(
    users: pa.RecordBatch,
    scales: pa.RecordBatch,
    history: pa.RecordBatch,
    exclusions: Exclusions,
    catalog: Catalog,
    config: RecommendConfig,
) -> tuple[Ranked, Reasons]:
    liked = strongest(users.column("user_id"), history, config.half_lives)
    prefers = config.preferences
    queries = blocks.vectors_to_numpy(users.column("embedding"))
    ranked = top_k_of(
        queries,
        catalog,
        prefers.pool(config.k),
        eligibility=config.eligibility,
        exclusions=exclusions,
        max_per_author=config.max_per_author,
        num_threads=config.num_threads,
    )
    wanted = VECTORS if prefers.taste_share else ("profile",)
    unwanted = set(VECTORS) - set(wanted)
    vectors = GatheredVectors(liked.post_id, threads.ahead(catalog.read(READ_ROWS, without=unwanted)), wanted)
    # Of a pool that holds at most so many posts of an author no list can hold more.
    tastes = None
    if prefers.taste_share and len(ranked.query):
        like = likeness_vectors(vectors.distinct("embedding"), prefers.content)
        tastes = find_tastes(liked.user, vectors.codes, like, liked.weights[:, 0], len(queries))
    ranked = rerank(ranked, config.k, prefers, tastes)
    own_scales = scales.take(pc.index_in(users.column("user_id"), value_set=scales.column("user_id")))
    spread = np.repeat(blocks.vectors_to_numpy(own_scales.column("scales")), config.block_widths, axis=1)
    own_width = config.block_widths[0]
    sources, num_threads = users.column("source"), config.num_threads
    return ranked, explain(ranked, queries, spread, own_width, sources, liked, vectors, num_threads)


def _popular_lists(
    user_id: pa.Array, stated: pa.RecordBatch, exclusions: Exclusions, catalog: Catalog, config: RecommendConfig
) -> tuple[Ranked, Reasons]:
    said = stated.column("lang").take(pc.index_in(user_id, value_set=stated.column("user_id")))
    ranked = popular(
        primary_language(said),
        catalog,
        config.k,
        eligibility=config.eligibility,
        exclusions=exclusions,
        max_per_author=config.max_per_author,
        preferences=config.preferences,
    )
    num_rows = len(ranked.query)
    return ranked, Reasons(pa.array(["popular"] * num_rows, pa.string()), pa.nulls(num_rows, pa.string()))


def exclusions_of(user_id: pa.Array, history: pa.RecordBatch, stated: pa.RecordBatch, include_seen: bool) -> Exclusions:
    """Excluded posts and authors of these users; a query is a place in `user_id`."""
    if include_seen:
        history = history.filter(pc.less(history.column("weight"), 0))
    seen_by, seen = _of_users(user_id, history.column("user_id"), history.column("post_id"))
    authors = stated.column("blocked_authors")
    of_row = stated.column("user_id").take(pc.list_parent_indices(authors))
    blocked_by, blocked_author = _of_users(user_id, of_row, pc.list_flatten(authors))
    own = np.arange(len(user_id))
    return Exclusions(seen_by, seen, np.concatenate([own, blocked_by]), pa.concat_arrays([user_id, blocked_author]))


def _of_users(user_id: pa.Array, row_user: pa.Array, values: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """The rows of these users: (the user's place in `user_id` [m] int64, value [m])."""
    found = pc.index_in(row_user, value_set=user_id)
    return found.drop_null().to_numpy().astype(np.int64), values.filter(found.is_valid())


def _to_block(user_id: pa.Array, lists: Iterable[tuple[np.ndarray, Ranked, Reasons]]) -> pa.RecordBatch:
    rows = [_to_rows(user_id, *entry) for entry in lists]
    if not rows:
        return schemas.empty(schemas.RECOMMENDATIONS)
    block = blocks.concat([block for _, block in rows])
    place = np.concatenate([place for place, _ in rows])
    return block.take(pa.array(np.lexsort((block.column("rank").to_numpy(), place))))


def _to_rows(
    user_id: pa.Array, places: np.ndarray, ranked: Ranked, reasons: Reasons
) -> tuple[np.ndarray, pa.RecordBatch]:
    place = places[ranked.query]
    arrays = [
        user_id.take(pa.array(place)),
        pa.array(ranked.rank),
        ranked.post_id,
        pa.array(ranked.score),
        reasons.reason,
        reasons.because_post_id,
    ]
    return place, pa.RecordBatch.from_arrays(arrays, schema=schemas.RECOMMENDATIONS)

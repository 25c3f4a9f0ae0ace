"""Embeddings -> recommendation lists of users and similar posts.

Reads posts/, users/, history/, item_embeddings/, post_profiles/, user_embeddings/, user_scales/ and the parameters of
the space (beside fused/ and collaborative/); writes candidates/, recommendations/ and similar_posts/.

    fusefeed recommend --output out --run_date 2026-01-31 --k 50 --max_age_days 14 --max_per_author 2
"""

import datetime
import math
import os
from typing import TYPE_CHECKING

from pipelines.command_line.options import Options, RecommendOptions, end_of_run
from pipelines.stage import part_sizes, runner
from pipelines.stage.declaration import Places, Stage
from transforms.tables import files

if TYPE_CHECKING:
    import apache_beam as beam

    from transforms.embed.embedding_space import Space
    from transforms.recommend.recommend_posts import RecommendConfig
    from transforms.recommend.rerank import Preferences
    from transforms.search.eligibility import Eligibility

# Of histories or lists of a part, some hundred bytes each.
ROWS_HELD = 1_000_000


def build_candidates(root: "beam.Pipeline", options: Options, places: Places) -> None:
    """Wires the first pipeline: the catalog, which the second one scans."""
    import apache_beam as beam

    from transforms.recommend import candidates
    from transforms.search import cells, regions
    from transforms.tables import parquet, schemas

    found = _space(places)
    width, profile_width = found.width, sum(found.widths)
    num_parts = part_sizes.choose_num_parts(options, places.input("posts"))
    wanted = {
        "posts": candidates.COLUMNS,
        "item_embeddings": None,
        "post_profiles": None,
        "history": ("post_id", "weight"),
    }
    read = {
        table: root | f"Read {table}" >> parquet.ReadBlocks(places.input(table), columns)
        for table, columns in wanted.items()
    }
    made = {
        "posts": read["posts"],
        "items": read["item_embeddings"],
        "profiles": read["post_profiles"],
        "history": read["history"],
    } | candidates.MakeCandidates(width, profile_width, num_parts)
    schema, directory = schemas.candidates(width, profile_width), places.output("candidates")
    if num_cells := cells.choose_num_cells(parquet.count_rows(places.input("item_embeddings"))):
        fitted = (
            root
            | beam.Create([places.input("item_embeddings")])
            | "FitCells"
            >> beam.Map(cells.fit, places.input("user_embeddings"), num_cells, files.join(directory, regions.CELLS_DIR))
        )
        ordered = made | cells.OrderByCell(fitted, num_parts)
        made, in_regions = ordered.parts, files.join(directory, regions.REGIONS_DIR)
        schema = schemas.candidates(width, profile_width, cells.leading_width(width))
        _ = ordered.regions | "WriteRegions" >> parquet.WriteParts(in_regions, schemas.regions(width))
    _ = made | "WriteCandidates" >> parquet.WriteParts(directory, schema, parquet.READ_OFTEN)


def build(root: "beam.Pipeline", options: Options, places: Places) -> None:
    """Wires the second pipeline: lists of users and neighbors of posts."""
    import apache_beam as beam

    from transforms.embed import embedding_space
    from transforms.recommend import recommend_posts, similar_posts
    from transforms.search.eligibility import Eligibility
    from transforms.tables import parquet, schemas

    found = _space(places)
    candidates = places.output("candidates")
    read = {
        table: root | f"Read {table}" >> parquet.ReadBlocks(places.input(table))
        for table in ("user_embeddings", "user_scales", "history", "users")
    }
    parts_of_lists = num_parts(options, places)
    lists = {
        "embeddings": read["user_embeddings"],
        "scales": read["user_scales"],
        "history": read["history"],
        "users": read["users"],
    } | recommend_posts.Recommend(candidates, found.width, parts_of_lists, config(options, found))
    _ = lists | "WriteLists" >> parquet.WriteParts(places.output("recommendations"), schemas.RECOMMENDATIONS)
    posts = root | "ReadCandidates" >> parquet.ReadParts(candidates)
    if options.similar_k:
        allowed = Eligibility(include_sensitive=options.include_sensitive)
        covariances = embedding_space.read_covariances(places.input("item_embeddings"))
        neighbors = posts | similar_posts.FindSimilar(
            candidates, found, covariances, options.similar_k, allowed, _num_threads()
        )
    else:
        neighbors = posts | "NoNeighbors" >> beam.Map(lambda part: (part[0], schemas.empty(schemas.SIMILAR_POSTS)))
    _ = neighbors | "WriteNeighbors" >> parquet.WriteParts(places.output("similar_posts"), schemas.SIMILAR_POSTS)


def config(options: Options, space: "Space") -> "RecommendConfig":
    """Configuration of the recommended lists, from the flags."""
    from transforms.recommend.recommend_posts import RecommendConfig

    return RecommendConfig(
        k=options.k,
        eligibility=eligibility(options),
        include_seen=options.include_seen,
        max_per_author=options.max_per_author or None,
        preferences=preferences(options, space),
        half_lives=(space.tuning.recency, space.tuning.content_recency),
        block_widths=tuple(space.widths),
        num_threads=_num_threads(),
    )


def preferences(options: Options, space: "Space") -> "Preferences":
    """Reranking preferences from the flags; posts are alike by content and by their predicted factors."""
    from transforms.recommend.rerank import Preferences

    _, decoded, content = space.widths.slices[:3]
    return Preferences(
        diversity=options.diversity,
        half_life_days=options.freshness_half_life_days,
        now=end_of_run(options),
        taste_share=options.taste_share,
        content=(decoded, content),
    )


def eligibility(options: Options) -> "Eligibility":
    """Eligibility of posts for recommendation, from the flags."""
    from transforms.search.eligibility import Eligibility

    age = datetime.timedelta(days=options.max_age_days)
    return Eligibility(
        include_sensitive=options.include_sensitive,
        exclude_replies=options.exclude_replies,
        created_after=end_of_run(options) - age if options.max_age_days else None,
    )


def num_parts(options: Options, places: Places) -> int:
    """--num_parts, or as few as fit into memory: for each part the whole catalog is read and scanned."""
    from transforms.recommend.recommend_posts import USER_ROWS
    from transforms.tables import parquet

    users, history = (parquet.count_rows(places.input(name)) for name in ("user_embeddings", "history"))
    # The hash does not make parts alike; of one that is a little larger than USER_ROWS there would be two scans.
    full = math.ceil(users / (0.9 * USER_ROWS)), math.ceil(max(history, users * options.k) / ROWS_HELD)
    return options.num_parts or max(1, *full)


def _num_threads() -> int:
    return os.cpu_count() or 1


def _space(places: Places) -> "Space":
    from transforms.embed import embedding_space

    return embedding_space.read_space(places.input("fused"), places.input("collaborative"))


def run(options: Options, places: Places) -> None:
    """Runs both pipelines."""
    with runner.new_pipeline(options) as root:
        build_candidates(root, options, places)
    with runner.new_pipeline(options) as root:
        build(root, options, places)


STAGE = Stage(
    "recommend",
    reads=(
        *("posts", "users", "fused", "history", "collaborative"),
        *("item_embeddings", "post_profiles", "user_embeddings", "user_scales"),
    ),
    writes=("candidates", "recommendations", "similar_posts"),
    run=run,
    work="user_embeddings",
    options=(RecommendOptions, "num_parts"),
    tensorflow=False,
)

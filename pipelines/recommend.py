"""Embeddings -> what each user gets and what is like each post.

Reads posts/, users/, history/, item_embeddings/ and user_embeddings/; writes candidates/, recommendations/ and
similar_posts/.

    fusefeed recommend --output out --run_date 2026-01-31 --k 50 --max_age_days 14 --max_per_author 2
"""

import datetime
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines import parts, stage
from pipelines.options import Options
from pipelines.stage import Places, Stage

if TYPE_CHECKING:
    import apache_beam as beam

    from transforms.recommend import RecommendConfig

DESCRIPTION = "Embeddings -> recommendations and similar posts."


def build_candidates(root: "beam.Pipeline", options: Options, places: Places) -> None:
    """Wires the first pipeline: the catalogue, which the second one scans."""
    import apache_beam as beam

    from transforms import candidates, schemas, tables

    width = _width(places)
    wanted = {"posts": candidates.COLUMNS, "item_embeddings": None, "history": ("post_id", "weight")}
    read = {
        table: root
        | f"Read {table}" >> tables.ReadParts(places.input(table), columns)
        | f"Blocks {table}" >> beam.Values()
        for table, columns in wanted.items()
    }
    made = {
        "posts": read["posts"],
        "items": read["item_embeddings"],
        "history": read["history"],
    } | candidates.MakeCandidates(width, parts.choose_num_parts(options, places.input("posts")))
    _ = made | "WriteCandidates" >> tables.WriteParts(places.output("candidates"), schemas.candidates(width))


def build(root: "beam.Pipeline", options: Options, places: Places) -> None:
    """Wires the second pipeline: lists of users and neighbours of posts."""
    import apache_beam as beam

    from transforms import recommend, schemas, similar, tables
    from transforms.tiles import Eligibility

    candidates = places.output("candidates")
    read = {
        table: root | f"Read {table}" >> tables.ReadParts(places.input(table)) | f"Blocks {table}" >> beam.Values()
        for table in ("user_embeddings", "history", "users")
    }
    num_parts = parts.choose_num_parts(options, places.input("user_embeddings"), places.input("history"))
    lists = {
        "embeddings": read["user_embeddings"],
        "history": read["history"],
        "users": read["users"],
    } | recommend.Recommend(candidates, _width(places), num_parts, config(options))
    _ = lists | "WriteLists" >> tables.WriteParts(places.output("recommendations"), schemas.RECOMMENDATIONS)
    posts = root | "ReadCandidates" >> tables.ReadParts(candidates)
    if options.similar_k:
        eligibility = Eligibility(include_sensitive=options.include_sensitive)
        neighbors = posts | similar.FindSimilar(candidates, options.similar_k, eligibility, _num_threads())
    else:
        neighbors = posts | "NoNeighbors" >> beam.Map(lambda part: (part[0], schemas.empty(schemas.SIMILAR_POSTS)))
    _ = neighbors | "WriteNeighbors" >> tables.WriteParts(places.output("similar_posts"), schemas.SIMILAR_POSTS)


def config(options: Options) -> "RecommendConfig":
    """What a list may hold, by the flags."""
    from transforms.recommend import RecommendConfig
    from transforms.tiles import Eligibility

    age = datetime.timedelta(days=options.max_age_days)
    eligibility = Eligibility(
        include_sensitive=options.include_sensitive,
        exclude_replies=options.exclude_replies,
        created_after=parts.end_of_run(options) - age if options.max_age_days else None,
    )
    return RecommendConfig(options.k, eligibility, options.include_seen, options.max_per_author or None, _num_threads())


def _num_threads() -> int:
    return os.cpu_count() or 1


def _width(places: Places) -> int:
    from transforms import tables

    width: int = tables.read_schema(places.input("item_embeddings")).field("embedding").type.list_size
    return width


def run(options: Options, places: Places) -> None:
    """Runs both pipelines."""
    with stage.new_pipeline(options) as root:
        build_candidates(root, options, places)
    with stage.new_pipeline(options) as root:
        build(root, options, places)


STAGE = Stage(
    "recommend",
    reads=("posts", "users", "history", "item_embeddings", "user_embeddings"),
    writes=("candidates", "recommendations", "similar_posts"),
    run=run,
    work="user_embeddings",
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    return stage.main(STAGE, DESCRIPTION, argv)


if __name__ == "__main__":
    sys.exit(main())

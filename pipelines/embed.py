"""Fused vectors and interactions -> embeddings of posts and users in one space.

Reads posts/, interactions/, users/, fused/, transform_fn/ and model/; writes history/, item_embeddings/ and
user_embeddings/.

    fusefeed embed --output out --run_date 2026-01-31 --half_life_days 30 --kind_weights like=1,view=0.2
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines import parts, stage
from pipelines.options import Options, UsageError
from pipelines.stage import Places, Stage

if TYPE_CHECKING:
    import apache_beam as beam

DESCRIPTION = "Fused vectors and interactions -> embeddings of posts and users."


def build(root: "beam.Pipeline", options: Options, places: Places) -> None:
    """Wires the stage."""
    import apache_beam as beam

    from transforms import counts, history, items, latent, profiles, reposts, schemas, tables
    from transforms.interaction_weights import InteractionWeights, parse_kind_weights
    from transforms.interests import InterestsEncoder

    num_parts = parts.choose_num_parts(options, *map(places.input, ("posts", "interactions", "users")))
    width = latent.latent_width(places.input("model"))
    encoder = latent.LatentEncoder(places.input("model"))
    interests = InterestsEncoder(places.input("transform_fn"), encoder, width)
    weights = InteractionWeights(parse_kind_weights(options.kind_weights), options.half_life_days)

    def read(table: str, columns: Sequence[str] | None = None) -> "beam.PCollection":
        return root | f"Read {table}" >> tables.ReadParts(places.input(table), columns)

    item_parts = read("fused") | items.EmbedItems(encoder, items.read_modalities(places.input("fused")))
    history_parts = {
        "interactions": read("interactions", history.COLUMNS) | "Interactions" >> beam.Values(),
        "posts": read("posts", reposts.COLUMNS) | "Posts" >> beam.Values(),
    } | history.MakeHistory(weights, num_parts, parts.end_of_run(options))
    made = {
        "users": read("users") | "Users" >> beam.Values(),
        "history": history_parts | "History" >> beam.Values(),
        "items": item_parts | "Items" >> beam.Values(),
    } | profiles.MakeProfiles(width, num_parts, interests)
    for table, written, schema in (
        ("history", history_parts, schemas.HISTORY),
        ("item_embeddings", item_parts, schemas.item_embeddings(width)),
        ("user_embeddings", made.parts, schemas.user_embeddings(width)),
    ):
        _ = written | f"Write {table}" >> tables.WriteParts(places.output(table), schema)
    _ = made.counts | "WriteCounts" >> counts.WriteCounts(places.output("history"))


def run(options: Options, places: Places) -> None:
    """Runs the stage.

    Raises:
      UsageError: --kind_weights cannot be read.
    """
    check_kind_weights(options)
    with stage.new_pipeline(options) as root:
        build(root, options, places)


def check_kind_weights(options: Options) -> None:
    """Finds out whether --kind_weights can be read.

    Raises:
      UsageError: it cannot.
    """
    from transforms.interaction_weights import parse_kind_weights

    try:
        parse_kind_weights(options.kind_weights)
    except ValueError as error:
        raise UsageError(f"--{error}") from None


STAGE = Stage(
    "embed",
    reads=("posts", "interactions", "users", "fused", "transform_fn", "model"),
    writes=("history", "item_embeddings", "user_embeddings"),
    run=run,
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    return stage.main(STAGE, DESCRIPTION, argv)


if __name__ == "__main__":
    sys.exit(main())

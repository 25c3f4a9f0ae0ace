"""Fused vectors and histories -> embeddings of posts and users in one space.

Reads users/, fused/, history/, collaborative/, transform_fn/ and model/; writes item_embeddings/, user_embeddings/ and,
for recommend, post_profiles/ and user_scales/.

    fusefeed embed --output out --run_date 2026-01-31
"""

import dataclasses
from typing import TYPE_CHECKING

from pipelines.command_line.options import Options
from pipelines.continuity import alignment
from pipelines.stage import part_sizes, runner
from pipelines.stage.declaration import Places, Stage

if TYPE_CHECKING:
    import apache_beam as beam

    from transforms.embed.embedding_space import Space
    from transforms.embed.procrustes import Rotations


def read_space(places: Places, rotations: "Rotations | None" = None) -> "Space":
    """The space of the embeddings, rotated onto the last run's."""
    from transforms.embed import embedding_space

    found = embedding_space.read_space(places.input("fused"), places.input("collaborative"))
    return dataclasses.replace(found, rotations=rotations)


def build_items(root: "beam.Pipeline", places: Places, rotations: "Rotations | None") -> None:
    """Wires the first pipeline: posts."""
    import apache_beam as beam

    from transforms.embed import embedding_space, exported_model, item_embeddings, text_to_factors
    from transforms.tables import parquet, schemas

    found = read_space(places, rotations)
    predictor = exported_model.FactorPredictor(places.input("model"))
    fused = root | "ReadFused" >> parquet.ReadParts(places.input("fused"))
    made = fused | item_embeddings.EmbedItems(found, predictor)
    directory = places.output("item_embeddings")
    _ = made.parts | "WriteItems" >> parquet.WriteParts(directory, schemas.item_embeddings(found.width))
    _ = made.profiles | "WriteProfiles" >> parquet.WriteParts(
        places.output("post_profiles"), schemas.post_profiles(sum(found.widths))
    )
    _ = made.moments | "WriteCovariances" >> beam.Map(embedding_space.write_covariances, directory)
    text_map = fused | text_to_factors.FitTextFactors(found)
    _ = text_map | "WriteTextFactors" >> beam.Map(text_to_factors.write_map, directory)


def build_users(root: "beam.Pipeline", options: Options, places: Places, rotations: "Rotations | None" = None) -> None:
    """Wires the second pipeline: users, scaled by the covariances of the posts."""
    from transforms.embed import embedding_space, text_to_factors, user_embeddings
    from transforms.embed.stated_interests import InterestsEncoder
    from transforms.tables import counts, parquet, schemas

    found = read_space(places, rotations)
    text_map = text_to_factors.read_map(places.output("item_embeddings"))
    interests = InterestsEncoder(places.input("transform_fn"), found, text_map)
    rows = {name: parquet.count_rows(places.input(name)) for name in ("history", "users")}
    num_parts = options.num_parts or user_embeddings.choose_num_parts(
        rows["history"], rows["users"], part_sizes.ROWS_PER_PART
    )
    read = {
        name: root | f"Read {name}" >> parquet.ReadBlocks(directory)
        for name, directory in (("users", places.input("users")), ("history", places.input("history")))
    }
    covariances = embedding_space.read_covariances(places.output("item_embeddings"))
    made = read | user_embeddings.MakeProfiles(
        places.output("post_profiles"), found, covariances, num_parts, interests, user_embeddings.INTERESTS_WORTH
    )
    _ = made.parts | "WriteUsers" >> parquet.WriteParts(
        places.output("user_embeddings"), schemas.user_embeddings(found.width)
    )
    _ = made.scales | "WriteScales" >> parquet.WriteParts(
        places.output("user_scales"), schemas.user_scales(len(found.widths))
    )
    _ = made.counts | "WriteCounts" >> counts.WriteCounts(places.output("user_embeddings"))


def run(options: Options, places: Places) -> None:
    """Runs both pipelines, and those that rotate the space onto the last run's."""
    before = alignment.last_items(options, places)
    rotations = alignment.find_rotations(options, places, read_space(places), before) if before else None
    with runner.new_pipeline(options) as root:
        build_items(root, places, rotations)
    alignment.write(options, places, before if rotations is not None else "")
    with runner.new_pipeline(options) as root:
        build_users(root, options, places, rotations)


STAGE = Stage(
    "embed",
    reads=("users", "fused", "history", "collaborative", "transform_fn", "model"),
    writes=("item_embeddings", "post_profiles", "user_embeddings", "user_scales"),
    run=run,
    options=("num_parts",),
)

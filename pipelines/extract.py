"""Posts -> features of every modality: one row a post, one nullable column a modality.

Reads posts/ and the media that it refers to, and of the last published run features/ and media/: what these tell of
posts whose media have not changed is taken over. Writes features/, media/ (what became of every medium) and
rejects/extract/.

    fusefeed extract --output out --run_date 2026-01-31 --media_root media
"""

from typing import Any

import apache_beam as beam

from pipelines.command_line.options import ExtractOptions, Options
from pipelines.stage import fingerprint, part_sizes, runner
from pipelines.stage.declaration import Places, Stage
from pipelines.store import runs
from transforms.extract import extract_features, reuse, supplied_vectors
from transforms.extract.extract_features import ExtractFeatures, feature_schema
from transforms.media.encoders import make_encoder
from transforms.media.media_files import MediaLimits
from transforms.tables import counts, parquet, schemas
from transforms.tables.files import join
from transforms.tables.rejects import WriteRejects, choose_num_parts

REUSED = "reusable"


def encoders_of(options: Options) -> dict[str, str]:
    """The flag of each kind of media."""
    return {"image": options.image_encoder, "video": options.video_encoder, "audio": options.audio_encoder}


def media_keys(options: Options) -> reuse.MediaKeys:
    """Keys of media files, equal as long as the files and the way they are read are unchanged."""
    network = fingerprint.file_states(options.image_encoder) if options.image_encoder.startswith("keras:") else []
    limits, per_post = media_limits(options), extract_features.MAX_MEDIA_PER_POST
    version = reuse.version_of(encoders_of(options), limits, per_post, network, options.allow_media_host)
    return reuse.MediaKeys(options.media_root, version)


def build_reusable(root: beam.Pipeline, options: Options, places: Places, before: str) -> None:
    """Wires the first pipeline: features in the run `before` of posts whose media have not changed."""
    features = parquet.read_schema(join(before, "features"))
    wanted = [kind for kind, spec in encoders_of(options).items() if spec != "none"]
    schema = reuse.reusable_schema(features, wanted)
    num_parts = part_sizes.choose_num_parts(options, places.input("posts"), join(before, "features"))
    read: dict[str, Any] = {
        "posts": root | "ReadPosts" >> parquet.ReadParts(places.input("posts"), ("post_id", "media"))
    }
    columns = {"media": schemas.MEDIA.names, "features": ["post_id", *schema.names[len(schemas.MEDIA) :]]}
    for name, chosen in columns.items():
        read[name] = root | f"Read {name}" >> parquet.ReadBlocks(join(before, name), chosen)
    found = read | reuse.FindReusable(media_keys(options), schema, num_parts)
    _ = found | "WriteReusable" >> parquet.WriteParts(places.scratch(REUSED), schema)


def find_before(options: Options) -> str:
    """The directory of the last published run if its features of media can be reused; else ""."""
    name = runs.last_before(options.output, options.run_name) if options.refit_days else ""
    before = runs.directory(options.output, name) if name else ""
    if not before or not all(parquet.list_files(join(before, table)) for table in ("features", "media")):
        return ""
    known = schemas.widths_of(parquet.read_schema(join(before, "features")))
    made = {kind: make_encoder(kind, spec) for kind, spec in encoders_of(options).items()}
    return before if all(known.get(kind) == each.width for kind, each in made.items() if each is not None) else ""


def build(root: beam.Pipeline, options: Options, places: Places, before: str = "") -> None:
    """Wires the stage: read parts, extract, write parts; rejects and counts beside them.

    Args:
      before: of `find_before`; `build_reusable` has found there what may be taken over.
    """
    encoders = encoders_of(options)
    widths = supplied_vectors.choose_widths(counts.read_counts(places.input("posts")))
    extracted = (
        root
        | "ReadPosts" >> parquet.ReadParts(places.input("posts"))
        | "ExtractFeatures"
        >> ExtractFeatures(
            encoders=encoders,
            vector_widths=widths,
            keys=media_keys(options),
            limits=media_limits(options),
            reusable=places.scratch(REUSED) if before else "",
            hosts=options.allow_media_host,
        )
    )
    _ = extracted.parts | "WriteFeatures" >> parquet.WriteParts(
        places.output("features"), feature_schema(encoders, widths)
    )
    _ = extracted.media | "WriteMedia" >> parquet.WriteParts(places.output("media"), schemas.MEDIA)
    num_parts = choose_num_parts(parquet.count_rows(places.input("posts")))
    _ = extracted.rejects | "WriteRejects" >> WriteRejects(places.output("rejects/extract"), num_parts)
    _ = extracted.counts | "WriteCounts" >> counts.WriteCounts(places.output("features"))


def media_limits(options: Options) -> MediaLimits:
    """Limits on the cost of one media file, from the flags."""
    return MediaLimits(
        max_bytes=options.max_media_bytes,
        max_seconds=options.max_media_seconds,
        reject_long=options.reject_long_media,
    )


def run(options: Options, places: Places) -> None:
    """Runs the stage."""
    before = find_before(options)
    if before:
        with runner.new_pipeline(options) as root:
            build_reusable(root, options, places, before)
    with runner.new_pipeline(options) as root:
        build(root, options, places, before)


STAGE = Stage(
    "extract",
    reads=("posts",),
    writes=("features", "media", "rejects/extract"),
    run=run,
    work="posts",
    options=(ExtractOptions, "refit_days"),
    files=("image_encoder",),
    reads_media=True,
)

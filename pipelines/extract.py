"""Posts -> features of every modality: one row a post, one nullable column a modality.

Reads posts/ and the media that it refers to; writes features/ and rejects/extract/.

    fusefeed extract --output out --run_date 2026-01-31 --media_root media
"""

import sys
from collections.abc import Sequence

import apache_beam as beam

from pipelines import stage
from pipelines.options import Options
from pipelines.stage import Places, Stage
from transforms import counts, ready_made, tables
from transforms.extract import ExtractFeatures, feature_schema
from transforms.media import MediaLimits
from transforms.rejects import WriteRejects

DESCRIPTION = "Posts -> features of every modality."


def build(root: beam.Pipeline, options: Options, places: Places) -> None:
    """Wires the stage: read parts, extract, write parts; rejects and counts beside them."""
    encoders = {"image": options.image_encoder, "video": options.video_encoder, "audio": options.audio_encoder}
    widths = ready_made.choose_widths(counts.read_counts(places.input("posts")))
    extracted = (
        root
        | "ReadPosts" >> tables.ReadParts(places.input("posts"))
        | "ExtractFeatures"
        >> ExtractFeatures(
            encoders=encoders,
            vector_widths=widths,
            roots=options.media_root,
            limits=media_limits(options),
            max_media_per_post=options.max_media_per_post,
            block_rows=options.block_rows,
            hosts=options.allow_media_host,
        )
    )
    _ = extracted.parts | "WriteFeatures" >> tables.WriteParts(
        places.output("features"), feature_schema(encoders, widths)
    )
    _ = extracted.rejects | "WriteRejects" >> WriteRejects(places.output("rejects/extract"))
    _ = extracted.counts | "WriteCounts" >> counts.WriteCounts(places.output("features"))


def media_limits(options: Options) -> MediaLimits:
    """What one media file may cost, by the flags."""
    return MediaLimits(
        max_bytes=options.max_media_bytes,
        max_pixels=options.max_pixels,
        max_seconds=options.max_media_seconds,
        reject_long=options.reject_long_media,
        max_frames=options.max_frames,
        max_audio_samples=options.max_audio_samples,
        max_decode_seconds=options.max_decode_seconds,
        max_decode_mib=options.max_decode_mib,
        max_fetch_seconds=options.max_fetch_seconds,
    )


def run(options: Options, places: Places) -> None:
    """Runs the stage."""
    with stage.new_pipeline(options) as root:
        build(root, options, places)


STAGE = Stage(
    "extract",
    reads=("posts",),
    writes=("features", "rejects/extract"),
    run=run,
    work="posts",
    options=("extract",),
    files=("image_encoder",),
    reads_media=True,
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    return stage.main(STAGE, DESCRIPTION, argv)


if __name__ == "__main__":
    sys.exit(main())

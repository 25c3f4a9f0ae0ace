"""Rejects, the only output for bad data: a code from a closed list, a count and a row with its location, without post
content."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from transforms.tables import blocks, parquet, schemas, shuffle

# Valid rows that do not belong to this run, or no longer.
AFTER_RUN_DATE = "after_run_date"
ERASED = "erased"

ROWS_PER_PART = 2_000_000
STRETCH_ROWS = 100_000

# code -> (meaning, remedy)
CODES: Mapping[str, tuple[str, str]] = {
    # ingest
    "row_malformed": (
        "the line or row cannot be parsed",
        "check the line; exports are often truncated or have merged lines",
    ),
    "row_not_object": ("the line is JSON but not an object", "write one JSON object per line"),
    "row_too_long": ("the row is longer than 8 MiB", "shorten the row"),
    "row_too_deep": ("the JSON is nested more than 64 levels deep", "flatten the row"),
    "encoding_invalid": ("the row is not valid UTF-8", "convert the file to UTF-8"),
    "id_missing": ("post_id or user_id is missing or empty", "give every row an id"),
    "id_invalid": (
        "an id is not a string or integer, is longer than 512 bytes or has control characters",
        "correct the id",
    ),
    "time_invalid": ("created_at is neither ISO 8601 nor a Unix time in s, ms, us or ns", "convert the time"),
    AFTER_RUN_DATE: ("created_at is after the end of --run_date (UTC)", "none needed; a later run accepts the row"),
    ERASED: (
        "the row belongs to a user or post listed in --erase; its id is not shown",
        "none needed; remove it from the input",
    ),
    "field_invalid": ("a field has the wrong type (the message names it)", "correct or remove the field"),
    "vector_invalid": ("a supplied vector is not a list of finite numbers", "correct or remove the vector"),
    "file_unreadable": ("the rest of the file cannot be read (a truncated gzip, for example)", "fetch the file again"),
    "gzip_ratio_exceeded": (
        "the file decompresses to more than 200 times its size; the rest is not read",
        "check the file; supply it uncompressed if it is genuine",
    ),
    # extract
    "vector_width": (
        "a supplied vector differs in width from most vectors of its name",
        "use a name for one encoder only",
    ),
    "media_missing": ("the file does not exist", "check --media_root and the export"),
    "media_outside_root": ("the URI points outside every --media_root", "move the file or add a root"),
    "media_uri_invalid": ("the URI is empty, too long or has characters invalid in a path", "correct the URI"),
    "media_scheme_not_allowed": (
        "the URI's scheme is not allowed (http, for example)",
        "download the file, or set --allow_media_host",
    ),
    "media_host_not_allowed": ("the host is not listed in --allow_media_host", "add the host if it is trusted"),
    "media_address_private": (
        "the host resolves to a private network address",
        "none needed; check who wrote the post",
    ),
    "media_http_failed": ("the HTTP request failed", "try again later, or download the file first"),
    "media_timeout": ("fetching takes longer than 60 seconds", "try again later, or download the file first"),
    "media_kind_unknown": ("neither media.kind nor the file extension says image, video or audio", "set media.kind"),
    "media_too_many": ("the post has more than 16 media", "none needed; the first 16 are read"),
    "media_empty": ("the file has no bytes", "fetch the file again"),
    "media_too_large": ("the file is larger than --max_media_bytes", "raise the limit or shrink the file"),
    "media_wrong_kind": ("the content is of another kind than media.kind", "correct media.kind or the file"),
    "media_encrypted": ("the media is encrypted", "supply it decrypted"),
    "media_too_long": ("longer than --max_media_seconds, and --reject_long_media is given", "shorten the media"),
    "media_failed": ("the decoder failed with an unexpected error", "report it with the file"),
    "decoder_crashed": ("the decoder process crashed on the file", "convert the file; report it"),
    "decoder_timeout": ("decoding takes longer than 120 seconds", "shrink the file"),
    "decoder_memory": ("decoding takes more than 2 GiB of memory", "shrink the file"),
    "image_too_large": ("the header declares more than 100 megapixels", "shrink the image"),
    "image_undecodable": ("no decoder can read the image", "fetch the file again"),
    "image_truncated": ("the image is truncated", "fetch the file again"),
    "image_unsupported": ("the image format is recognized but not supported", "convert it to JPEG, PNG or WebP"),
    "video_undecodable": ("the file cannot be opened as a video", "fetch the file again"),
    "video_too_large": ("the header declares frames of more than 100 megapixels", "shrink the video"),
    "video_too_many_frames": ("the video has more than 50,000 frames", "shorten the video"),
    "video_no_frames": ("the file opens but has no decodable frame or audio", "fetch the file again"),
    "audio_undecodable": ("the file cannot be opened as audio", "fetch the file again"),
    "audio_too_many_samples": ("the audio has more than 200 million samples", "convert it to a lower sample rate"),
    "audio_no_samples": ("the file opens but has no decodable sample", "fetch the file again"),
    "audio_not_finite": ("no decoded sample is a finite number", "fetch the file again"),
}


def reject_block(
    *,
    source: Sequence[str] | pa.Array,
    stage: str,
    code: Sequence[str] | str,
    message: Sequence[str | None] | str | None = None,
    line: Sequence[int | None] | pa.Array | None = None,
    record: Sequence[str | None] | pa.Array | None = None,
    id: Sequence[str | None] | pa.Array | None = None,
) -> pa.RecordBatch:
    """Rows of the rejects table, one per `source`; a single `code` or `message` applies to all of them.

    Raises:
      ValueError: a code is not in CODES.
    """
    num_rows = len(source)
    codes = [code] * num_rows if isinstance(code, str) else list(code)
    unknown = set(codes) - CODES.keys()
    if unknown:
        raise ValueError(f"unknown reject code {sorted(unknown)[0]!r}, add it to transforms.tables.rejects.CODES")
    columns = {
        "source": source,
        "line": line,
        "record": record,
        "id": id,
        "stage": [stage] * num_rows,
        "code": codes,
        "message": [message] * num_rows if message is None or isinstance(message, str) else message,
    }
    return pa.RecordBatch.from_arrays(
        [_column(columns[field.name], field.type, num_rows) for field in schemas.REJECTS], schema=schemas.REJECTS
    )


def _column(values: Iterable[object] | pa.Array | None, kind: pa.DataType, num_rows: int) -> pa.Array:
    if values is None:
        return pa.nulls(num_rows, kind)
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)


def choose_num_parts(num_rows: int) -> int:
    """Number of parts of the rejects table for that many input rows, all of which may be rejected."""
    return max(1, -(-num_rows // ROWS_PER_PART))


@dataclasses.dataclass
class WriteRejects(beam.PTransform):
    """Writes blocks of rejects to a directory: the rows of a source in its order, together as far as parts allow.

    In several parts, STRETCH_ROWS of a source are in one: a single file may have all the rejects.

    Example:
      >>> with beam.Pipeline("FnApiRunner") as root:
      ...     rejects = reject_block(source=["posts.jsonl"], stage="ingest", code="id_missing", line=[7])
      ...     _ = root | beam.Create([rejects]) | WriteRejects("rejects") | beam.Map(print)
      ('rejects/part-00000.parquet', 1)
    """

    directory: str
    num_parts: int = 1

    def expand(self, rejects: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[tuple[str, int]]:
        return (
            rejects
            | "Stretches" >> beam.Map(_with_stretch)
            | "GroupByStretch" >> shuffle.GroupBlocks("_stretch", self.num_parts)
            | "Sort" >> beam.Map(_sort_part)
            | "Write" >> parquet.WriteParts(self.directory, schemas.REJECTS)
        )


def _with_stretch(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with the source and the STRETCH_ROWS of it that each is in, as one word."""
    stretch = pc.divide(pc.coalesce(rows.column("line"), _record_number(rows), pa.scalar(0, pa.int64())), STRETCH_ROWS)
    word = pc.binary_join_element_wise(pc.fill_null(rows.column("source"), ""), stretch.cast(pa.string()), "#")
    return rows.append_column("_stretch", word)


def _record_number(rows: pa.RecordBatch) -> pa.Array:
    """The number of a record where it is one; of media it is `media[0]`, after the post's id."""
    record = rows.column("record")
    return pc.if_else(pc.match_substring_regex(record, r"^\d+$"), record, None).cast(pa.int64())


def _sort_part(numbered: tuple[int, pa.RecordBatch]) -> tuple[int, pa.RecordBatch]:
    part, rows = numbered
    keyed = rows.append_column("_row", _record_number(rows))  # 10 comes after 9
    return part, blocks.sort(keyed, "source", "line", "_row", "id", "record", "code").select(schemas.REJECTS.names)

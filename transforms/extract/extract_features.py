"""Features of posts: one row a post, one nullable column a modality."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam import pvalue

from transforms.extract import media_outcomes, supplied_vectors
from transforms.extract.pooling import DecodedRows, MediaEntry, Pool
from transforms.extract.reuse import MediaKeys
from transforms.media.decode import MEDIA_KINDS, Medium, read_uri
from transforms.media.encoders import make_encoder
from transforms.media.media_files import MediaError, MediaLimits, kind_of
from transforms.media.sandbox import IsolatedDecoder
from transforms.tables import blocks, parquet, progress, schemas
from transforms.tables.files import exists
from transforms.text.token_counts import text_terms

# Networks allow from 4 to 20 media in a post; one post must not occupy a worker.
MAX_MEDIA_PER_POST = 16
# Posts whose media are held at a time: a few MB each while they wait for the decoder.
BLOCK_ROWS = 256
# Posts without media take little time: in blocks of 256 rows, most of it went into the blocks.
_MOST_BLOCKS = 16


class Extracted(NamedTuple):
    """(part, features) and (part, block of schemas.MEDIA) of every part, reject rows, and (name, number) counts."""

    parts: beam.PCollection
    media: beam.PCollection
    rejects: beam.PCollection
    counts: beam.PCollection


@dataclasses.dataclass
class ExtractFeatures(beam.PTransform):
    """(part, posts) -> (part, features), the outcomes of the media, rejects and counts.

    A medium without features becomes a reject; its post goes on with its other modalities. No bytes of media leave the
    worker and its decoder process.

    Attributes:
      encoders: the flag of each kind of media: {"image": "opencv", "video": "opencv", "audio": "logmel"}, or "none".
      vector_widths: names of the supplied vectors that become modalities, and their widths.
      keys: of the posts' media, with the folders that these may be read from.
      limits: of one file.
      reusable: a directory with reusable features, a file for each part that has any; "" for none.
      hosts: the hosts that media may be fetched from by http(s), as `http_fetch.check_hosts` takes them.

    Example:
        extracted = posts | ExtractFeatures(
            encoders={"image": "opencv", "video": "none", "audio": "none"},
            vector_widths={"clip": 512},
            keys=MediaKeys(["/data/media"], version="1"),
            limits=MediaLimits(max_seconds=60.0),
        )
        _ = extracted.parts | parquet.WriteParts("out/features", feature_schema(encoders, {"clip": 512}))
    """

    encoders: Mapping[str, str]
    vector_widths: Mapping[str, int]
    keys: MediaKeys
    limits: MediaLimits
    reusable: str = ""
    hosts: Sequence[str] = ()

    def __post_init__(self) -> None:
        for kind, spec in self.encoders.items():
            make_encoder(kind, spec)

    def expand(self, posts: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Extracted:
        make = functools.partial(Extractor, self.encoders, self.vector_widths, self.keys, self.limits, hosts=self.hosts)
        extract = beam.ParDo(_ExtractPart(make, self.reusable))
        outputs = posts | "ExtractPart" >> extract.with_outputs("media", "rejects", "counts", main="parts")
        return Extracted(outputs.parts, outputs.media, outputs.rejects, outputs.counts)


class _ExtractPart(beam.DoFn):
    """Holds the encoders and the decoder process of a worker."""

    def __init__(self, make_extractor: "Callable[[], Extractor]", reusable: str) -> None:
        self.make_extractor, self.reusable = make_extractor, reusable

    def setup(self) -> None:
        self.extractor = self.make_extractor()

    def teardown(self) -> None:
        self.extractor.close()

    @beam.typehints.with_output_types(tuple[int, pa.RecordBatch])
    def process(self, numbered: tuple[int, pa.RecordBatch]) -> Iterator[Any]:
        part, posts = numbered
        path = parquet.part_path(self.reusable, part)
        reused = parquet.read_file(path) if self.reusable and exists(path) else None
        made = self.extractor.extract(posts, reused)
        yield part, made.features
        yield pvalue.TaggedOutput("media", (part, made.media))
        if made.rejects.num_rows:
            yield pvalue.TaggedOutput("rejects", made.rejects)
        for count in made.counts.items():
            yield pvalue.TaggedOutput("counts", count)


class ExtractOutputs(NamedTuple):
    """Extraction results for some posts: features, a block of schemas.MEDIA, rejects and counts."""

    features: pa.RecordBatch
    media: pa.RecordBatch
    rejects: pa.RecordBatch
    counts: Mapping[str, int]


class Extractor:
    """The work of `ExtractFeatures` on one part, without Beam.

    Args:
      encoders, vector_widths, keys, limits, hosts: as of `ExtractFeatures`.
      max_media_per_post: media beyond are rejected.
      block_rows: posts with media that are in work at a time.
    """

    def __init__(
        self,
        encoders: Mapping[str, str],
        vector_widths: Mapping[str, int],
        keys: MediaKeys,
        limits: MediaLimits,
        max_media_per_post: int = MAX_MEDIA_PER_POST,
        block_rows: int = BLOCK_ROWS,
        hosts: Sequence[str] = (),
    ) -> None:
        made = {kind: make_encoder(kind, spec) for kind, spec in encoders.items()}
        self.encoders = {kind: encoder for kind, encoder in made.items() if encoder is not None}
        self.vector_widths = vector_widths
        self.keys, self.hosts, self.limits = keys, hosts, limits
        self.max_media_per_post, self.block_rows = max_media_per_post, block_rows
        self.schema = feature_schema(encoders, vector_widths)
        self.decoder = IsolatedDecoder({kind: made.encode is None for kind, made in self.encoders.items()}, limits)

    def close(self) -> None:
        """Ends the decoder process."""
        self.decoder.close()

    def extract(self, posts: pa.RecordBatch, reused: pa.RecordBatch | None = None) -> ExtractOutputs:
        """Extraction results for one part's posts.

        Args:
          posts: of schemas.POSTS.
          reused: reusable features of posts whose media are unchanged, a block of `reuse.reusable_schema`.
        """
        no_media, no_rejects = schemas.empty(schemas.MEDIA), schemas.empty(schemas.REJECTS)
        finished = [ExtractOutputs(schemas.empty(self.schema), no_media, no_rejects, {})]
        # Results come in the order of the media. The media of the next rows are read while these are decoded.
        for (rows, entry), result in self.decoder.decode(self._read(posts, reused)):
            if entry is not None:
                rows.add(entry, result)
            else:
                finished.append(self._finish(rows))
                progress.advance(rows.posts.num_rows)
        return _concat(finished)

    def _read(
        self, posts: pa.RecordBatch, reused: pa.RecordBatch | None
    ) -> Iterator[tuple[tuple[DecodedRows, MediaEntry | None], Medium | None]]:
        """((rows, media entry), its bytes) of every entry, and after the last one of some rows ((rows, None), None)."""
        alts = media_alts(posts.column("media"))
        terms = text_terms(posts.column("text"), posts.column("hashtags"), alts)
        for start, num_rows in self._split(posts):
            own_terms = [column.slice(start, num_rows) for column in terms]
            rows = self._begin(posts.slice(start, num_rows), own_terms, reused)
            for entry, medium in self._read_entries(rows.unread):
                yield (rows, entry), medium
            yield (rows, None), None

    def _split(self, posts: pa.RecordBatch) -> Iterator[tuple[int, int]]:
        """(first row, number of rows) of each block: up to `block_rows` posts with media and those between."""
        has_media = pc.fill_null(pc.list_value_length(posts.column("media")), 0).to_numpy(zero_copy_only=False) > 0
        before = np.cumsum(has_media)
        start = 0
        while start < posts.num_rows:
            end = np.searchsorted(before, before[start] - has_media[start] + self.block_rows, "right")
            num_rows = min(int(end) - start, _MOST_BLOCKS * self.block_rows)
            yield start, num_rows
            start += num_rows

    def _begin(self, posts: pa.RecordBatch, terms: Sequence[pa.Array], reused: pa.RecordBatch | None) -> DecodedRows:
        """Rows with their reused features; the other media are still to be read."""
        pools = {kind: Pool(encoder, posts.num_rows) for kind, encoder in self.encoders.items()}
        known = None
        fresh = pc.greater(pc.fill_null(pc.list_value_length(posts.column("media")), 0), 0)
        if reused is not None:
            place = pc.index_in(posts.column("post_id"), value_set=reused.column("post_id"))
            rows, found = np.flatnonzero(blocks.valid(place)), reused.take(place.drop_null())
            for kind, pool in pools.items():
                pool.take_over(rows, found.column(kind))
            known = found.select(schemas.MEDIA.names)
            fresh = pc.and_(fresh, place.is_null())
        unread = posts.filter(fresh)
        # Before the files are read: one that changes meanwhile has another key the next time, and is read again.
        keys = self.keys(unread)
        places = np.flatnonzero(fresh.to_numpy(zero_copy_only=False))
        return DecodedRows(posts, terms, pools, known, unread, places, keys, [[] for _ in places])

    def _read_entries(self, posts: pa.RecordBatch) -> Iterator[tuple[MediaEntry, Medium | None]]:
        """Every media entry with its bytes; None where it cannot be read or its kind is not extracted."""
        for row, position, entry in media_entries(posts.column("media")):
            uri, kind, medium, error = entry["uri"] or "", "unknown", None, None
            try:
                if position >= self.max_media_per_post:
                    raise MediaError("media_too_many", f"the post has more than {self.max_media_per_post} media")
                kind = kind_of(entry["kind"], uri)
                if kind in self.encoders or (kind == "video" and "audio" in self.encoders):
                    medium = Medium(kind, read_uri(uri, self.keys.roots, self.hosts, self.limits))
            except MediaError as failure:
                error = failure
            yield MediaEntry(row, position, entry["uri"], kind, error), medium

    def _finish(self, rows: DecodedRows) -> ExtractOutputs:
        """Extraction results for rows whose media have all been decoded."""
        posts = rows.posts
        columns = {name: posts.column(name) for name in ("post_id", "author_id", "created_at")}
        columns |= dict(zip(("text_terms", "text_counts"), rows.terms, strict=True))
        columns |= {kind: pool.column() for kind, pool in rows.pools.items()}
        vectors, wrong = supplied_vectors.vector_columns(posts, self.vector_widths)
        columns |= vectors
        media = media_outcomes.outcome_block(rows.unread.column("post_id"), rows.keys, rows.outcomes)
        if rows.known is not None:
            media = blocks.concat([rows.known, media])
        counts = media_outcomes.counts_of(media)
        if rows.known is not None:
            counts["media.reused_posts"] = rows.known.num_rows
        for name, column in columns.items():
            if name not in ("post_id", "author_id", "created_at", "text_counts"):
                counts[f"features.{name.removesuffix('_terms')}"] = len(column) - column.null_count
        rejects = blocks.concat([media_outcomes.rejects_of(media), wrong])
        for code, number in _count_values(rejects.column("code")):
            counts[f"rejects.{code}"] = number
        return ExtractOutputs(schemas.conform(pa.RecordBatch.from_pydict(columns), self.schema), media, rejects, counts)


def _concat(outputs: Sequence[ExtractOutputs]) -> ExtractOutputs:
    """The results of all, those of the media sorted by post, and the sums of the counts."""
    features, media, rejects, counts = zip(*outputs, strict=True)
    total: collections.Counter[str] = collections.Counter()
    for each in counts:
        total.update(each)
    return ExtractOutputs(
        blocks.concat(features), blocks.sort(blocks.concat(media), "post_id"), blocks.concat(rejects), total
    )


def feature_schema(encoders: Mapping[str, str], vector_widths: Mapping[str, int]) -> pa.Schema:
    """The schema of the features table of these encoders and supplied vectors."""
    made = {kind: make_encoder(kind, encoders.get(kind, "none")) for kind in MEDIA_KINDS}
    widths = {kind: encoder.width for kind, encoder in made.items() if encoder is not None}
    ready = {supplied_vectors.modality_name(name): width for name, width in sorted(vector_widths.items())}
    return schemas.features(widths | ready)


def media_entries(media: pa.ListArray) -> Iterator[tuple[int, int, dict[str, str | None]]]:
    """(row, index within the post, entry) of every media entry."""
    for row in np.flatnonzero(pc.fill_null(pc.list_value_length(media), 0).to_numpy(zero_copy_only=False)):
        for index, entry in enumerate(media[int(row)].as_py()):
            yield int(row), index, entry or {"kind": None, "uri": None, "alt": None}


def media_alts(media: pa.ListArray) -> pa.ListArray:
    """The alternative texts of each post's media: list<string>."""
    entries = media.flatten()
    alts = entries.field("alt") if len(entries) else pa.array([], pa.string())
    lengths = pc.fill_null(pc.list_value_length(media), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), alts)


def _count_values(column: pa.Array) -> Iterator[tuple[str, int]]:
    for entry in pc.value_counts(column).to_pylist():
        yield entry["values"], entry["counts"]

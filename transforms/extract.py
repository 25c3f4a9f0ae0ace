"""Features of posts: one row a post, one nullable column a modality."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam import pvalue

from transforms import blocks, progress, ready_made, schemas
from transforms.decode import MEDIA_KINDS, Decoded, DecodeError, decode_entry
from transforms.encoders import Encoder, make_encoder
from transforms.media import MediaLimits
from transforms.rejects import reject_block
from transforms.text import text_terms

STAGE = "extract"
_ENCODE_AT_ONCE = 32  # Decoded samples that wait for their encoder: what bounds the memory of decoded media.


class Extracted(NamedTuple):
    """(part, features) of every part, reject rows, and (name, number) counts."""

    parts: beam.PCollection
    rejects: beam.PCollection
    counts: beam.PCollection


@dataclasses.dataclass
class ExtractFeatures(beam.PTransform):
    """(part, posts) -> (part, features), rejects and counts.

    A medium that gives no features becomes a reject; its post goes on with what else it has. No bytes of media leave
    the function that decodes them.

    Attributes:
      encoders: the flag of each kind of media: {"image": "opencv", "video": "opencv", "audio": "logmel"}, or "none".
      vector_widths: ready-made vectors to take over as modalities, and their widths.
      roots: the folders that media may be read from.
      limits: what one file may cost.
      max_media_per_post: entries beyond are rejected.
      block_rows: posts that are worked on together.
    """

    encoders: Mapping[str, str]
    vector_widths: Mapping[str, int]
    roots: Sequence[str]
    limits: MediaLimits
    max_media_per_post: int = 16
    block_rows: int = 256

    def __post_init__(self) -> None:
        super().__init__()
        for kind, spec in self.encoders.items():
            make_encoder(kind, spec)

    def expand(self, posts: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Extracted:
        outputs = posts | "ExtractPart" >> beam.ParDo(_ExtractPart(self)).with_outputs(
            "rejects", "counts", main="parts"
        )
        return Extracted(outputs.parts, outputs.rejects, outputs.counts)


class _ExtractPart(beam.DoFn):
    """Holds the encoders of a worker."""

    def __init__(self, config: ExtractFeatures) -> None:
        self.config = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}

    def setup(self) -> None:
        self.extractor = Extractor(**self.config)

    @beam.typehints.with_output_types(tuple[int, pa.RecordBatch])
    def process(self, numbered: tuple[int, pa.RecordBatch]) -> Iterator[Any]:
        part, posts = numbered
        features, rejects, counts = self.extractor.extract(posts)
        yield part, features
        if rejects.num_rows:
            yield pvalue.TaggedOutput("rejects", rejects)
        for count in counts.items():
            yield pvalue.TaggedOutput("counts", count)


class Extractor:
    """The work of `ExtractFeatures` on one part, without Beam; the arguments are its attributes."""

    def __init__(
        self,
        encoders: Mapping[str, str],
        vector_widths: Mapping[str, int],
        roots: Sequence[str],
        limits: MediaLimits,
        max_media_per_post: int,
        block_rows: int,
    ) -> None:
        made = {kind: make_encoder(kind, spec) for kind, spec in encoders.items()}
        self.encoders = {kind: encoder for kind, encoder in made.items() if encoder is not None}
        self.vector_widths = vector_widths
        self.roots, self.limits = roots, limits
        self.max_media_per_post, self.block_rows = max_media_per_post, block_rows
        self.schema = feature_schema(encoders, vector_widths)

    def extract(self, posts: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch, dict[str, int]]:
        """(features, rejects, counts) of a part's posts."""
        features, rejected = [schemas.empty(self.schema)], [schemas.empty(schemas.REJECTS)]
        counts: dict[str, int] = {}
        for rows in blocks.split_rows(posts, self.block_rows):
            block, rejects, tallies = self._extract_rows(rows)
            features.append(block)
            rejected.append(rejects)
            for name, number in tallies.items():
                counts[name] = counts.get(name, 0) + number
            progress.advance(rows.num_rows)
        return blocks.concat(features), blocks.concat(rejected), counts

    def _extract_rows(self, posts: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch, dict[str, int]]:
        counts: dict[str, int] = {}
        columns = {name: posts.column(name) for name in ("post_id", "author_id", "created_at")}
        terms, term_counts = text_terms(
            posts.column("text"), posts.column("hashtags"), media_alts(posts.column("media"))
        )
        columns |= {"text_terms": terms, "text_counts": term_counts}
        pools = {kind: Pool(encoder, posts.num_rows) for kind, encoder in self.encoders.items()}
        failures = list(self._read_media(posts, pools, counts))
        columns |= {kind: pool.column() for kind, pool in pools.items()}
        vectors, wrong = ready_made.vector_columns(posts, self.vector_widths)
        columns |= vectors
        for name, column in columns.items():
            if name not in ("post_id", "author_id", "created_at", "text_counts"):
                counts[f"features.{name.removesuffix('_terms')}"] = len(column) - column.null_count
        rejects = blocks.concat([_media_rejects(posts, failures), wrong])
        for code, number in _count_values(rejects.column("code")):
            counts[f"rejects.{code}"] = number
        return schemas.conform(pa.RecordBatch.from_pydict(columns), self.schema), rejects, counts

    def _read_media(
        self, posts: pa.RecordBatch, pools: "Mapping[str, Pool]", counts: dict[str, int]
    ) -> "Iterator[_Failure]":
        """Decodes every entry into the pools; gives what failed. Each entry counts once, under the kind it claims."""
        for row, index, entry in media_entries(posts.column("media")):
            kind = "unknown"
            outcome = "features"
            try:
                if index >= self.max_media_per_post:
                    raise DecodeError("media_too_many", f"the post has more than {self.max_media_per_post} media")
                decoded = decode_entry(entry, self.roots, self.limits, pools.keys())
                kind = decoded.kind
                self._pool(decoded, row, pools)
                if not decoded.samples:
                    outcome = "ignored"
            except DecodeError as error:
                kind = error.kind or kind
                outcome = "missing" if error.code == "media_missing" else "rejected"
                yield _Failure(row, index, entry["uri"], error.code, error.message)
            names = [f"media.{kind}.{outcome}"] + ([f"media.{kind}.referenced"] if outcome != "ignored" else [])
            for name in names:
                counts[name] = counts.get(name, 0) + 1

    @staticmethod
    def _pool(decoded: Decoded, row: int, pools: "Mapping[str, Pool]") -> None:
        for modality, sample in decoded.samples.items():
            pools[modality].add(row, sample)


class _Failure(NamedTuple):
    row: int
    position: int
    uri: str | None
    code: str
    message: str


class Pool:
    """The mean vector of each post's samples of one modality; encodes some samples at a time."""

    def __init__(self, encoder: Encoder, num_rows: int) -> None:
        self.encoder = encoder
        self.sums = np.zeros((num_rows, encoder.width), np.float64)
        self.sizes = np.zeros(num_rows, np.int64)
        self.waiting: list[tuple[int, object]] = []

    def add(self, row: int, sample: object) -> None:
        """Takes one decoded sample of a row's post."""
        self.waiting.append((row, sample))
        if len(self.waiting) >= _ENCODE_AT_ONCE:
            self._encode()

    def column(self) -> pa.Array:
        """The mean vectors, null where a post has no sample: list<float32> of the encoder's width."""
        self._encode()
        means = self.sums / np.maximum(self.sizes, 1)[:, None]
        return blocks.numpy_to_optional(means, self.sizes > 0)

    def _encode(self) -> None:
        if not self.waiting:
            return
        rows = np.array([row for row, _ in self.waiting])
        vectors = self.encoder.encode([sample for _, sample in self.waiting])
        np.add.at(self.sums, rows, vectors.astype(np.float64))
        np.add.at(self.sizes, rows, 1)
        self.waiting = []


def feature_schema(encoders: Mapping[str, str], vector_widths: Mapping[str, int]) -> pa.Schema:
    """The schema of the features table that these encoders and ready-made vectors give."""
    made = {kind: make_encoder(kind, encoders.get(kind, "none")) for kind in MEDIA_KINDS}
    widths = {kind: encoder.width for kind, encoder in made.items() if encoder is not None}
    ready = {ready_made.modality_name(name): width for name, width in sorted(vector_widths.items())}
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


def _media_rejects(posts: pa.RecordBatch, failures: Sequence[_Failure]) -> pa.RecordBatch:
    ids = posts.column("post_id")
    return reject_block(
        source=[(failure.uri or "")[:512] for failure in failures],
        record=[f"media[{failure.position}]" for failure in failures],
        id=[ids[failure.row].as_py() for failure in failures],
        stage=STAGE,
        code=[failure.code for failure in failures],
        message=[failure.message for failure in failures],
    )


def _count_values(column: pa.Array) -> Iterator[tuple[str, int]]:
    for entry in pc.value_counts(column).to_pylist():
        yield entry["values"], entry["counts"]

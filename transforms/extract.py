"""Features of posts: one row a post, one nullable column a modality."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam import pvalue

from transforms import blocks, progress, ready_made, schemas
from transforms.decode import MEDIA_KINDS, DecodeError, Medium, read_entry
from transforms.encoders import Encoder, make_encoder
from transforms.isolated_decoder import IsolatedDecoder
from transforms.media import MediaError, MediaLimits
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
    the worker and its decoder process.

    Attributes:
      encoders: the flag of each kind of media: {"image": "opencv", "video": "opencv", "audio": "logmel"}, or "none".
      vector_widths: ready-made vectors to take over as modalities, and their widths.
      roots: the folders that media may be read from.
      limits: what one file may cost.
      max_media_per_post: entries beyond are rejected.
      block_rows: posts that are worked on together.
      hosts: the hosts that media may be fetched from by http(s), as `media_http.check_hosts` wants them.
    """

    encoders: Mapping[str, str]
    vector_widths: Mapping[str, int]
    roots: Sequence[str]
    limits: MediaLimits
    max_media_per_post: int = 16
    block_rows: int = 256
    hosts: Sequence[str] = ()

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

    def teardown(self) -> None:
        self.extractor.close()

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
        hosts: Sequence[str] = (),
    ) -> None:
        made = {kind: make_encoder(kind, spec) for kind, spec in encoders.items()}
        self.encoders = {kind: encoder for kind, encoder in made.items() if encoder is not None}
        self.vector_widths = vector_widths
        self.roots, self.hosts, self.limits = roots, hosts, limits
        self.max_media_per_post, self.block_rows = max_media_per_post, block_rows
        self.schema = feature_schema(encoders, vector_widths)
        self.decoder = IsolatedDecoder({kind: made.in_decoder for kind, made in self.encoders.items()}, limits)

    def close(self) -> None:
        """Ends the decoder process."""
        self.decoder.close()

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
        for place, result in self.decoder.decode(self._read_entries(posts, pools.keys())):
            outcome = "features" if result else "ignored"
            error = place.error or result
            if isinstance(error, DecodeError | MediaError):
                outcome = "missing" if error.code == "media_missing" else "rejected"
                yield _Failure(place.row, place.position, place.uri, error.code, error.message)
            elif isinstance(result, dict):
                for modality, sample in result.items():
                    pools[modality].add(place.row, sample)
            names = [f"media.{place.kind}.{outcome}"]
            names += [f"media.{place.kind}.referenced"] if outcome != "ignored" else []
            for name in names:
                counts[name] = counts.get(name, 0) + 1

    def _read_entries(self, posts: pa.RecordBatch, wanted: Collection[str]) -> "Iterator[tuple[_Place, Medium | None]]":
        """The bytes of every entry; none of one that cannot be had or that nobody wants."""
        for row, index, entry in media_entries(posts.column("media")):
            uri = entry["uri"]
            try:
                if index >= self.max_media_per_post:
                    raise DecodeError("media_too_many", f"the post has more than {self.max_media_per_post} media")
                medium = read_entry(entry, self.roots, self.hosts, self.limits, wanted)
                yield _Place(row, index, uri, medium.kind), medium
            except DecodeError as error:
                yield _Place(row, index, uri, error.kind or "unknown", error), None


class _Place(NamedTuple):
    """A media entry: where it stands, the kind it claims, and why it could not be read."""

    row: int
    position: int
    uri: str | None
    kind: str
    error: DecodeError | None = None


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
        self.waiting: list[tuple[int, np.ndarray]] = []

    def add(self, row: int, sample: np.ndarray) -> None:
        """Takes one decoded sample of a row's post, or its vector where the encoder is one of `in_decoder`."""
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
        samples = [sample for _, sample in self.waiting]
        vectors = np.stack(samples) if self.encoder.in_decoder else self.encoder.encode(samples)
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

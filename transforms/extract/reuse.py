"""Reuse of an earlier run's features for posts whose media are unchanged.

The key of a post's media is a hash of the fields of each entry, the size and time of change of its file, and the
settings (encoders, limits, versions). Where it is unchanged, no medium is read again. Media without size and time (on
another host) are identified by address. Failures for a transient reason (a host that was down, a slow decoder) are
tried again.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.media.media_files import MediaError, MediaLimits, resolve_uri
from transforms.tables import blocks, schemas, shuffle
from transforms.tables.files import hash_sources, is_local, match

_PACKAGES = ("opencv-python-headless", "pillow", "av", "numpy", "tensorflow")
# Failures that a busy machine or a host may have caused, not the medium.
_PASSING = pa.array(
    [
        *("media_http_failed", "media_timeout", "media_address_private", "media_failed"),
        *("decoder_crashed", "decoder_timeout", "decoder_memory"),
    ]
)
_KEYS = pa.schema(
    [
        pa.field("post_id", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("part", pa.int32(), nullable=False),
    ]
)


@dataclasses.dataclass(frozen=True)
class MediaKeys:
    """Blocks of posts -> the key of each post's media, [n] string, null where it has none.

    Attributes:
      roots: the folders that media may be read from.
      version: hash of the settings of extraction (`version_of`).
    """

    roots: Sequence[str]
    version: str

    def __call__(self, posts: pa.RecordBatch) -> pa.Array:
        media = posts.column("media")
        keys: list[str | None] = [None] * posts.num_rows
        for row in np.flatnonzero(pc.fill_null(pc.list_value_length(media), 0).to_numpy(zero_copy_only=False)):
            keys[row] = self._key(media[int(row)].as_py())
        return pa.array(keys, pa.string())

    def _key(self, entries: Sequence[Mapping[str, str | None] | None]) -> str:
        fields = [[(entry or {}).get(name) for name in ("kind", "uri")] for entry in entries]
        states = [self._state(uri or "") for _, uri in fields]
        text = json.dumps([self.version, fields, states])
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def _state(self, uri: str) -> list[Any]:
        try:
            path = resolve_uri(uri, self.roots)
            if is_local(path):
                status = os.stat(path)
                return [path, status.st_size, status.st_mtime_ns]
            return list(match(path)[0])
        except MediaError as error:
            return [error.code]
        except (OSError, IndexError):
            return ["gone"]


def version_of(encoders: Mapping[str, str], limits: MediaLimits, max_media_per_post: int, *more: Any) -> str:
    """Hash of the extraction settings: flags, limits, the decoders' versions and the code that uses them.

    Args:
      encoders: the flag of each kind of media.
      limits: of one file.
      max_media_per_post: entries that are read.
      more: states of other files that encoders read.
    """
    versions = [importlib.metadata.version(package) for package in _PACKAGES]
    settings = [dict(encoders), dataclasses.asdict(limits), max_media_per_post, versions, more]
    settings.append(hash_sources([Path(__file__).parent, Path(__file__).parents[1] / "media"]))
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()


def reusable_schema(features: pa.Schema, kinds: Sequence[str]) -> pa.Schema:
    """Schema of the reusable features: a post's key, its outcomes, and the vectors of the kinds of media."""
    vectors = [features.field(name) for name in kinds if name in features.names]
    return pa.schema([*schemas.MEDIA, *vectors])


@dataclasses.dataclass
class FindReusable(beam.PTransform):
    """{"posts": (part, posts), "media", "features": blocks of an earlier run} -> (part, block of `schema`).

    A row for each post of a part whose media have the key that they had then. Parts without any are dropped.

    Attributes:
      keys: of the posts now.
      schema: `reusable_schema` of the earlier features, which have all kinds that are extracted now.
      num_parts: of the shuffle.

    Example:
        reusable = {"posts": parts, "media": media, "features": features} | FindReusable(keys, schema, num_parts=16)
    """

    keys: MediaKeys
    schema: pa.Schema
    num_parts: int

    def __post_init__(self) -> None:
        shuffle.check_num_parts(self.num_parts)

    def expand(self, inputs: Mapping[str, beam.PCollection]) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        vectors = pa.schema([field for field in self.schema if field.name not in schemas.MEDIA.names])
        vectors = vectors.insert(0, self.schema.field("post_id"))
        now = inputs["posts"] | "Keys" >> beam.Map(_keys_of, keys=self.keys)
        met = {
            "now": now,
            "media": inputs["media"],
            "features": inputs["features"] | "Vectors" >> beam.Map(lambda block: block.select(vectors.names)),
        } | "MeetByPost" >> shuffle.CoGroupBlocks(
            dict.fromkeys(("now", "media", "features"), "post_id"),
            {"now": _KEYS, "media": schemas.MEDIA, "features": vectors},
            self.num_parts,
        )
        matched = met | "Match" >> beam.FlatMap(_match, schema=self.schema)
        return matched | "GroupByPart" >> beam.GroupByKey() | "Concat" >> beam.Map(_concat)


def _keys_of(numbered: tuple[int, pa.RecordBatch], keys: MediaKeys) -> pa.RecordBatch:
    part, posts = numbered
    found = keys(posts)
    arrays = [posts.column("post_id"), found, pa.array(np.full(posts.num_rows, part, np.int32))]
    return pa.RecordBatch.from_arrays(arrays, names=_KEYS.names).filter(found.is_valid()).cast(_KEYS)


def _match(numbered: tuple[int, dict[str, pa.RecordBatch]], schema: pa.Schema) -> Iterator[tuple[int, bytes]]:
    _, met = numbered
    now, media, features = blocks.sort(met["now"], "post_id"), lasting(met["media"]), met["features"]
    then = pc.index_in(now.column("post_id"), value_set=media.column("post_id"))
    same = pc.fill_null(pc.equal(now.column("key"), media.column("key").take(then)), False)
    now, then = now.filter(same), then.filter(same)
    vectors = pc.index_in(now.column("post_id"), value_set=features.column("post_id"))
    described = vectors.is_valid()
    now, then, vectors = now.filter(described), then.filter(described), vectors.filter(described)
    columns = {name: media.column(name).take(then) for name in schemas.MEDIA.names}
    columns |= {name: features.column(name).take(vectors) for name in schema.names if name not in columns}
    found = pa.RecordBatch.from_pydict({name: columns[name] for name in schema.names}, schema=schema)
    for part in pc.unique(now.column("part")).to_pylist():
        yield part, blocks.to_ipc(found.filter(pc.equal(now.column("part"), part)))


def lasting(media: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of schemas.MEDIA without an entry that failed for a reason that may have passed."""
    entries = media.column("entries")
    flat = pc.list_flatten(entries)
    if not len(flat):
        return media
    # Another host may have by now what it did not have.
    by_http = pc.match_substring_regex(pc.fill_null(flat.field("uri"), ""), "^https?://", ignore_case=True)
    passing = pc.or_(pc.is_in(flat.field("code"), _PASSING), pc.and_(by_http, flat.field("code").is_valid()))
    is_lasting = np.ones(media.num_rows, bool)
    is_lasting[pc.list_parent_indices(entries).filter(passing).to_numpy(zero_copy_only=False)] = False
    return media.filter(pa.array(is_lasting))


def _concat(grouped: tuple[int, Any]) -> tuple[int, pa.RecordBatch]:
    part, pieces = grouped
    return part, blocks.sort(blocks.concat([blocks.from_ipc(piece) for piece in pieces]), "post_id")

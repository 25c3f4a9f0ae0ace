"""The catalog that top-K scans: each post with its embedding, flags and popularity."""

import dataclasses

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.interactions.reposts import is_pure_repost
from transforms.tables import blocks, exact_sums, schemas, shuffle
from transforms.text.language_tags import primary_language

COLUMNS = ("post_id", "author_id", "created_at", "text", "lang", "media", "reply_to", "repost_of", "sensitive")

_FLAGS = ("author_id", "created_at", "lang", "sensitive", "is_repost", "is_reply")
_POSTS = pa.schema([schemas.candidates(1, 1).field(name) for name in ("post_id", *_FLAGS)])


@dataclasses.dataclass
class MakeCandidates(beam.PTransform):
    """{"posts" (COLUMNS), "items", "profiles", "history": blocks} -> (part, block of schemas.candidates), a row a post.

    Popularity is the sum of the positive weights of all histories; a post without an embedding has zeros.

    Example:
        tables = {"posts": posts, "items": item_embeddings, "profiles": post_profiles, "history": history}
        tables | MakeCandidates(width=161, profile_width=160, num_parts=8) | parquet.WriteParts(directory, schema)
    """

    width: int
    profile_width: int
    num_parts: int

    def __post_init__(self) -> None:
        shuffle.check_num_parts(self.num_parts)

    def expand(
        self, inputs: dict[str, beam.PCollection[pa.RecordBatch]]
    ) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        schema = schemas.candidates(self.width, self.profile_width)
        vectors = pa.schema([schema.field(name) for name in ("post_id", "embedding")])
        joined = {
            "posts": inputs["posts"] | "Flags" >> beam.Map(flags),
            "items": inputs["items"] | "Vectors" >> beam.Map(lambda block: block.select(["post_id", "embedding"])),
            "profiles": inputs["profiles"],
            "popularity": inputs["history"] | "SumPositive" >> beam.Map(popularity),
        } | "JoinByPost" >> shuffle.CoGroupBlocks(
            keys=dict.fromkeys(("posts", "items", "profiles", "popularity"), "post_id"),
            schemas={
                "posts": _POSTS,
                "items": vectors,
                "profiles": schemas.post_profiles(self.profile_width),
                "popularity": exact_sums.SCHEMA,
            },
            num_parts=self.num_parts,
        )
        return joined | "MakePart" >> beam.Map(_make_part, schema=schema)


def flags(posts: pa.RecordBatch) -> pa.RecordBatch:
    """Metadata of posts for eligibility and exclusion filters, without their content."""
    return pa.RecordBatch.from_arrays(
        [
            posts.column("post_id"),
            posts.column("author_id"),
            posts.column("created_at"),
            primary_language(posts.column("lang")),
            posts.column("sensitive"),
            pa.array(is_pure_repost(posts)),
            posts.column("reply_to").is_valid(),
        ],
        schema=_POSTS,
    )


def popularity(history: pa.RecordBatch) -> pa.RecordBatch:
    """The sums of positive weights of a block by post, a block of exact_sums.SCHEMA."""
    weight = history.column("weight").to_numpy().astype(np.float64)
    return exact_sums.sum_by_post(history.column("post_id"), np.maximum(weight, 0))


def _make_part(numbered: tuple[int, dict[str, pa.RecordBatch]], schema: pa.Schema) -> tuple[int, pa.RecordBatch]:
    part, joined = numbered
    posts = blocks.sort(joined["posts"], "post_id")
    ids = posts.column("post_id")
    popular = pa.array(exact_sums.totals(ids, joined["popularity"]))
    columns = {name: posts.column(name) for name in posts.schema.names}
    columns |= {name: _vectors_of(ids, joined[table], name) for table, name in _VECTORS} | {"popularity": popular}
    return part, pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


_VECTORS = (("items", "embedding"), ("profiles", "profile"))


def _vectors_of(ids: pa.Array, rows: pa.RecordBatch, name: str) -> pa.Array:
    """The vectors of these posts, zeros for those that have none."""
    values = blocks.vectors_to_numpy(rows.column(name))
    found = pc.index_in(ids, value_set=rows.column("post_id"))
    spread = np.zeros((len(ids), values.shape[1]), np.float32)
    spread[blocks.valid(found)] = values[found.drop_null().to_numpy()]
    return blocks.numpy_to_vectors(spread)

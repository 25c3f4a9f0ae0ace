"""Pure reposts and their originals: what is done with a repost counts for what was reposted."""

import dataclasses

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.tables import shuffle

# Each round of `ResolveReposts` doubles how far a chain of reposts is followed: 2 ** ROUNDS hops.
ROUNDS = 3
MAX_HOPS = 2**ROUNDS

PAIRS = pa.schema([pa.field("post_id", pa.string(), nullable=False), pa.field("original", pa.string(), nullable=False)])
IDS = pa.schema([pa.field("post_id", pa.string(), nullable=False)])

COLUMNS = ("post_id", "text", "media", "repost_of")


@dataclasses.dataclass
class ResolveReposts(beam.PTransform):
    """Blocks of posts (COLUMNS) -> blocks of PAIRS: each pure repost and its original, where the input has that.

    A chain of reposts is followed MAX_HOPS hops; what a longer one leads to is the post that is met then. In a ring of
    reposts nothing is an original, and none is ever recommended.
    """

    num_parts: int

    def __post_init__(self) -> None:
        shuffle.check_num_parts(self.num_parts)

    def expand(self, posts: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        ids = posts | "PostIds" >> beam.Map(lambda block: block.select(["post_id"]))
        pairs = posts | "PureReposts" >> beam.Map(repost_pairs)
        known = {"pairs": pairs, "ids": ids} | "MeetOriginals" >> shuffle.CoGroupBlocks(
            keys={"pairs": "original", "ids": "post_id"}, schemas={"pairs": PAIRS, "ids": IDS}, num_parts=self.num_parts
        )
        pairs = known | "DropUnknown" >> beam.Map(_drop_unknown)
        for i in range(ROUNDS):
            met = {"near": pairs, "far": pairs} | f"Meet{i}" >> shuffle.CoGroupBlocks(
                keys={"near": "original", "far": "post_id"},
                schemas={"near": PAIRS, "far": PAIRS},
                num_parts=self.num_parts,
            )
            pairs = met | f"Follow{i}" >> beam.Map(_follow)
        return pairs


def is_pure_repost(posts: pa.RecordBatch) -> np.ndarray:
    """Mask of pure reposts: no text (or white space) and no media of their own: [n] bool."""
    no_text = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(pc.fill_null(posts.column("text"), ""))), 0)
    no_media = pc.equal(pc.fill_null(pc.list_value_length(posts.column("media")), 0), 0)
    pure = pc.and_(pc.and_(no_text, no_media), posts.column("repost_of").is_valid())
    return pure.to_numpy(zero_copy_only=False)


def repost_pairs(posts: pa.RecordBatch) -> pa.RecordBatch:
    """PAIRS of the pure reposts of a block."""
    pure = posts.filter(pa.array(is_pure_repost(posts)))
    return pa.RecordBatch.from_arrays([pure.column("post_id"), pure.column("repost_of")], schema=PAIRS)


def _drop_unknown(numbered: tuple[int, dict[str, pa.RecordBatch]]) -> pa.RecordBatch:
    _, met = numbered
    return met["pairs"].filter(pc.is_in(met["pairs"].column("original"), value_set=met["ids"].column("post_id")))


def _follow(numbered: tuple[int, dict[str, pa.RecordBatch]]) -> pa.RecordBatch:
    _, met = numbered
    near, far = met["near"], met["far"]
    return pa.RecordBatch.from_arrays([near.column("post_id"), resolve(near.column("original"), far)], schema=PAIRS)


def resolve(post_id: pa.Array, pairs: pa.RecordBatch) -> pa.Array:
    """Each id, or its original where `pairs` has one: [n] string."""
    found = pc.index_in(post_id, value_set=pairs.column("post_id"))
    return pc.coalesce(pairs.column("original").take(found), post_id)

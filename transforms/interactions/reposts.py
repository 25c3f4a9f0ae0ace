"""Pure reposts and their originals: interactions with a repost count for the original."""

import dataclasses

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.tables import schemas, shuffle

# Each round of `ResolveReposts` doubles how far a chain of reposts is followed: 2 ** ROUNDS hops.
ROUNDS = 3
MAX_HOPS = 2**ROUNDS

IDS = pa.schema([schemas.POSTS.field("post_id")])
PAIRS = pa.schema([*IDS, pa.field("original", pa.string(), nullable=False)])

COLUMNS = ("post_id", "text", "media", "repost_of")


@dataclasses.dataclass
class ResolveReposts(beam.PTransform):
    """Blocks of posts (COLUMNS) -> blocks of PAIRS: each pure repost and its original, if that is in the input.

    A chain of reposts is followed for MAX_HOPS hops; a longer one resolves to the post reached there. A cycle of
    reposts has no original, and none of its posts is ever recommended.

    Example:
      >>> rows = [{"post_id": "a", "text": "jazz"}, {"post_id": "b", "repost_of": "a"}]
      >>> posts = pa.RecordBatch.from_pylist(rows, schemas.POSTS).select(COLUMNS)
      >>> with beam.Pipeline("FnApiRunner") as root:
      ...     pairs = root | beam.Create([posts]) | ResolveReposts(num_parts=1)
      ...     _ = pairs | beam.Map(lambda block: print(block.to_pylist()))
      [{'post_id': 'b', 'original': 'a'}]
    """

    num_parts: int

    def __post_init__(self) -> None:
        shuffle.check_num_parts(self.num_parts)

    def expand(self, posts: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        ids = posts | "PostIds" >> beam.Map(lambda block: block.select(IDS.names))
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
    """Mask of pure reposts, which have neither text (other than white space) nor media: [n] bool."""
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
    """The ids, with that of the original in place of those of reposts in `pairs`: [n] string."""
    found = pc.index_in(post_id, value_set=pairs.column("post_id"))
    return pc.coalesce(pairs.column("original").take(found), post_id)

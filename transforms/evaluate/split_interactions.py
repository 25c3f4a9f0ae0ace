"""Backtest: interactions -> those that a run may see, and what is held out to measure what it recommends."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam import pvalue

from transforms.evaluate.split_rules import Split, seeded_hash
from transforms.ingest import ingest_table, input_files
from transforms.ingest.erasure import Erasure
from transforms.interactions import reposts
from transforms.interactions.weights import InteractionWeights
from transforms.linalg import runs
from transforms.tables import blocks, parquet, schemas, shuffle

POST_COLUMNS = (*reposts.COLUMNS, "created_at")
TRAIN, TEST, NEITHER = 0, 1, 2

# A liked post of the held-out part; each pair once, none that the user has in the training part.
HELD_OUT = pa.schema([schemas.HISTORY.field("user_id"), schemas.HISTORY.field("post_id")])

_TIMES = pa.schema([schemas.POSTS.field("post_id"), schemas.POSTS.field("created_at")])
_USER = pa.schema([schemas.USERS.field("user_id")])
# An interaction with the post it counts for, whether the input has that post, and the part (TRAIN, TEST, NEITHER).
_MARKED = pa.schema(
    [
        *schemas.INTERACTIONS,
        pa.field("original", pa.string(), nullable=False),
        pa.field("known", pa.bool_(), nullable=False),
        pa.field("role", pa.int8(), nullable=False),
    ]
)
# Sort key of ids that are no numbers: after all numbers, whose sort key is their length.
_NO_NUMBER = np.uint64(1 << 32)


class SplitParts(NamedTuple):
    """Outputs of SplitInteractions.

    Attributes:
      train: (part, block of schemas.INTERACTIONS), sorted.
      held_out: (part, block of HELD_OUT) of users with training interactions or a row in users/.
      counts: ("train", n), ("held_out", n) and what was dropped: "of_unknown_users" and "neither".
    """

    train: beam.PCollection[tuple[int, pa.RecordBatch]]
    held_out: beam.PCollection[tuple[int, pa.RecordBatch]]
    counts: beam.PCollection[tuple[str, int]]


@dataclasses.dataclass
class SplitInteractions(beam.PTransform):
    """{"interactions", "posts" (POST_COLUMNS), "users", and perhaps "holdout" (interactions): blocks} -> SplitParts.

    Interactions with a pure repost count for its original. Held out are liked posts: the sum of the weights of the
    kinds is positive, and the post is in the input.

    Example:

        made = inputs | SplitInteractions(Split("user", share=0.2), InteractionWeights(), num_parts=16)
        made.held_out | parquet.WriteParts("held_out", HELD_OUT)
    """

    split: Split
    weights: InteractionWeights
    num_parts: int

    def __post_init__(self) -> None:
        shuffle.check_num_parts(self.num_parts)

    def expand(self, inputs: Mapping[str, beam.PCollection[pa.RecordBatch]]) -> SplitParts:
        marked = [
            inputs[name] | f"Mark {name}" >> beam.Map(_unmarked, role=role)
            for name, role in (("interactions", TRAIN), ("holdout", TEST))
            if name in inputs
        ] | beam.Flatten()
        times = inputs["posts"] | "Times" >> beam.Map(lambda block: block.select(_TIMES.names))
        met = {
            "marked": marked,
            "originals": inputs["posts"] | "FindOriginals" >> reposts.ResolveReposts(self.num_parts),
            "times": times,
        } | "MeetReposts" >> shuffle.CoGroupBlocks(
            keys={"marked": "post_id", "originals": "post_id", "times": "post_id"},
            schemas={"marked": _MARKED, "originals": reposts.PAIRS, "times": _TIMES},
            num_parts=self.num_parts,
        )
        resolved = met | "CountForOriginals" >> beam.Map(_resolve, split=self.split)
        met = {"marked": resolved, "times": times} | "MeetPosts" >> shuffle.CoGroupBlocks(
            keys={"marked": "original", "times": "post_id"},
            schemas={"marked": _MARKED, "times": _TIMES},
            num_parts=self.num_parts,
        )
        known = met | "MarkParts" >> beam.Map(_mark, split=self.split)
        users = inputs["users"] | "UserIds" >> beam.Map(lambda block: block.select(_USER.names))
        done = (
            {"marked": known, "users": users}
            | "GroupByUser"
            >> shuffle.CoGroupBlocks(
                keys={"marked": "user_id", "users": "user_id"},
                schemas={"marked": _MARKED, "users": _USER},
                num_parts=self.num_parts,
            )
            | "SplitUsers"
            >> beam.FlatMap(_split_part, split=self.split, weights=self.weights).with_outputs(
                "held_out", "counts", main="train"
            )
        )
        return SplitParts(done.train, done.held_out, done.counts)


@dataclasses.dataclass
class ReadHoldout(beam.PTransform):
    """Files of a held-out part -> (blocks of schemas.INTERACTIONS, counts "holdout.read", "holdout.rejected", ...).

    Example:

        files = input_files.find_files("test-*.parquet")
        interactions, counts = root | ReadHoldout(files, num_parts=16, block_bytes=1 << 24, limits=LineLimits())
    """

    files: Sequence[input_files.InputFile]
    num_parts: int
    erasure: Erasure | None = None

    def expand(self, root: beam.Pipeline) -> tuple[beam.PCollection[pa.RecordBatch], beam.PCollection[tuple[str, int]]]:
        found = root | ingest_table.IngestTable("interactions", self.files, self.num_parts, erasure=self.erasure)
        counts = found.counts | "NameCounts" >> beam.Map(
            lambda count: (count[0].replace("interactions.", "holdout."), count[1])
        )
        return found.parts | "Blocks" >> beam.Values(), counts


def _unmarked(interactions: pa.RecordBatch, role: int) -> pa.RecordBatch:
    num_rows = interactions.num_rows
    columns = [interactions.column(name) for name in schemas.INTERACTIONS.names]
    columns += [
        interactions.column("post_id"),
        pa.array(np.zeros(num_rows, bool)),
        pa.array(np.full(num_rows, role, np.int8)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_MARKED)


def _replace(marked: pa.RecordBatch, **columns: pa.Array) -> pa.RecordBatch:
    arrays = [columns.get(name, marked.column(name)) for name in _MARKED.names]
    return pa.RecordBatch.from_arrays(arrays, schema=_MARKED)


def _resolve(numbered: tuple[int, dict[str, pa.RecordBatch]], split: Split) -> pa.RecordBatch:
    _, met = numbered
    marked = met["marked"]
    role = _without_new(marked.column("role"), marked.column("post_id"), met["times"], split)
    return _replace(marked, original=reposts.resolve(marked.column("post_id"), met["originals"]), role=role)


def _mark(numbered: tuple[int, dict[str, pa.RecordBatch]], split: Split) -> pa.RecordBatch:
    """Finds the part of each interaction, except for the user split, which needs all of a user's."""
    _, met = numbered
    marked = met["marked"]
    role = marked.column("role").to_numpy().copy()
    if split.kind == "time":
        times = marked.column("created_at").cast(pa.int64())
        later = pc.fill_null(pc.greater(times, split.cut), False).to_numpy(zero_copy_only=False)
        wrong = pc.fill_null(pc.greater(times, split.until), False).to_numpy(zero_copy_only=False)
        role = np.where(wrong, NEITHER, np.where(later, TEST, role)).astype(np.int8)
    elif split.kind == "cold":
        role[split.is_cold(marked.column("original"))] = TEST
    known = pc.is_in(marked.column("original"), value_set=met["times"].column("post_id"))
    role = _without_new(pa.array(role), marked.column("original"), met["times"], split)
    return _replace(marked, role=role, known=known)


def _without_new(role: pa.Array, post_id: pa.Array, times: pa.RecordBatch, split: Split) -> pa.Array:
    """The roles, with NEITHER for training rows whose post is made after the cut: one of the two times is wrong."""
    new = times.column("post_id").filter(pa.array(split.is_new(times.column("created_at"))))
    is_train = pc.equal(role, TRAIN)
    return pc.if_else(pc.and_(is_train, pc.is_in(post_id, value_set=new)), pa.scalar(NEITHER, pa.int8()), role)


def _split_part(
    numbered: tuple[int, dict[str, pa.RecordBatch]], split: Split, weights: InteractionWeights
) -> Iterator[Any]:
    part, met = numbered
    marked = met["marked"]
    if split.kind == "user":
        marked = own_newest(marked, split)
    role = marked.column("role").to_numpy()
    train = marked.filter(pa.array(role == TRAIN))
    held_out = targets(marked, weights)
    knows = pa.concat_arrays([train.column("user_id"), met["users"].column("user_id")])
    is_known = pc.is_in(held_out.column("user_id"), value_set=knows)
    yield part, blocks.sort(train.select(schemas.INTERACTIONS.names), *schemas.INTERACTIONS.names)
    yield pvalue.TaggedOutput("held_out", (part, held_out.filter(is_known)))
    known = pc.sum(is_known).as_py() or 0
    for name, number in (
        ("train", train.num_rows),
        ("held_out", known),
        ("of_unknown_users", held_out.num_rows - known),
        ("neither", int(np.sum(role == NEITHER))),
    ):
        yield pvalue.TaggedOutput("counts", (name, number))


def own_newest(marked: pa.RecordBatch, split: Split) -> pa.RecordBatch:
    """The user split: of a user's n interactions by time, the first int((1 - share) n) are TRAIN, the rest TEST.

    Equal times are in the order of the post ids, as numbers where they are (as the common splits of MovieLens are);
    what has no time comes first, in the order of a hash of user and post.
    """
    num_rows = marked.num_rows
    number, text = natural_order(marked.column("post_id"))
    dated = blocks.valid(marked.column("created_at"))
    # Hashed with the user, or the same posts would be held out for all users.
    mixed = blocks.splitmix(
        seeded_hash(marked.column("post_id"), split.seed) ^ blocks.stable_hash(marked.column("user_id"))
    )
    number = np.where(dated, number, mixed)
    keys = pa.table(
        {
            "user_id": marked.column("user_id"),
            "created_at": pc.fill_null(marked.column("created_at").cast(pa.int64()), np.iinfo(np.int64).min),
            "number": pa.array(number),
            "text": text,
            **{name: marked.column(name) for name in ("post_id", "kind", "value")},
        }
    )
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])
    marked = marked.take(order)
    starts = blocks.run_starts(marked.column("user_id"))
    sizes = runs.sizes_of(starts, num_rows)
    place = runs.places_in(sizes)
    first = np.repeat(((1 - split.share) * sizes).astype(np.int64), sizes)
    return _replace(marked, role=pa.array(np.where(place < first, TRAIN, TEST).astype(np.int8)))


def natural_order(ids: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Keys that sort ids of digits as numbers and the others after them: ([n] uint64, [n] string)."""
    is_number = pc.match_substring_regex(ids, "^[0-9]+$")
    text = pc.if_else(is_number, pc.ascii_ltrim(ids, "0"), ids)
    length = pc.binary_length(text).to_numpy(zero_copy_only=False).astype(np.uint64)
    return np.where(is_number.to_numpy(zero_copy_only=False), length, _NO_NUMBER), text


def targets(marked: pa.RecordBatch, weights: InteractionWeights) -> pa.RecordBatch:
    """HELD_OUT of users whose interactions are all in one block, sorted by user and post."""
    role = marked.column("role").to_numpy()
    known = marked.column("known").to_numpy(zero_copy_only=False)
    test = marked.filter(pa.array((role == TEST) & known))
    table = pa.table(
        {
            "user_id": test.column("user_id"),
            "post_id": test.column("original"),
            "weight": pa.array(weights.of_kinds(test.column("kind"))),
        }
    ).sort_by([("user_id", "ascending"), ("post_id", "ascending"), ("weight", "ascending")])
    sums = table.group_by(["user_id", "post_id"], use_threads=False).aggregate([("weight", "sum")])
    sums = sums.filter(pc.greater(sums.column("weight_sum"), 0)).select(HELD_OUT.names)
    seen = pa.table(marked.filter(pa.array(role == TRAIN)).select(["user_id", "original"]))
    left = sums.join(seen, keys=["user_id", "post_id"], right_keys=["user_id", "original"], join_type="left anti")
    ordered = left.sort_by([("user_id", "ascending"), ("post_id", "ascending")])
    return schemas.conform(parquet.to_block(ordered), HELD_OUT)

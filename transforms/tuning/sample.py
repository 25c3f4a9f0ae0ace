"""Bounded sample of interaction histories with the posts' content, to tune on in one process.

Read from the Parquet files of history/ and fused/, a block at a time; independent of their parts.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.embed.embedding_space import COLLABORATIVE
from transforms.embed.trend import to_days
from transforms.fuse import transform_fn
from transforms.fuse.tft_graph import ModalityBlock
from transforms.linalg.sparse import sorted_codes
from transforms.tables import blocks, parquet, schemas
from transforms.tuning.histories import Interactions

MAX_USERS = 20_000
MAX_POSTS = 50_000
# Maximum liked posts of a sample, and of one user in it: users with more are dropped.
MAX_INTERACTIONS = 5_000_000
MAX_HISTORY = 50_000
BLOCK_ROWS = 65_536

_ROWS = ("user_id", "post_id", "strength", "recency", "created_at")


class Block(NamedTuple):
    """One modality of the sample's posts: values [num_posts, width] float32, zeros where not present [num_posts]."""

    values: np.ndarray
    present: np.ndarray


@dataclasses.dataclass(frozen=True)
class Sample:
    """Sample of users and posts, with their interactions, to tune on.

    Attributes:
      interactions: of the sampled users with the sampled posts.
      user_hash: [num_users] uint64.
      post_hash: [num_posts] uint64.
      post_ids: [num_posts], sorted.
      content: modality -> its block, in the order of the layout.
      coverage: modality -> share of all posts, in the sample or not, that have it.
      created: [num_posts] creation times of the posts, in days since 1970, nan where unknown; None if all are.
    """

    interactions: Interactions
    user_hash: np.ndarray
    post_hash: np.ndarray
    post_ids: pa.Array
    content: Mapping[str, Block]
    coverage: Mapping[str, float]
    created: np.ndarray | None = None


def sample_interactions(
    history_dir: str, fused_dir: str | None, max_users: int = MAX_USERS, max_posts: int = MAX_POSTS
) -> Sample:
    """The users whose ids have the smallest hashes, their histories, and the posts in these (by hash, if too many).

    A user's history is taken whole, or not at all if more than MAX_HISTORY posts are liked in it, or more than
    MAX_INTERACTIONS with those of the users before. Users and posts without any like do not count.

    Args:
      history_dir: a table of schemas.HISTORY.
      fused_dir: a table of schemas.fused with its layout; None where there is no content.
    """
    rows = _read_users(history_dir, _choose_users(history_dir, max_users))
    rows = _smallest_keys(rows, "post_id", max_posts)
    user, users = sorted_codes(rows.column("user_id"))
    post, posts = sorted_codes(rows.column("post_id"))
    order = np.lexsort((post, user))
    strength, recency = (rows.column(name).to_numpy()[order].astype(np.float32) for name in ("strength", "recency"))
    time = to_days(rows.column("created_at"))[order]
    dated = time if np.isfinite(time).any() else None
    interactions = Interactions(user[order], post[order], strength, recency, len(users), len(posts), dated)
    hashes = blocks.stable_hash(users), blocks.stable_hash(posts)
    if fused_dir is None:
        return Sample(interactions, *hashes, posts, {}, {})
    return Sample(interactions, *hashes, posts, *read_content(fused_dir, posts), _times_of(fused_dir, posts))


def _choose_users(directory: str, max_users: int) -> pa.Array:
    """Ids of the users with the smallest hashes among those with a like, without those beyond the limits of rows."""
    held = pa.table({"user_id": pa.array([], pa.string()), "rows": pa.array([], pa.int64())})
    for block in parquet.read_blocks(directory, BLOCK_ROWS, ["user_id", "strength"]):
        liked = block.column("user_id").filter(pc.greater(block.column("strength"), 0))
        counted = pa.table({"user_id": liked, "rows": pa.array(np.ones(len(liked), np.int64))})
        merged = pa.concat_tables([held, counted]).group_by("user_id").aggregate([("rows", "sum")])
        # A dropped user cannot return: there are always max_users with smaller hashes.
        held = _smallest(merged.select(["user_id", "rows_sum"]).rename_columns(held.column_names), max_users)
    held = held.filter(pc.less_equal(held["rows"], MAX_HISTORY))
    total = np.cumsum(held["rows"].to_numpy())
    return held["user_id"].combine_chunks().filter(pa.array(total <= MAX_INTERACTIONS))


def _smallest(rows: pa.Table, count: int) -> pa.Table:
    """The `count` rows whose user ids have the smallest hashes, in that order."""
    hashed = rows.append_column("hash", pa.array(blocks.stable_hash(rows["user_id"])))
    order = pc.sort_indices(hashed, [("hash", "ascending"), ("user_id", "ascending")])
    return rows.take(order.slice(0, count))


def _read_users(directory: str, users: pa.Array) -> pa.RecordBatch:
    schema = pa.schema(
        [
            *(
                ("user_id", pa.string()),
                ("post_id", pa.string()),
                ("strength", pa.float32()),
                ("recency", pa.float32()),
            ),
            ("created_at", schemas.TIMESTAMP),
        ]
    )
    tables = [schema.empty_table()]
    for block in parquet.read_blocks(directory, BLOCK_ROWS, _ROWS):
        found = block.filter(pc.is_in(block.column("user_id"), value_set=users))
        tables.append(pa.Table.from_batches([found]).cast(schema))
    return parquet.to_block(pa.concat_tables(tables))


def _smallest_keys(rows: pa.RecordBatch, key: str, count: int) -> pa.RecordBatch:
    """The rows of the `count` keys with the smallest hashes among those with a like."""
    keys = pc.unique(rows.column(key).filter(pc.greater(rows.column("strength"), 0)))
    if len(keys) > count:
        order = pc.sort_indices(
            pa.table({"hash": pa.array(blocks.stable_hash(keys)), "key": keys}),
            [("hash", "ascending"), ("key", "ascending")],
        )
        keys = keys.take(order.slice(0, count))
    return rows.filter(pc.is_in(rows.column(key), value_set=keys))


def _times_of(directory: str, posts: pa.Array) -> np.ndarray | None:
    found = np.full(len(posts), np.nan)
    for block in parquet.read_blocks(directory, BLOCK_ROWS, ["post_id", "created_at"]):
        places = pc.index_in(block.column("post_id"), value_set=posts)
        found[places.drop_null().to_numpy()] = to_days(block.column("created_at"))[blocks.valid(places)]
    return found if np.isfinite(found).any() else None


def read_content(directory: str, posts: pa.Array) -> tuple[dict[str, Block], dict[str, float]]:
    """(content, coverage) of `Sample` for the given posts; a post that is not in the table has no content."""
    layout = transform_fn.read_layout(directory)
    chosen = [(place, one) for place, one in enumerate(layout.modalities) if one.name != COLLABORATIVE]
    content = {
        one.name: Block(np.zeros((len(posts), one.width), np.float32), np.zeros(len(posts), bool)) for _, one in chosen
    }
    counts, num_rows = np.zeros(len(layout.modalities)), 0
    for block in parquet.read_blocks(directory, BLOCK_ROWS, ["post_id", "fused", "mask"]):
        mask = blocks.vectors_to_numpy(block.column("mask")) > 0
        counts += mask.sum(axis=0)
        num_rows += len(mask)
        places = pc.index_in(block.column("post_id"), value_set=posts)
        rows = np.flatnonzero(blocks.valid(places))
        _fill(
            content,
            chosen,
            blocks.vectors_to_numpy(block.column("fused"))[rows],
            mask[rows],
            places.drop_null().to_numpy(),
        )
    coverage = {one.name: float(counts[place] / max(num_rows, 1)) for place, one in chosen}
    return content, coverage


def _fill(
    content: dict[str, Block],
    chosen: list[tuple[int, ModalityBlock]],
    fused: np.ndarray,
    mask: np.ndarray,
    places: np.ndarray,
) -> None:
    for place, modality in chosen:
        block = content[modality.name]
        block.values[places] = fused[:, modality.offset : modality.offset + modality.width]
        block.present[places] = mask[:, place]

"""Supplied vectors of the input (`vectors: {NAME: [float]}`), each name a modality of its own."""

import collections
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.tables import blocks, schemas
from transforms.tables.rejects import reject_block

COUNT_PREFIX = "posts.vectors."
# Names of other columns and of built-in modalities: a supplied vector of such a name gets this ending.
RESERVED = frozenset((*schemas.features({}).names, "text", "image", "video", "audio", "time", "collaborative"))
RESERVED_ENDING = "_vector"
MAX_NAMES = 16


def modality_name(name: str) -> str:
    """Name of the modality of a precomputed vector."""
    return name + RESERVED_ENDING if name in RESERVED else name


def choose_widths(counts: Mapping[str, int]) -> dict[str, int]:
    """The width of each supplied vector, by ingest's counts "posts.vectors.NAME.WIDTH": the most frequent one.

    Of equally frequent widths it is the larger.

    Raises:
      ValueError: more than MAX_NAMES names, most likely ids or texts that were used as names.
    """
    widths: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for key, number in counts.items():
        if key.startswith(COUNT_PREFIX):
            name, width = key.removeprefix(COUNT_PREFIX).rsplit(".", 1)
            widths[name][int(width)] += number
    if len(widths) > MAX_NAMES:
        raise ValueError(f"vectors must have at most {MAX_NAMES} names, got {len(widths)}")
    return {
        name: max(found, key=lambda width: (found[width], width))
        for name, found in sorted(widths.items())
        if any(found)
    }


def vector_columns(posts: pa.RecordBatch, widths: Mapping[str, int]) -> tuple[dict[str, pa.Array], pa.RecordBatch]:
    """The vectors of posts as one nullable column a modality, and a reject for each vector of another width.

    Returns:
      ({modality: list<float32> column}, rejects). The post of a rejected vector goes on without it.
    """
    vectors = posts.column("vectors")
    num_entries = pc.fill_null(pc.list_value_length(vectors.cast(_AS_LIST)), 0).to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(posts.num_rows), num_entries)
    entries = vectors.cast(_AS_LIST).flatten()
    names, values = entries.field(0), entries.field(1)
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    columns: dict[str, pa.Array] = {}
    rejected = [schemas.empty(schemas.REJECTS)]
    for name, width in widths.items():
        named = pc.equal(names, name).to_numpy(zero_copy_only=False) if len(names) else np.zeros(0, bool)
        good = named & (lengths == width)
        taken = np.zeros((posts.num_rows, width), np.float32)
        present = np.zeros(posts.num_rows, bool)
        picked = values.filter(pa.array(good)).flatten().to_numpy(zero_copy_only=False)
        taken[rows[good]] = picked.reshape(-1, width)
        present[rows[good]] = True
        columns[modality_name(name)] = blocks.numpy_to_optional(taken, present)
        rejected.append(
            _width_rejects(posts, rows, lengths, np.flatnonzero(named & ~good & (lengths > 0)), name, width)
        )
    return columns, blocks.concat(rejected)


_AS_LIST = pa.list_(pa.struct([("key", pa.string()), ("value", pa.list_(pa.float32()))]))


def _width_rejects(
    posts: pa.RecordBatch, rows: np.ndarray, lengths: np.ndarray, wrong: np.ndarray, name: str, width: int
) -> pa.RecordBatch:
    ids = posts.column("post_id").take(pa.array(rows[wrong]))
    return reject_block(
        source=["posts"] * len(wrong),
        record=[f"vectors.{name}"] * len(wrong),
        id=ids,
        stage="extract",
        code="vector_width",
        message=[f"a vector of {lengths[index]} numbers, most have {width}" for index in wrong],
    )

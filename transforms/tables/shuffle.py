"""Primitive 1, the shuffle of blocks: rows with the same key go to one part, in vectorized form instead of row by row.

Each block is split by a stable hash of its key column into as many parts as wanted; a part's pieces are grouped and
concatenated. A million small tuples through a GroupByKey took 76 s in the in-process runner, the same rows as blocks
0.9 s.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from transforms.tables import blocks, schemas, spill
from transforms.tables.threads import FlatMapInThreads

# Maximum size of a part, and roughly of a string column: a worker has parts in memory, a few copies of each.
MAX_PART_BYTES = 2 << 30
# A column of strings crosses the shuffle as numbers of one byte where its first rows have so few values, and all of it
# not too many.
_PROBED_ROWS, _FEW, _MOST = 256, 16, 127


class PartTooLarge(ValueError):
    """A part of a shuffle exceeds the memory limit of a worker."""


@dataclasses.dataclass
class GroupBlocks(beam.PTransform):
    """Blocks -> (part, one block with all rows of the part), empty parts skipped.

    The rows of a part come in no particular order: sort them by something unique before order matters.
    A part is in memory as a whole: choose `num_parts` so that rows / num_parts is some ten thousands. All rows of a key
    are in one part, which may have MAX_PART_BYTES; a larger one raises PartTooLarge in the worker.

    Example:
      >>> with beam.Pipeline("FnApiRunner") as root:
      ...     posts = root | beam.Create([pa.record_batch({"post_id": ["a", "b"]})])
      ...     parts = posts | GroupBlocks("post_id", num_parts=1)
      ...     _ = parts | beam.MapTuple(lambda part, block: print(part, block.column("post_id").to_pylist()))
      0 ['a', 'b']
    """

    key: str
    num_parts: int

    def __post_init__(self) -> None:
        check_num_parts(self.num_parts)

    def expand(self, rows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        return (
            rows
            | "SplitByKey" >> _split("", self.key, self.num_parts)
            | "GroupByPart" >> beam.GroupByKey()
            | "Concat" >> beam.Map(_concat, key=self.key)
        )


@dataclasses.dataclass
class CoGroupBlocks(beam.PTransform):
    """Several collections of blocks, each with a key column -> (part, name -> one block with its rows of the part).

    If a collection has no row in a part, its block is empty, of its schema in `schemas`.

    Example:
      >>> posts, likes = (pa.record_batch({"post_id": ids}) for ids in (["a"], ["a", "a"]))
      >>> keys = {"posts": "post_id", "likes": "post_id"}
      >>> with beam.Pipeline("FnApiRunner") as root:
      ...     tables = {"posts": root | "P" >> beam.Create([posts]), "likes": root | "L" >> beam.Create([likes])}
      ...     parts = tables | CoGroupBlocks(keys, {"posts": posts.schema, "likes": likes.schema}, num_parts=1)
      ...     _ = parts | beam.MapTuple(lambda part, rows: print(part, rows["posts"].num_rows, rows["likes"].num_rows))
      0 1 2
    """

    keys: Mapping[str, str]
    schemas: Mapping[str, pa.Schema]
    num_parts: int

    def __post_init__(self) -> None:
        check_num_parts(self.num_parts)
        if self.keys.keys() != self.schemas.keys():
            raise ValueError(f"keys and schemas must name the same, got {set(self.keys)} and {set(self.schemas)}")

    def expand(
        self, collections: Mapping[str, beam.PCollection[pa.RecordBatch]]
    ) -> beam.PCollection[tuple[int, dict[str, pa.RecordBatch]]]:
        pieces = [
            rows | f"Split {name}" >> _split(name, self.keys[name], self.num_parts)
            for name, rows in collections.items()
        ]
        return (
            pieces
            | beam.Flatten()
            | "GroupByPart" >> beam.GroupByKey()
            | "Concat" >> beam.Map(_concat_by_name, keys=dict(self.keys), table_schemas=dict(self.schemas))
        )


def check_num_parts(num_parts: int) -> None:
    """Raises ValueError if `num_parts` is no valid number of parts."""
    if num_parts < 1:
        raise ValueError(f"num_parts must be at least 1, got {num_parts}")


def _split(tag: str, key: str, num_parts: int) -> beam.PTransform:
    split = FlatMapInThreads(_pieces, tag=tag, key=key, num_parts=num_parts, directory=spill.directory())
    return beam.ParDo(split).with_output_types(tuple[int, spill.PIECE])


def _pieces(
    block: pa.RecordBatch, tag: str, key: str, num_parts: int, directory: str
) -> Iterator[tuple[int, spill.SpilledPiece]]:
    parts = blocks.partition(compact(block), key, num_parts)
    return spill.pieces(tag, parts, directory if block.nbytes >= spill.MIN_BYTES else "")


def _within_limit(pieces: Iterable[spill.PIECE], keys: Iterable[str]) -> Iterator[spill.SpilledPiece]:
    """The pieces of a part, up to the memory limit of a worker."""
    size = 0
    for piece in map(spill.SpilledPiece._make, pieces):
        size += piece.num_bytes
        if size > MAX_PART_BYTES:
            raise PartTooLarge(
                f"a part of the shuffle by {' and '.join(sorted(set(keys)))} has more than {MAX_PART_BYTES:,} bytes: "
                "give more --num_parts, or leave out the id that has so many rows"
            )
        yield piece


def _concat(grouped: tuple[int, Iterable[spill.PIECE]], key: str) -> tuple[int, pa.RecordBatch]:
    part, pieces = grouped
    return part, blocks.concat([expand(piece.read()) for piece in _within_limit(pieces, [key])])


def _concat_by_name(
    grouped: tuple[int, Iterable[spill.PIECE]], keys: Mapping[str, str], table_schemas: Mapping[str, pa.Schema]
) -> tuple[int, dict[str, pa.RecordBatch]]:
    part, pieces = grouped
    found: dict[str, list[pa.RecordBatch]] = {name: [] for name in table_schemas}
    for piece in _within_limit(pieces, keys.values()):
        found[piece.name].append(expand(piece.read()))
    return part, {
        name: blocks.concat(rows) if rows else schemas.empty(table_schemas[name]) for name, rows in found.items()
    }


def compact(block: pa.RecordBatch) -> pa.RecordBatch:
    """The block with its columns of few different strings (kinds, languages) as dictionaries: see `expand`.

    This makes interactions smaller by a sixth. A small block would become larger.
    """
    if block.num_rows < _PROBED_ROWS:
        return block
    for index, column in enumerate(block.columns):
        if pa.types.is_string(column.type) and len(pc.unique(column.slice(0, _PROBED_ROWS))) <= _FEW:
            encoded = column.dictionary_encode()
            if len(encoded.dictionary) <= _MOST:
                small = pa.DictionaryArray.from_arrays(encoded.indices.cast(pa.int8()), encoded.dictionary)
                block = block.set_column(index, block.schema.field(index).with_type(small.type), small)
    return block


def expand(block: pa.RecordBatch) -> pa.RecordBatch:
    """The block with dictionary columns decoded to plain ones, as all tables are declared."""
    for index, column in enumerate(block.columns):
        if pa.types.is_dictionary(column.type):
            field = block.schema.field(index).with_type(column.type.value_type)
            block = block.set_column(index, field, column.dictionary_decode())
    return block

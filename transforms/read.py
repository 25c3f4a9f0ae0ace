"""A split of an input file -> canonical rows, rejects and counts."""

import dataclasses
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from transforms import blocks, canonical, columns, formats, lines, parse_csv, parse_json, parse_parquet, progress
from transforms.canonical import Table
from transforms.formats import Split
from transforms.parse_lines import Limits, too_long
from transforms.verdicts import Rows, faulty_row, field_counts

# How many rows a file may have before the sequence of the next file would begin: 2^40 lines.
_FILE_BITS = 40
CHUNK_BYTES = 4 << 20
SEQUENCE = "_sequence"


@dataclasses.dataclass(frozen=True)
class Judged:
    """The good rows (schema of the table, and `_sequence` int64, which orders rows as read), and the rejects."""

    block: pa.RecordBatch
    rejects: pa.RecordBatch
    counts: Counter[str]


def read_split(table: Table, split: Split, block_bytes: int, limits: Limits) -> Iterator[Judged]:
    """The rows of a split, judged, in pieces small enough to be parsed in the processor's cache."""
    for rows in _read_rows(table, split, min(block_bytes, CHUNK_BYTES), limits):
        if len(rows.numbers):
            progress.advance(len(rows.numbers))
            yield judge(table, split, rows)


def _read_rows(table: Table, split: Split, chunk_bytes: int, limits: Limits) -> Iterator[Rows]:
    if split.file.format == formats.PARQUET:
        yield from parse_parquet.read(table, split)
    elif split.file.format == formats.CSV:
        yield from parse_csv.read(table, split, chunk_bytes, limits)
    else:
        messages = {"row_too_long": too_long(limits), "file_unreadable": lines.UNREADABLE}
        for chunk in lines.read_chunks(split, chunk_bytes, limits.max_line_bytes):
            if chunk.fault:
                yield faulty_row(chunk.first_line, chunk.fault, messages[chunk.fault])
            else:
                yield parse_json.parse(table, chunk, limits)


def judge(table: Table, split: Split, rows: Rows) -> Judged:
    """Rows in any type as canonical rows and rejects."""
    verdicts = rows.verdicts
    found = canonical.canonical(table, rows.columns, verdicts)
    sequence = pa.array((np.int64(split.file.number) << _FILE_BITS) | rows.numbers)
    block = found.append_column(pa.field(SEQUENCE, pa.int64(), nullable=False), sequence)
    good = verdicts.good
    counts = Counter({f"{table.name}.read": len(good)})
    ids = found.column(table.key)
    rejects = verdicts.to_block(
        split.file.path, rows.numbers, _mask(ids, columns.bad_ids(ids)), split.file.format == formats.PARQUET
    )
    if not good.all():
        block = block.filter(pa.array(good))
        counts[f"{table.name}.rejected"] = rejects.num_rows
        counts.update(f"rejects.{code}" for code in rejects.column("code").to_pylist())
    for name, filled in field_counts(rows.ignored).items():
        counts[f"{table.name}.fields_ignored.{name}"] += filled
    return Judged(block, rejects, counts)


def _mask(ids: pa.Array, bad: np.ndarray) -> pa.Array:
    return ids if not bad.any() else pa.array(np.where(bad, None, ids.to_numpy(zero_copy_only=False)), pa.string())


def concat(judged: list[Judged]) -> Judged:
    """Several pieces as one."""
    counts: Counter[str] = Counter()
    for piece in judged:
        counts.update(piece.counts)
    return Judged(
        blocks.concat([piece.block for piece in judged]), blocks.concat([piece.rejects for piece in judged]), counts
    )

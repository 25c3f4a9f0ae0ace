"""A split of an input file -> canonical rows, rejects and counts."""

import collections
import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures

import numpy as np
import pyarrow as pa

from transforms.ingest import canonical, csv_reader, erasure, input_files, json_reader, parquet_reader, scalar_columns
from transforms.ingest.canonical import Table
from transforms.ingest.input_files import FileSplit
from transforms.ingest.line_reader import LineLimits
from transforms.ingest.row_errors import ParsedRows, RowErrors
from transforms.tables import blocks, progress
from transforms.tables.counts import field_counts
from transforms.tables.rejects import AFTER_RUN_DATE, ERASED

# How many rows a file may have before the sequence of the next file would begin: 2^40 lines.
_FILE_BITS = 40
# What is parsed at a time: small enough for the processor's cache.
CHUNK_BYTES = 4 << 20
NUM_THREADS = min(4, os.cpu_count() or 1)
SEQUENCE = "_sequence"


@dataclasses.dataclass(frozen=True)
class ReadRows:
    """The good rows (schema of the table, and `_sequence` int64, which orders rows as read), and the rejects."""

    block: pa.RecordBatch
    rejects: pa.RecordBatch
    counts: Counter[str]


def read_split(table: Table, split: FileSplit, block_bytes: int, limits: LineLimits) -> Iterator[ReadRows]:
    """The validated rows of a split, in the pieces in which they were parsed, in their order.

    Pieces are parsed by several threads: pyarrow and numpy let go of the interpreter while they work.
    """
    held: collections.deque[futures.Future[ReadRows]] = collections.deque()
    with futures.ThreadPoolExecutor(NUM_THREADS) as pool:
        for find in _find_rows(table, split, min(block_bytes, CHUNK_BYTES), limits):
            held.append(pool.submit(_judge_found, table, split, find))
            if len(held) > NUM_THREADS:
                yield held.popleft().result()
        while held:
            yield held.popleft().result()


def _judge_found(table: Table, split: FileSplit, find: Callable[[], ParsedRows]) -> ReadRows:
    rows = find()
    progress.advance(len(rows.numbers))
    return judge(table, split, rows)


def _find_rows(
    table: Table, split: FileSplit, chunk_bytes: int, limits: LineLimits
) -> Iterator[Callable[[], ParsedRows]]:
    """Reads pieces of the split, each as a function that parses it."""
    if split.file.format == input_files.PARQUET:
        yield from parquet_reader.read(table, split)
    elif split.file.format == input_files.CSV:
        yield from csv_reader.read(table, split, chunk_bytes, limits)
    else:
        yield from json_reader.read(table, split, chunk_bytes, limits)


def judge(table: Table, split: FileSplit, rows: ParsedRows) -> ReadRows:
    """Rows in any type as canonical rows and rejects."""
    verdicts = rows.verdicts
    found = canonical.canonical(table, rows.columns, verdicts)
    forgotten = _erase(table, found, verdicts)
    sequence = pa.array((np.int64(split.file.number) << _FILE_BITS) | rows.numbers)
    block = found.append_column(pa.field(SEQUENCE, pa.int64(), nullable=False), sequence)
    good = verdicts.good
    counts = Counter({f"{table.name}.read": len(good)})
    ids = found.column(table.key)
    hidden = scalar_columns.bad_ids(ids) | forgotten
    rejects = verdicts.to_block(
        split.file.path, rows.numbers, _mask(ids, hidden), split.file.format == input_files.PARQUET
    )
    if not good.all():
        block = block.filter(pa.array(good))
        counts[f"{table.name}.rejected"] = rejects.num_rows
        codes = Counter(rejects.column("code").to_pylist())
        counts.update({f"rejects.{code}": number for code, number in codes.items()})
        for code, name in ((AFTER_RUN_DATE, "later"), (ERASED, "erased")):
            if codes[code]:
                counts[f"{table.name}.{name}"] = codes[code]
    if table.erasure is not None:
        block = erasure.forget_references(erasure.ids_of(table.erasure), block)
    for name, filled in field_counts(rows.ignored).items():
        counts[f"{table.name}.fields_ignored.{name}"] += filled
    return ReadRows(block, rejects, counts)


def _erase(table: Table, found: pa.RecordBatch, verdicts: RowErrors) -> np.ndarray:
    """Mask of the rows to erase ([n] bool); they become rejects, whatever else is wrong with them."""
    if table.erasure is None:
        return np.zeros(found.num_rows, bool)
    erased = erasure.is_erased(erasure.ids_of(table.erasure), table.name, found)
    verdicts.reject(erased, ERASED, "the user or post is to be forgotten", rank=-2)
    return erased


def _mask(ids: pa.Array, bad: np.ndarray) -> pa.Array:
    return ids if not bad.any() else pa.array(np.where(bad, None, ids.to_numpy(zero_copy_only=False)), pa.string())


def concat(judged: list[ReadRows]) -> ReadRows:
    """Several pieces as one."""
    counts: Counter[str] = Counter()
    for piece in judged:
        counts.update(piece.counts)
    return ReadRows(
        blocks.concat([piece.block for piece in judged]), blocks.concat([piece.rejects for piece in judged]), counts
    )

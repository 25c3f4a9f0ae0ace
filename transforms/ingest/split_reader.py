"""A split of an input file -> canonical rows, rejects and counts."""

import collections
import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent import futures

import numpy as np
import pyarrow as pa

from transforms.ingest import canonical, erasure, input_files, scalar_columns
from transforms.ingest.canonical import Table
from transforms.ingest.csv_reader import CsvReader
from transforms.ingest.input_files import FileSplit
from transforms.ingest.json_reader import JsonReader
from transforms.ingest.line_reader import Chunk, LineLimits
from transforms.ingest.parquet_reader import ParquetReader
from transforms.ingest.reader import ParsedRows, Reader, read_chunk
from transforms.ingest.row_errors import RowErrors
from transforms.tables import blocks, progress
from transforms.tables.counts import field_counts
from transforms.tables.rejects import AFTER_RUN_DATE, ERASED

# A file has at most 2^40 lines: the sequence of the next one begins there.
_FILE_BITS = 40
# Bytes that are parsed at a time: they fit into the processor's cache.
CHUNK_BYTES = 4 << 20
NUM_THREADS = min(4, os.cpu_count() or 1)
READERS: Mapping[str, type[Reader]] = {
    input_files.JSONL: JsonReader,
    input_files.CSV: CsvReader,
    input_files.PARQUET: ParquetReader,
}


@dataclasses.dataclass(frozen=True)
class ReadRows:
    """The good rows (schema of the table, and `_sequence` int64, which orders rows as read), and the rejects."""

    block: pa.RecordBatch
    rejects: pa.RecordBatch
    counts: Counter[str]


def read_split(table: Table, split: FileSplit, block_bytes: int, limits: LineLimits) -> Iterator[ReadRows]:
    """The validated rows of a split, in the chunks in which they were read, in their order.

    Chunks are parsed by several threads: pyarrow and numpy release the interpreter lock while they work.
    """
    reader = READERS[split.file.format](table, split, limits)
    running: collections.deque[futures.Future[ReadRows]] = collections.deque()
    with futures.ThreadPoolExecutor(NUM_THREADS) as pool:
        for chunk in reader.chunks(min(block_bytes, CHUNK_BYTES)):
            running.append(pool.submit(_read_chunk, reader, chunk))
            if len(running) > NUM_THREADS:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _read_chunk(reader: Reader, chunk: Chunk) -> ReadRows:
    rows = read_chunk(reader, chunk)
    progress.advance(len(rows.numbers))
    return validate(reader.table, reader.split, rows)


def validate(table: Table, split: FileSplit, rows: ParsedRows) -> ReadRows:
    """Rows in any type as canonical rows and rejects."""
    errors = rows.errors
    found = canonical.canonical(table, rows.columns, errors)
    erased = _erase(table, found, errors)
    sequence = pa.array((np.int64(split.file.number) << _FILE_BITS) | rows.numbers)
    block = found.append_column(pa.field(canonical.SEQUENCE, pa.int64(), nullable=False), sequence)
    good = errors.good
    counts = Counter({f"{table.name}.read": len(good)})
    ids = found.column(table.key)
    masked = scalar_columns.bad_ids(ids) | erased
    rejects = errors.to_block(
        split.file.path, rows.numbers, _mask(ids, masked), split.file.format == input_files.PARQUET
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
        block = erasure.drop_references(erasure.ids_of(table.erasure), block)
    for name, filled in field_counts(rows.ignored).items():
        counts[f"{table.name}.fields_ignored.{name}"] += filled
    return ReadRows(block, rejects, counts)


def _erase(table: Table, found: pa.RecordBatch, errors: RowErrors) -> np.ndarray:
    """Mask of the rows to erase ([n] bool); they become rejects, whatever else is wrong with them."""
    if table.erasure is None:
        return np.zeros(found.num_rows, bool)
    erased = erasure.is_erased(erasure.ids_of(table.erasure), table.name, found)
    errors.reject(erased, ERASED, "the user or post is to be erased", rank=-2)
    return erased


def _mask(ids: pa.Array, bad: np.ndarray) -> pa.Array:
    return ids if not bad.any() else pa.array(np.where(bad, None, ids.to_numpy(zero_copy_only=False)), pa.string())


def concat(pieces: list[ReadRows]) -> ReadRows:
    """Several pieces as one."""
    counts: Counter[str] = Counter()
    for piece in pieces:
        counts.update(piece.counts)
    return ReadRows(
        blocks.concat([piece.block for piece in pieces]), blocks.concat([piece.rejects for piece in pieces]), counts
    )

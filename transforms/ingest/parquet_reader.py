"""Row groups of Parquet files -> rows. Numbers are rows of the file, from 1."""

import functools
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.ingest import line_reader
from transforms.ingest.canonical import Table
from transforms.ingest.input_files import FileSplit
from transforms.ingest.row_errors import ParsedRows, RowErrors, faulty_row
from transforms.tables import parquet

BATCH_ROWS = 65_536


def read(table: Table, split: FileSplit) -> Iterator[Callable[[], ParsedRows]]:
    """The rows of one row group, some ten thousand at a time, each piece as a function that looks into it."""
    if split.fault:
        yield functools.partial(faulty_row, 1, "file_unreadable", split.fault)
        return
    first = split.first
    with parquet.open_file(split.file.path) as source:
        file = pq.ParquetFile(source, pre_buffer=False)
        known = [name for name in file.schema_arrow.names if name in table.roles]
        ignored = _count_unknown(file, split.start, table)
        batches = file.iter_batches(BATCH_ROWS, [split.start], columns=known, use_threads=False)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                yield functools.partial(faulty_row, first, "file_unreadable", line_reader.UNREADABLE)
                return
            if batch is None:
                return
            yield functools.partial(_rows, batch, first, ignored)
            first, ignored = first + batch.num_rows, {}


def _count_unknown(file: pq.ParquetFile, row_group: int, table: Table) -> dict[str, int]:
    """Rows with each unknown field, by the statistics of the file; all rows where it has none (nested fields)."""
    group = file.metadata.row_group(row_group)
    counts: dict[str, int] = {}
    for index in range(group.num_columns):
        column = group.column(index)
        name = column.path_in_schema.split(".")[0]
        if name in table.roles:
            continue
        flat = "." not in column.path_in_schema
        statistics = column.statistics if flat else None
        nulls = statistics.null_count if statistics is not None and statistics.has_null_count else 0
        counts[name] = max(counts.get(name, 0), group.num_rows - nulls)
    return {name: rows for name, rows in counts.items() if rows}


def _rows(batch: pa.RecordBatch, first: int, ignored: dict[str, int]) -> ParsedRows:
    verdicts = RowErrors(batch.num_rows)
    bad = invalid_rows(batch)
    if bad:
        mask = np.zeros(batch.num_rows, bool)
        mask[bad] = True
        verdicts.reject(mask, "encoding_invalid", "a string of the row is not UTF-8")
        batch = batch.take(pa.array(np.arange(batch.num_rows), mask=mask))
    found = {name: _decoded(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    return ParsedRows(found, np.arange(first, first + batch.num_rows), verdicts, ignored)


def _decoded(column: pa.Array) -> pa.Array:
    """Strings of old writers stand as bytes without a type."""
    return column.cast(pa.string()) if pa.types.is_binary(column.type) else column


def invalid_rows(batch: pa.RecordBatch) -> list[int]:
    """The rows with strings that are not UTF-8: pyarrow does not look when it reads."""
    if _is_valid(batch):
        return []
    if batch.num_rows == 1:
        return [0]
    half = batch.num_rows // 2
    return invalid_rows(batch.slice(0, half)) + [half + row for row in invalid_rows(batch.slice(half))]


def _is_valid(batch: pa.RecordBatch) -> bool:
    try:
        for column in batch.columns:
            _decoded(column).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True

"""Row groups of Parquet files -> rows. Numbers are rows of the file, from 1."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.ingest import line_reader
from transforms.ingest.canonical import Table
from transforms.ingest.line_reader import Chunk
from transforms.ingest.reader import ParsedRows, Reader
from transforms.ingest.row_errors import RowErrors
from transforms.tables import parquet

BATCH_ROWS = 65_536


class ParquetReader(Reader):
    """Reads one row group, BATCH_ROWS at a time."""

    _ignored: dict[str, int]

    def chunks(self, chunk_bytes: int) -> Iterator[Chunk]:
        """Record batches of the columns that the table knows."""
        split, first = self.split, self.split.first
        if split.fault:
            yield Chunk(None, first, ("file_unreadable", split.fault))
            return
        with parquet.open_file(split.file.path) as source:
            file = pq.ParquetFile(source, pre_buffer=False)
            known = [name for name in file.schema_arrow.names if name in self.table.roles]
            self._ignored = _count_unknown(file, split.start, self.table)
            try:
                for batch in file.iter_batches(BATCH_ROWS, [split.start], columns=known, use_threads=False):
                    yield Chunk(batch, first)
                    first += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                yield Chunk(None, first, ("file_unreadable", line_reader.UNREADABLE))

    def parse(self, data: pa.RecordBatch, first: int) -> ParsedRows:
        """The rows of a batch; the first one has the counts of ignored fields of the whole row group."""
        errors = RowErrors(data.num_rows)
        if bad := invalid_rows(data):
            mask = np.zeros(data.num_rows, bool)
            mask[bad] = True
            errors.reject(mask, "encoding_invalid", "a string of the row is not UTF-8")
            data = data.take(pa.array(np.arange(data.num_rows), mask=mask))
        found = {name: _decoded(column) for name, column in zip(data.schema.names, data.columns, strict=True)}
        ignored = self._ignored if first == self.split.first else {}
        return ParsedRows(found, np.arange(first, first + data.num_rows), errors, ignored)


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

"""Tables on disk: directories of Parquet files, one file per part, read and written a part at a time.

A part is the unit of work: small enough for memory (the stages choose their number of parts so that one has tens of
megabytes), large enough to be worth vectorized work. Files whose names start with `_` are not data.
"""

import dataclasses
import datetime
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.tables import blocks, files, schemas
from transforms.tables.threads import FlatMapInThreads


class FileLayout(NamedTuple):
    """Rows per row group (the unit of reading) and codec of a Parquet file."""

    row_group_rows: int
    compression: str


COMPACT = FileLayout(65_536, "zstd")
# Vectors hardly compress: it saves a sixth of the size and takes half of the read time.
READ_OFTEN = FileLayout(8192, "none")
# Columns of ids and texts drop their dictionaries earlier than at pyarrow's 1 MiB: posts are written in 14% less time
# and 7% fewer bytes.
DICTIONARY_BYTES = 1 << 16


@dataclasses.dataclass
class ReadParts(beam.PTransform):
    """The files of a table as (part, block), one element per file; parts are numbered from 0 in file name order.

    Example:
      >>> write_file("posts/part-00000.parquet", pa.record_batch({"n": [1, 2]}), pa.schema({"n": pa.int64()}))
      >>> with beam.Pipeline("FnApiRunner") as root:
      ...     _ = root | ReadParts("posts", ["n"]) | beam.MapTuple(lambda part, block: print(part, block.num_rows))
      0 2
    """

    directory: str
    columns: Sequence[str] | None = None

    def expand(self, root: beam.Pipeline) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        return (
            root
            | "Table" >> beam.Create([self.directory])
            | "ListFiles" >> beam.FlatMap(lambda directory: list(enumerate(list_files(directory))))
            | "Spread" >> beam.Reshuffle()
            | "ReadFile" >> beam.Map(_read_part, columns=self.columns)
        )


def _read_part(file: tuple[int, str], columns: Sequence[str] | None) -> tuple[int, pa.RecordBatch]:
    part, path = file
    return part, read_file(path, columns)


@dataclasses.dataclass
class ReadBlocks(beam.PTransform):
    """The files of a table as blocks, for a shuffle: `ReadParts` without the part numbers.

    Example:
      >>> write_file("posts/part-00000.parquet", pa.record_batch({"n": [1, 2]}), pa.schema({"n": pa.int64()}))
      >>> with beam.Pipeline("FnApiRunner") as root:
      ...     _ = root | ReadBlocks("posts") | beam.Map(lambda block: print(block.num_rows))
      2
    """

    directory: str
    columns: Sequence[str] | None = None

    def expand(self, root: beam.Pipeline) -> beam.PCollection[pa.RecordBatch]:
        return root | ReadParts(self.directory, self.columns) | "DropNumbers" >> beam.Values()


@dataclasses.dataclass
class WriteParts(beam.PTransform):
    """Writes (part, block) elements to DIRECTORY/part-PART.parquet, one file per element; outputs (path, rows).

    Each part number may occur once. Empty parts are skipped; an empty table is one file without rows, so that a reader
    always finds the schema.

    Example:
      >>> with beam.Pipeline("FnApiRunner") as root:
      ...     parts = root | beam.Create([(3, pa.record_batch({"n": [1, 2]}))])
      ...     _ = parts | WriteParts("posts", pa.schema({"n": pa.int64()})) | beam.Map(print)
      ('posts/part-00003.parquet', 2)
    """

    directory: str
    schema: pa.Schema
    layout: FileLayout = COMPACT

    def expand(self, parts: beam.PCollection[tuple[int, pa.RecordBatch]]) -> beam.PCollection[tuple[str, int]]:
        write = FlatMapInThreads(_write_part, directory=self.directory, schema=self.schema, layout=self.layout)
        files = (
            parts
            | "DropEmpty" >> beam.Filter(lambda part: part[1].num_rows > 0)
            | "WriteFile" >> beam.ParDo(write).with_output_types(tuple[str, int])
        )
        return (
            files
            | "AllFiles" >> beam.combiners.ToList()
            | "NeverNone" >> beam.FlatMap(_never_none, directory=self.directory, schema=self.schema)
        )


def _write_part(
    numbered: tuple[int, pa.RecordBatch], directory: str, schema: pa.Schema, layout: FileLayout = COMPACT
) -> list[tuple[str, int]]:
    part, block = numbered
    path = part_path(directory, part)
    write_file(path, block, schema, layout)
    return [(path, block.num_rows)]


def _never_none(files: list[tuple[str, int]], directory: str, schema: pa.Schema) -> list[tuple[str, int]]:
    return files or _write_part((0, schemas.empty(schema)), directory, schema)


def write_empty(directory: str, schema: pa.Schema) -> None:
    """Writes a table without rows, as `WriteParts` does."""
    _never_none([], directory, schema)


def part_path(directory: str, part: int) -> str:
    """Path of a part of a table."""
    return files.join(directory, f"part-{part:05d}.parquet")


def list_files(directory: str) -> list[str]:
    """Paths of the Parquet files directly in a directory, sorted by name."""
    paths = [state.path for state in files.match(files.join(directory, "*.parquet"))]
    return sorted(path for path in paths if not os.path.basename(path).startswith("_"))


def open_file(path: str) -> "BinaryIO | pa.NativeFile":
    """Opens a file for reading; non-local paths through Beam's file systems.

    Not memory-mapped: a file truncated while it is read would kill the process (SIGBUS).
    """
    return pa.OSFile(path) if files.is_local(path) else files.open_read(path)


def read_file(path: str, columns: Sequence[str] | None = None) -> pa.RecordBatch:
    """One Parquet file as one block.

    Raises:
      ValueError: the file lacks a column.
    """
    with open_file(path) as source:
        file = pq.ParquetFile(source, pre_buffer=False)
        missing = set(columns or ()) - set(file.schema_arrow.names)
        if missing:
            raise ValueError(f"{path} has no column {sorted(missing)[0]}")
        table = file.read(columns=list(columns) if columns is not None else None, use_threads=False)
    return to_block(table)


def read_row_groups(
    path: str, starts: np.ndarray, stops: np.ndarray, columns: Sequence[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The row groups of a file that overlap any of the row ranges [starts, stops), each with its first row number."""
    with open_file(path) as source:
        file = pq.ParquetFile(source, pre_buffer=False)
        start = 0
        for number in range(file.metadata.num_row_groups):
            stop = start + file.metadata.row_group(number).num_rows
            if ((starts < stop) & (stops > start)).any():
                yield start, to_block(file.read_row_group(number, columns=list(columns), use_threads=False))
            start = stop


def to_block(table: pa.Table) -> pa.RecordBatch:
    """A table as a single block."""
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else schemas.empty(table.schema)


def read_blocks(directory: str, max_rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A whole table in blocks of at most `max_rows`, file after file in the order of their names.

    Reads one file at a time into memory.
    """
    for path in list_files(directory):
        yield from blocks.split_rows(read_file(path, columns), max_rows)


def count_rows(directory: str) -> int:
    """Number of rows of a table, from the footers of its files."""
    total = 0
    for path in list_files(directory):
        with open_file(path) as source:
            total += pq.ParquetFile(source).metadata.num_rows
    return total


def newest(directory: str, column: str) -> datetime.datetime | None:
    """Latest time in a column of a table, from the footers of its files; None if there is none."""
    found = []
    for path in list_files(directory):
        with open_file(path) as source:
            metadata = pq.ParquetFile(source).metadata
        place = metadata.schema.names.index(column)
        groups = [metadata.row_group(number).column(place).statistics for number in range(metadata.num_row_groups)]
        found += [group.max for group in groups if group is not None and group.has_min_max]
    return max(found, default=None)


def read_schema(directory: str) -> pa.Schema:
    """The schema of a table, from its first file.

    Raises:
      FileNotFoundError: the directory has no Parquet file.
    """
    files = list_files(directory)
    if not files:
        raise FileNotFoundError(f"no Parquet file in {directory}")
    with open_file(files[0]) as source:
        return pq.ParquetFile(source).schema_arrow


def write_file(path: str, block: pa.RecordBatch, schema: pa.Schema, layout: FileLayout = COMPACT) -> None:
    """Writes a block as one Parquet file in exactly the given schema.

    Listings never show a partial file, and a retried bundle leaves one complete file.
    """
    table = pa.Table.from_batches([schemas.conform(block, schema)], schema=schema)
    with files.open_write(path) as file:
        pq.write_table(
            table,
            file,
            compression=layout.compression,
            row_group_size=layout.row_group_rows,
            dictionary_pagesize_limit=DICTIONARY_BYTES,
        )

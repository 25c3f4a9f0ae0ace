"""The interface of the readers, one for each format: a split -> chunks -> rows as columns of any type."""

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.ingest.canonical import Table
from transforms.ingest.input_files import FileSplit
from transforms.ingest.line_reader import Chunk, LineLimits
from transforms.ingest.row_errors import RowErrors


@dataclasses.dataclass
class ParsedRows:
    """Rows of a chunk, not yet validated.

    Attributes:
      columns: the fields that the table knows, by name, in any type, [n] each; those that no row has may be missing.
      numbers: [n] int64, the line or record of each row, from 1.
      errors: those found so far.
      ignored: number of rows with each field that the table does not know.
    """

    columns: Mapping[str, pa.Array]
    numbers: np.ndarray
    errors: RowErrors
    ignored: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Reader(abc.ABC):
    """Reads one split of a file: `chunks` one after another, which `parse` takes in any order and in any thread."""

    def __init__(self, table: Table, split: FileSplit, limits: LineLimits) -> None:
        self.table = table
        self.split = split
        self.limits = limits

    @abc.abstractmethod
    def chunks(self, chunk_bytes: int) -> Iterator[Chunk]:
        """The split in chunks of about that many bytes."""

    @abc.abstractmethod
    def parse(self, data: Any, first: int) -> ParsedRows:
        """The rows of a chunk without a fault; `first` is the line or record with which it begins."""


def read_chunk(reader: Reader, chunk: Chunk) -> ParsedRows:
    """The rows of a chunk; of one with a fault, a single rejected row."""
    if chunk.fault is None:
        return reader.parse(chunk.data, chunk.first)
    errors = RowErrors(1)
    errors.reject_row(0, *chunk.fault)
    return ParsedRows({}, np.array([chunk.first]), errors)

"""CSV (RFC 4180: commas, fields in double quotes, the first row names the columns) -> rows.

pyarrow parses whole chunks. Irregular records, which it would reject or read in another way than Python's csv, are
found before. Python's csv parses them, and its fields replace them in the chunk, all in quotes; rejected records are
empty.
"""

import csv
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from transforms.ingest import line_reader, scalar_columns
from transforms.ingest.canonical import Table
from transforms.ingest.input_files import FileSplit
from transforms.ingest.line_reader import BOM, Chunk, LineLimits, too_long
from transforms.ingest.reader import ParsedRows, Reader
from transforms.ingest.row_errors import RowError, RowErrors

_QUOTE, _NEWLINE, _RETURN, _COMMA = 34, 10, 13, 44


@dataclasses.dataclass(frozen=True)
class _Records:
    """Records of a chunk, without blank ones: their first byte, their newline, their line and which are irregular."""

    starts: np.ndarray
    ends: np.ndarray
    numbers: np.ndarray
    irregular: np.ndarray


class CsvReader(Reader):
    """Reads a CSV file. The numbers of rows are the physical lines on which they begin."""

    def __init__(self, table: Table, split: FileSplit, limits: LineLimits) -> None:
        super().__init__(table, split, limits)
        self._names: list[str] | None = None
        csv.field_size_limit(max(limits.max_line_bytes, 1 << 17))

    def chunks(self, chunk_bytes: int) -> Iterator[Chunk]:
        """Whole records after the header."""
        for chunk in line_reader.read_chunks(self.split, chunk_bytes, self.limits, last_record_end):
            if self._names is None and not chunk.fault:
                ends = record_ends(chunk.data)
                header = chunk.data[: int(ends[0]) + 1] if len(ends) else chunk.data
                self._names = _column_names(header)
                chunk = Chunk(chunk.data[len(header) :], chunk.first + header.count(b"\n"))
            if chunk.data or chunk.fault:
                yield chunk

    def parse(self, data: bytes, first: int) -> ParsedRows:
        """The rows, blank lines dropped; every record that is no row has an error."""
        assert self._names is not None
        names, num_fields = self._names, len(self._names)
        data = data if data.endswith(b"\n") else data + b"\n"
        records = _find_records(data, first, num_fields, self.limits)
        errors = RowErrors(len(records.starts))
        pieces, done = [], 0
        for row in np.flatnonzero(records.irregular).tolist():
            start, end = int(records.starts[row]), int(records.ends[row])
            try:
                fields = _parse_record(data[start:end], num_fields, self.limits)
            except RowError as error:
                errors.reject_row(row, *error.args)
                fields = [""] * num_fields
            pieces += [data[done:start], _quoted(fields)]
            done = end
        # Columns that are missing are null in the canonical form.
        columns = _parse_regular(b"".join([*pieces, data[done:]]), num_fields) if errors.good.any() else []
        known: dict[str, pa.Array] = {}
        ignored: dict[str, int] = {}
        for name, column in zip(names, columns, strict=False):
            if name in self.table.roles:
                known[name] = scalar_columns.none_if_empty(column)
            elif filled := pc.sum(pc.greater(pc.binary_length(column), 0)).as_py():
                ignored[name] = filled
        return ParsedRows(known, records.numbers, errors, ignored)


def last_record_end(data: bytes, at_end: bool) -> int:
    """Size of the whole records at the beginning of the data; the last record of a file needs no newline."""
    if b'"' not in data or (at_end and data.count(b'"') % 2 == 0):
        return line_reader.last_line_end(data, at_end)
    ends = record_ends(data)
    return int(ends[-1]) + 1 if len(ends) else 0


def record_ends(data: bytes) -> np.ndarray:
    """The newlines with which records end, those with an even number of quotes before them: [num_records] int64."""
    characters = np.frombuffer(data, np.uint8)
    return np.flatnonzero((characters == _NEWLINE) & ~_in_quotes(characters))


def _in_quotes(characters: np.ndarray) -> np.ndarray:
    """Mask of the characters with an odd number of quotes up to and with them: [n] bool."""
    quotes = np.flatnonzero(characters == _QUOTE)
    sizes = np.diff(quotes, prepend=0, append=len(characters))
    return np.repeat(np.arange(len(sizes)) % 2 == 1, sizes)


def _column_names(header: bytes) -> list[str]:
    """The names of the columns; of two with the same name the second gets one that nothing knows."""
    words = next(iter(csv.reader([header.decode(errors="replace")])), [])
    names: list[str] = []
    for word in (word.strip() for word in words):
        names.append(word if word not in names else f"{word}.{len(names)}")
    return names


def _find_records(data: bytes, first: int, num_fields: int, limits: LineLimits) -> _Records:
    """The records of a chunk that ends with a newline.

    Regular are those of UTF-8, `num_fields` fields and an allowed size, with quotes where RFC 4180 has them and no
    carriage return alone, at which pyarrow ends a record.
    """
    characters = np.frombuffer(data, np.uint8)
    newlines = characters == _NEWLINE
    separators = np.flatnonzero((newlines | (characters == _COMMA)) & ~_in_quotes(characters))
    lasts = np.flatnonzero(newlines[separators])
    ends = separators[lasts]
    starts = np.append(0, ends[:-1] + 1)
    irregular = (np.diff(lasts, prepend=-1) != num_fields) | (ends - starts > limits.max_line_bytes)
    irregular[np.searchsorted(ends, _irregular_places(characters))] = True
    irregular[0] |= data.startswith(BOM)  # which pyarrow drops
    if not line_reader.is_utf8(data):
        irregular[:] = True
    filled = ends > starts
    for record in np.flatnonzero(characters[starts] == _RETURN):
        filled[record] = data[starts[record] : ends[record]].strip(b"\r") != b""
    starts, ends = starts[filled], ends[filled]
    numbers = first + np.searchsorted(np.flatnonzero(newlines), starts)
    return _Records(starts, ends, numbers, irregular[filled])


def _irregular_places(characters: np.ndarray) -> np.ndarray:
    """Carriage returns without a newline, and quotes that neither begin or end a field nor are doubled in one."""
    returns = np.flatnonzero(characters == _RETURN)
    alone = returns[characters[returns + 1] != _NEWLINE]
    quotes = np.flatnonzero(characters == _QUOTE)
    opening, closing = quotes[::2], quotes[1::2]
    before = characters[opening - 1]
    doubled = np.append(False, opening[1:] == closing[:-1] + 1)[: len(opening)]
    bad_opening = (opening > 0) & (before != _COMMA) & (before != _NEWLINE) & ~doubled
    bad_closing = ~np.isin(characters[closing + 1], (_COMMA, _NEWLINE, _RETURN, _QUOTE))
    return np.concatenate([alone, opening[bad_opening], closing[bad_closing]])


def _parse_record(record: bytes, num_fields: int, limits: LineLimits) -> list[str]:
    """The fields of one record.

    Raises:
      RowError: it is no CSV, has another number of fields or is beyond the limits.
    """
    if len(record) > limits.max_line_bytes:
        raise RowError("row_too_long", too_long(limits))
    try:
        lines = record.decode().split("\n")
        rows = list(csv.reader((f"{line}\n" for line in lines), strict=True))
    except UnicodeDecodeError as error:
        raise RowError("encoding_invalid", f"byte {error.start + 1} of the row is not UTF-8") from None
    except csv.Error as error:
        raise RowError("row_malformed", f"no CSV: {error}") from None
    if len(rows) != 1:
        message = f"{len(rows)} rows where one was expected (a stray carriage return?)"
        raise RowError("row_malformed", message)
    if len(rows[0]) != num_fields:
        raise RowError("row_malformed", f"{len(rows[0])} fields, expected {num_fields}")
    return rows[0]


def _quoted(fields: Sequence[str]) -> bytes:
    return ",".join('"' + field.replace('"', '""') + '"' for field in fields).encode()


def _parse_regular(data: bytes, num_fields: int) -> list[pa.Array]:
    """The columns of regular records: strings, "" where a cell is empty."""
    labels = [str(index) for index in range(num_fields)]
    parsed = pa_csv.read_csv(
        pa.BufferReader(data),
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=labels),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=True),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(labels, pa.string()), strings_can_be_null=False, check_utf8=False
        ),
    )
    return [column.combine_chunks() for column in parsed.columns]

"""CSV (RFC 4180: commas, fields in double quotes, the first row names the columns) -> rows.

pyarrow parses chunks whose quotes are where they should be; others are read record by record with Python's csv. A
chunk ends where a record ends, which in a quoted field is not every newline.
"""

import csv
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from transforms.ingest import line_reader, scalar_columns
from transforms.ingest.canonical import Table
from transforms.ingest.input_files import FileSplit
from transforms.ingest.json_reader import is_utf8
from transforms.ingest.line_reader import LineLimits, too_long
from transforms.ingest.row_errors import ParsedRows, RowErrors, faulty_row

_QUOTE, _NEWLINE, _RETURN, _COMMA = 34, 10, 13, 44


class _NotPlainCsvError(Exception):
    """The chunk is not for pyarrow."""


def read(table: Table, split: FileSplit, chunk_bytes: int, limits: LineLimits) -> Iterator[Callable[[], ParsedRows]]:
    """The rows of a CSV file, chunk after chunk, each as a function that parses it.

    The numbers of rows are the physical lines on which they begin.
    """
    csv.field_size_limit(max(limits.max_line_bytes, 1 << 17))
    parser = _CsvParser(table, limits)
    try:
        for piece in line_reader.read_pieces(split, chunk_bytes, limits):
            yield from parser.feed(piece)
    except line_reader.DamagedError as error:
        yield functools.partial(faulty_row, parser.line, error.code, error.message)
        return
    yield from parser.finish()


class _CsvParser:
    """Takes the bytes of a file piece by piece and gives rows; holds at most a chunk and a record."""

    def __init__(self, table: Table, limits: LineLimits) -> None:
        self.table = table
        self.limits = limits
        self.line = 1
        self.names: list[str] | None = None
        self._held = b""
        self._skipping = False

    def feed(self, piece: bytes) -> Iterator[Callable[[], ParsedRows]]:
        """The rows that end in the bytes held and these."""
        if self._skipping:
            _, newline, piece = piece.partition(b"\n")
            if not newline:
                return
            self.line, self._skipping = self.line + 1, False
        self._held += piece
        while self._held:
            cut = record_ends(self._held)
            if len(cut):
                yield from self._take(int(cut[-1]) + 1)
            if len(self._held) <= self.limits.max_line_bytes:
                return
            yield functools.partial(faulty_row, self.line, "row_too_long", too_long(self.limits))
            self._drop_line()

    def finish(self) -> Iterator[Callable[[], ParsedRows]]:
        """The rest, of which the last newline may be missing."""
        while self._held:
            cut = record_ends(self._held)
            if len(cut):
                yield from self._take(int(cut[-1]) + 1)
            elif self._held.count(b'"') % 2 == 0:
                yield from self._take(len(self._held))
            else:
                yield functools.partial(faulty_row, self.line, "row_malformed", "a quoted field does not end")
                self._drop_line()
                self._skipping = False

    def _drop_line(self) -> None:
        """Goes on behind the next newline, in what is held or in what comes."""
        _, newline, self._held = self._held.partition(b"\n")
        self._skipping = not newline
        self.line += len(newline)

    def _take(self, size: int) -> Iterator[Callable[[], ParsedRows]]:
        data, self._held = self._held[:size], self._held[size:]
        first, self.line = self.line, self.line + data.count(b"\n")
        if self.names is None:
            ends = record_ends(data)
            header = data[: int(ends[0]) + 1] if len(ends) else data
            self.names = _names(header)
            first, data = first + header.count(b"\n"), data[len(header) :]
        if data:
            yield functools.partial(self._parse, data, first)

    def _parse(self, data: bytes, first_line: int) -> ParsedRows:
        assert self.names is not None
        try:
            return _parse_whole(self.table, self.names, data, first_line, self.limits)
        except (_NotPlainCsvError, pa.ArrowInvalid):
            return _parse_records(self.table, self.names, data, first_line, self.limits)


def _names(header: bytes) -> list[str]:
    """The names of the columns; of two with the same name the second gets one that nothing knows."""
    words = next(iter(csv.reader([header.decode(errors="replace")])), [])
    names: list[str] = []
    for word in (word.strip() for word in words):
        names.append(word if word not in names else f"{word}.{len(names)}")
    return names


def record_ends(data: bytes) -> np.ndarray:
    """The newlines with which records end, those with an even number of quotes before them: [num_records] int64."""
    characters = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(characters == _NEWLINE)
    if b'"' not in data:
        return newlines
    quotes = np.flatnonzero(characters == _QUOTE)
    return newlines[np.searchsorted(quotes, newlines) % 2 == 0]


def _parse_whole(table: Table, names: Sequence[str], data: bytes, first_line: int, limits: LineLimits) -> ParsedRows:
    starts, numbers = _find_records(data, first_line, limits)
    labels = [str(index) for index in range(len(names))]
    if not len(starts):
        return ParsedRows({}, numbers, RowErrors(0))
    parsed = pa_csv.read_csv(
        pa.BufferReader(data),
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=labels),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=True),
        convert_options=pa_csv.ConvertOptions(
            column_types={label: pa.string() for label in labels}, strings_can_be_null=False, check_utf8=False
        ),
    )
    if parsed.num_rows != len(numbers):
        raise _NotPlainCsvError
    found = {name: parsed.column(label).combine_chunks() for name, label in zip(names, labels, strict=True)}
    return _rows(table, found, numbers, RowErrors(len(numbers)))


def _find_records(data: bytes, first_line: int, limits: LineLimits) -> tuple[np.ndarray, np.ndarray]:
    """Where each record begins and on which line, if quotes are where RFC 4180 has them and no record is too long."""
    if not is_utf8(data):
        raise _NotPlainCsvError
    characters = np.frombuffer(data, np.uint8)
    ends = record_ends(data)
    if not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1] + 1])
    _check_characters(characters)
    lengths = ends - starts
    if (lengths > limits.max_line_bytes).any():
        raise _NotPlainCsvError
    filled = (lengths > 1) | ((lengths == 1) & (characters[np.minimum(starts, len(data) - 1)] != _RETURN))
    newlines = np.flatnonzero(characters == _NEWLINE)
    return starts[filled], first_line + np.searchsorted(newlines, starts[filled])


def _check_characters(characters: np.ndarray) -> None:
    quotes = np.flatnonzero(characters == _QUOTE)
    # pyarrow ends a record at a carriage return alone.
    returns = np.flatnonzero(characters == _RETURN)
    if (characters[np.minimum(returns + 1, len(characters) - 1)] != _NEWLINE).any():
        raise _NotPlainCsvError
    padded = np.concatenate([[_NEWLINE], characters, [_NEWLINE]])
    before, after = padded[quotes[::2]], padded[quotes[1::2] + 2]
    doubled = np.concatenate([[False], quotes[2::2] == quotes[1:-1:2] + 1])[: len(before)]
    opening = np.isin(before, (_COMMA, _NEWLINE)) | doubled
    closing = np.isin(after, (_COMMA, _NEWLINE, _RETURN, _QUOTE))
    if len(quotes) % 2 or not opening.all() or not closing.all():
        raise _NotPlainCsvError


def _parse_records(table: Table, names: Sequence[str], data: bytes, first_line: int, limits: LineLimits) -> ParsedRows:
    """Every record parsed on its own."""
    records: list[list[str]] = []
    numbers: list[int] = []
    bad: list[tuple[int, str, str]] = []
    ends = [*record_ends(data).tolist()]
    if not data.endswith(b"\n"):
        ends.append(len(data))
    start = 0
    for end in ends:
        record = data[start:end]
        number, first_line = first_line, first_line + record.count(b"\n") + 1
        start = end + 1
        if record.strip(b"\r") == b"":
            continue
        fields, code, message = _parse_record(record, len(names), limits)
        if code:
            bad.append((len(records), code, message))
        records.append(fields)
        numbers.append(number)
    verdicts = RowErrors(len(records))
    for row, code, message in bad:
        verdicts.reject_row(row, code, message)
    found = {name: pa.array([row[index] for row in records], pa.string()) for index, name in enumerate(names)}
    return _rows(table, found, np.array(numbers, np.int64), verdicts)


def _parse_record(record: bytes, num_fields: int, limits: LineLimits) -> tuple[list[str], str, str]:
    """(the fields, "", "") or (fields of nothing, reject code, message)."""
    nothing = [""] * num_fields
    if len(record) > limits.max_line_bytes:
        return nothing, "row_too_long", too_long(limits)
    try:
        rows = list(csv.reader(_physical_lines(record.decode()), strict=True))
    except UnicodeDecodeError as error:
        return nothing, "encoding_invalid", f"byte {error.start + 1} of the row is not UTF-8"
    except csv.Error as error:
        return nothing, "row_malformed", f"no CSV: {error}"
    if len(rows) != 1:
        return nothing, "row_malformed", f"{len(rows)} rows where one was expected (a stray carriage return?)"
    if len(rows[0]) != num_fields:
        return nothing, "row_malformed", f"{len(rows[0])} fields, expected {num_fields}"
    return rows[0], "", ""


def _physical_lines(record: str) -> list[str]:
    return [f"{line}\n" for line in record.split("\n")]


def _rows(table: Table, found: dict[str, pa.Array], numbers: np.ndarray, verdicts: RowErrors) -> ParsedRows:
    """An empty cell is null."""
    known = {name: scalar_columns.none_if_empty(column) for name, column in found.items() if name in table.roles}
    filled = {
        n: pc.sum(pc.greater(pc.binary_length(c), 0)).as_py() or 0 for n, c in found.items() if n not in table.roles
    }
    return ParsedRows(known, numbers, verdicts, {name: rows for name, rows in filled.items() if rows})

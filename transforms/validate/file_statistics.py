"""Statistics of one file of a table, and its rows that violate the specification: read once, a block at a time.

Rows without a value come from the file's footer, so that the columns with most of the bytes (texts, terms) are not
read.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.tables import blocks, counts, progress, schemas
from transforms.text import language_tags
from transforms.validate import feature_moments, norm_histogram, table_specs
from transforms.validate.table_statistics import TableStatistics, sum_counts

READ_ROWS = 16_384
TEXT, TEXT_COUNTS, CREATED_AT = "text", "text_counts", "created_at"
KEYS = pa.schema([pa.field("key", pa.string(), nullable=False)])
# Separates a table from a key of its rows; ids have no control characters.
SEPARATOR = "\0"


class FileStatistics:
    """Statistics of one file, made while it is read."""

    def __init__(self, table: str, file: pq.ParquetFile, since: int) -> None:
        self.spec, self.file, self._table, self._since = table_specs.TABLE_SPECS[table], file, table, since
        self.schema = self.spec.schema(file.schema_arrow)
        latest = TableStatistics() if self.spec.latest else None
        self.statistics = TableStatistics(rows=file.metadata.num_rows, latest=latest)
        self._last_key: str | None = None
        self._last_rank = 0

    def read(self) -> Iterator[pa.RecordBatch]:
        """Reads the file; yields blocks of KEYS where keys have to be distinct."""
        wrong = table_specs.difference(self.file.schema_arrow, self.schema)
        if wrong:
            self.statistics.faults[wrong] = self.statistics.rows
            return
        self.statistics.widths = {name: {width} for name, width in self._widths().items()}
        if self.spec.nulls:
            self.statistics.nulls = count_nulls(self.file.metadata, self.schema)
        if columns := self._columns():
            for block in self.file.iter_batches(READ_ROWS, columns=columns, use_threads=False):
                if block.num_rows:
                    yield from self._add(block)
                progress.advance(block.num_rows)

    def _widths(self) -> dict[str, int]:
        fixed = {field.name: field.type.list_size for field in self.schema if pa.types.is_fixed_size_list(field.type)}
        return fixed | schemas.widths_of(self.schema)

    def _columns(self) -> list[str]:
        """Columns to read: keys and ranks, numbers that have to be finite, and what is counted or measured."""
        numbers = [field.name for field in self.schema if pa.types.is_floating(field.type)]
        wanted = {self.spec.key, *self.spec.counted, *numbers}
        wanted |= set() if self.spec.intermediate else set(self.statistics.widths)
        wanted |= {"rank"} if self.spec.ranked else set()
        wanted |= {TEXT_COUNTS} if self.spec.moments else set()
        wanted |= {CREATED_AT} if self.spec.latest else set()
        return [name for name in self.schema.names if name in wanted]

    def _add(self, block: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        for fault, number in self._describe(self.statistics, block).items():
            self._add_fault(fault, number)
        if self.statistics.latest is not None:
            latest = block.filter(pc.greater_equal(block.column(CREATED_AT).cast(pa.int64()), self._since))
            self.statistics.latest.rows += latest.num_rows
            self._describe(self.statistics.latest, latest)
        if not self.spec.key:
            return
        keys = block.column(self.spec.key)
        if self.spec.ranked:
            keys = keys.filter(self._add_ranks(keys, block.column("rank").to_numpy()))
        key_sum = int(blocks.stable_hash(keys).sum(dtype=np.uint64))
        self.statistics.key_sum = (self.statistics.key_sum + key_sum) % (1 << 64)
        if not self.spec.same_as:
            named = pc.binary_join_element_wise(pa.scalar(self._table), keys, SEPARATOR)
            yield pa.RecordBatch.from_arrays([named], schema=KEYS)

    def _describe(self, statistics: TableStatistics, block: pa.RecordBatch) -> dict[str, int]:
        """Adds some rows to statistics; returns the number of rows by fault."""
        faults: dict[str, int] = {}
        for name in block.schema.names:
            column = block.column(name)
            if name in self.statistics.widths:
                (width,) = self.statistics.widths[name]
                vectors, wrong, infinite = good_vectors(column, width)
                faults |= {f"{name} is not a vector of {width} numbers": wrong, f"{name} is not finite": infinite}
                if self.spec.moments:
                    _add_moments(statistics, name, vectors)
                if self.spec.norms:
                    statistics.norms = sum_counts(statistics.norms, norm_histogram.count(vectors))
            elif pa.types.is_floating(column.type):
                faults[f"{name} is not finite"] = pc.sum(pc.invert(pc.is_finite(column))).as_py() or 0
        for name in self.spec.counted:
            statistics.values[name] = sum_counts(
                statistics.values.get(name, {}), count_values(name, block.column(name))
            )
        if self.spec.moments:
            _add_moments(statistics, TEXT, num_words(block.column(TEXT_COUNTS))[:, None])
        return faults

    def _add_ranks(self, keys: pa.Array, rank: np.ndarray) -> pa.Array:
        """Checks the ranks of rows in their order; returns a mask of the first rows of keys: [n] bool."""
        before = pa.concat_arrays([pa.array([self._last_key], keys.type), keys[:-1]])
        starts = pc.fill_null(pc.not_equal(keys, before), True)
        expected = np.concatenate([[self._last_rank], rank[:-1]]) + 1
        wrong = rank != np.where(starts.to_numpy(zero_copy_only=False), 1, expected)
        self._add_fault(f"rank does not count from 1 for each {self.spec.key}", int(wrong.sum()))
        self._last_key, self._last_rank = keys[-1].as_py(), int(rank[-1])
        return starts

    def _add_fault(self, fault: str, number: int) -> None:
        if number:
            self.statistics.faults[fault] = self.statistics.faults.get(fault, 0) + number


def _add_moments(statistics: TableStatistics, modality: str, vectors: np.ndarray) -> None:
    before = [statistics.moments[modality]] if modality in statistics.moments else []
    statistics.moments[modality] = feature_moments.merge([*before, feature_moments.moments_of(vectors)])


def good_vectors(column: pa.Array, width: int) -> tuple[np.ndarray, int, int]:
    """Valid vectors of a column, [valid, width] float32; numbers of rows with another width, and not finite."""
    wrong = 0
    if pa.types.is_fixed_size_list(column.type):
        vectors = blocks.vectors_to_numpy(column)
    else:
        column = column.drop_null()
        right = pc.equal(pc.list_value_length(column), width)
        wrong = len(column) - right.true_count
        vectors = column.filter(right).flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    finite = np.isfinite(vectors)
    if finite.all():
        return vectors, wrong, 0
    good = finite.all(axis=1)
    return vectors[good], wrong, int(len(good) - good.sum())


def count_nulls(metadata: pq.FileMetaData, schema: pa.Schema) -> dict[str, int]:
    """Rows in which a column that may be null is null, or a list without elements, by the footer of a file.

    For a list the footer has the number of empty places; the elements of our lists (or one of their fields) are never
    null.
    """
    found = {field.name: 0 for field in schema if field.nullable}
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if not group.num_rows:  # of no rows there are no statistics
            continue
        least: dict[str, int] = {}
        for place in range(metadata.num_columns):
            column = group.column(place)
            name = column.path_in_schema.split(".")[0]
            if name in found:
                least[name] = min(column.statistics.null_count, least.get(name, column.num_values))
        found = sum_counts(found, least)
    return found


def count_values(column: str, values: pa.Array) -> dict[str, int]:
    """Counts of each value of a column; languages by their primary subtag. Names like those of fields."""
    if column == "lang":
        values = language_tags.primary_language(values)
    counted = values.drop_null().value_counts()
    found = dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
    return counts.field_counts(found)


def num_words(counts: pa.Array) -> np.ndarray:
    """Number of words of each text, the sum of its term counts: [texts] float64, without null texts."""
    counts = counts.drop_null()
    ends = np.concatenate([[0], np.cumsum(pc.list_value_length(counts).to_numpy())])
    sums = np.concatenate([[0], np.cumsum(counts.flatten().to_numpy())])
    return np.diff(sums[ends]).astype(np.float64)

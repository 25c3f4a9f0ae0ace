"""What is counted and measured of the tables of a run, and which rows break their rules: each file is read once.

A tally is some kilobytes, whatever the table has rows; tallies of files are merged. Rows without a value are told by
the files' footers, so that the columns with most of the bytes (texts, terms) are not read.
"""

import collections
import dataclasses
import typing
from collections.abc import Iterable, Iterator, Mapping

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam import pvalue

from transforms import blocks, languages, progress, rules, schemas, shuffle, tables, verdicts

READ_ROWS = 16_384
TEXT, TEXT_COUNTS = "text", "text_counts"
# Norms are counted in bins, so many for each doubling: a quantile is known to 1%.
BINS_PER_DOUBLING = 64
KEYS = pa.schema([pa.field("key", pa.string(), nullable=False)])
# Ids have no control characters.
_SEPARATOR = "\0"
K = typing.TypeVar("K")


@dataclasses.dataclass(frozen=True)
class Moments:
    """Of the vectors of some rows.

    Attributes:
      rows: how many.
      mean: [width] float64.
      squares: [width] float64, the sums of the squared differences from the mean.
    """

    rows: int
    mean: np.ndarray
    squares: np.ndarray


@dataclasses.dataclass
class Tally:
    """Of some rows of a table.

    Attributes:
      rows: how many.
      key_sum: the sum of the hashes of their keys modulo 2^64, the same for the same keys in any order.
      nulls: rows in which a column is null, or a list without elements.
      values: rows with each value of a column; null counts for none.
      moments: by modality, of the rows that have it.
      norms: rows by bin of the norm of their embedding; norm 0 is in no bin.
      widths: the numbers that a column's vectors have.
      faults: rows that break a rule, by what is wrong with them.
    """

    rows: int = 0
    key_sum: int = 0
    nulls: dict[str, int] = dataclasses.field(default_factory=dict)
    values: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    moments: dict[str, Moments] = dataclasses.field(default_factory=dict)
    norms: dict[int, int] = dataclasses.field(default_factory=dict)
    widths: dict[str, set[int]] = dataclasses.field(default_factory=dict)
    faults: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class TallyTables(beam.PTransform):
    """Pipeline -> (table, Tally), one element for each table of `directories` (a key of rules.RULES -> where it is).

    Keys that have to be distinct meet in `num_parts` parts.
    """

    directories: Mapping[str, str]
    num_parts: int

    def __post_init__(self) -> None:
        super().__init__()
        shuffle.check_num_parts(self.num_parts)

    def expand(self, root: beam.Pipeline) -> beam.PCollection[tuple[str, Tally]]:
        tally_file = beam.FlatMap(_tally_file).with_output_types(tuple[str, Tally])
        tallied = (
            root
            | "Tables" >> beam.Create(sorted(self.directories.items()))
            | "ListFiles" >> beam.FlatMap(lambda table: [(table[0], path) for path in tables.list_files(table[1])])
            | "Spread" >> beam.Reshuffle()
            | "TallyFile" >> tally_file.with_outputs("keys", main="tallies")
        )
        keys = tallied.keys | "TypeKeys" >> beam.Map(lambda block: block).with_output_types(pa.RecordBatch)
        repeated = keys | "MeetByKey" >> shuffle.GroupBlocks("key", self.num_parts) | beam.FlatMap(_repeated)
        return (tallied.tallies, repeated) | beam.Flatten() | "MergeByTable" >> beam.CombinePerKey(merge)


def _tally_file(file: tuple[str, str]) -> Iterator[object]:
    table, path = file
    with tables.open_file(path) as source:
        tally = FileTally(table, pq.ParquetFile(source, pre_buffer=False))
        for keys in tally.read():
            yield pvalue.TaggedOutput("keys", keys)
    yield table, tally.found


def _repeated(numbered: tuple[int, pa.RecordBatch]) -> Iterator[tuple[str, Tally]]:
    counted = pa.table(numbered[1]).group_by("key").aggregate([([], "count_all")])
    counted = counted.filter(pc.greater(counted.column("count_all"), 1))
    rows: collections.Counter[str] = collections.Counter()
    for key, number in zip(*(counted.column(name).to_pylist() for name in ("key", "count_all")), strict=True):
        rows[key.split(_SEPARATOR)[0]] += number
    for table, number in rows.items():
        yield table, Tally(faults={f"{rules.RULES[table].key} stands more than once": number})


class FileTally:
    """The tally of one file, made while it is read."""

    def __init__(self, table: str, file: pq.ParquetFile) -> None:
        self.rule, self.file, self._table = rules.RULES[table], file, table
        self.schema = self.rule.schema(file.schema_arrow)
        self.found = Tally(rows=file.metadata.num_rows)
        self._last_key: str | None = None
        self._last_rank = 0

    def read(self) -> Iterator[pa.RecordBatch]:
        """Reads the file; gives blocks of KEYS where keys have to be distinct."""
        wrong = rules.difference(self.file.schema_arrow, self.schema)
        if wrong:
            self.found.faults[wrong] = self.found.rows
            return
        self.found.widths = {name: {width} for name, width in self._widths().items()}
        if self.rule.nulls:
            self.found.nulls = count_nulls(self.file.metadata, self.schema)
        if columns := self._columns():
            for block in self.file.iter_batches(READ_ROWS, columns=columns, use_threads=False):
                if block.num_rows:
                    yield from self._add(block)
                progress.advance(block.num_rows)

    def _widths(self) -> dict[str, int]:
        fixed = {field.name: field.type.list_size for field in self.schema if pa.types.is_fixed_size_list(field.type)}
        return fixed | schemas.widths_of(self.schema)

    def _columns(self) -> list[str]:
        """What has to be read: keys and ranks, numbers that have to be finite, and what is counted or measured."""
        numbers = [field.name for field in self.schema if pa.types.is_floating(field.type)]
        wanted = {self.rule.key, *self.rule.counted, *numbers}
        wanted |= set() if self.rule.intermediate else set(self.found.widths)
        wanted |= {"rank"} if self.rule.ranked else set()
        wanted |= {TEXT_COUNTS} if self.rule.moments else set()
        return [name for name in self.schema.names if name in wanted]

    def _add(self, block: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        for name in block.schema.names:
            if name in self.found.widths:
                self._add_vectors(name, block.column(name))
            elif pa.types.is_floating(block.column(name).type):
                self._add_fault(f"{name} is not finite", pc.invert(pc.is_finite(block.column(name).drop_null())))
        for name in self.rule.counted:
            self.found.values[name] = _sums(self.found.values.get(name, {}), count_values(name, block.column(name)))
        if self.rule.moments:
            self._add_moments(TEXT, num_words(block.column(TEXT_COUNTS))[:, None])
        if not self.rule.key:
            return
        keys = block.column(self.rule.key)
        if self.rule.ranked:
            keys = keys.filter(self._add_ranks(keys, block.column("rank").to_numpy()))
        self.found.key_sum = (self.found.key_sum + int(blocks.stable_hash(keys).sum(dtype=np.uint64))) % (1 << 64)
        if not self.rule.same_as:
            named = pc.binary_join_element_wise(pa.scalar(self._table), keys, _SEPARATOR)
            yield pa.RecordBatch.from_arrays([named], schema=KEYS)

    def _add_vectors(self, name: str, column: pa.Array) -> None:
        (width,) = self.found.widths[name]
        if pa.types.is_fixed_size_list(column.type):
            vectors = blocks.vectors_to_numpy(column)
        else:
            column = column.drop_null()
            right = pc.equal(pc.list_value_length(column), width)
            self._add_fault(f"{name} is not a vector of {width} numbers", pc.invert(right))
            vectors = column.filter(right).flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        finite = np.isfinite(vectors)
        if not finite.all():
            good = finite.all(axis=1)
            self._add_fault(f"{name} is not finite", pa.array(~good))
            vectors = vectors[good]
        if self.rule.moments:
            self._add_moments(name, vectors)
        if self.rule.norms:
            self.found.norms = _sums(self.found.norms, count_norms(vectors))

    def _add_moments(self, modality: str, vectors: np.ndarray) -> None:
        found = [self.found.moments[modality]] if modality in self.found.moments else []
        self.found.moments[modality] = merge_moments([*found, moments_of(vectors)])

    def _add_ranks(self, keys: pa.Array, rank: np.ndarray) -> pa.Array:
        """Checks the ranks of rows in their order; gives where a new key begins: [n] bool."""
        before = pa.concat_arrays([pa.array([self._last_key], keys.type), keys[:-1]])
        starts = pc.fill_null(pc.not_equal(keys, before), True)
        expected = np.concatenate([[self._last_rank], rank[:-1]]) + 1
        wrong = rank != np.where(starts.to_numpy(zero_copy_only=False), 1, expected)
        self._add_fault(f"rank does not count from 1 for each {self.rule.key}", pa.array(wrong))
        self._last_key, self._last_rank = keys[-1].as_py(), int(rank[-1])
        return starts

    def _add_fault(self, fault: str, bad: pa.Array) -> None:
        if number := pc.sum(bad).as_py():
            self.found.faults[fault] = self.found.faults.get(fault, 0) + number


def count_nulls(metadata: pq.FileMetaData, schema: pa.Schema) -> dict[str, int]:
    """Rows in which a column that may be null is null, or a list without elements, by the footer of a file.

    Of a list a footer tells how many of its places hold nothing; the elements of our lists (or one of their fields) are
    never null.
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
        found = _sums(found, least)
    return found


def count_values(column: str, values: pa.Array) -> dict[str, int]:
    """How often each value of a column stands there; languages by their primary subtag. Names like those of fields."""
    if column == "lang":
        values = languages.primary_language(values)
    counted = values.drop_null().value_counts()
    found = dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
    return verdicts.field_counts(found)


def num_words(counts: pa.Array) -> np.ndarray:
    """The number of terms of each text, by how often each of its terms stands in it: [texts] float64; null is none."""
    counts = counts.drop_null()
    ends = np.concatenate([[0], np.cumsum(pc.list_value_length(counts).to_numpy())])
    sums = np.concatenate([[0], np.cumsum(counts.flatten().to_numpy())])
    return np.diff(sums[ends]).astype(np.float64)


def count_norms(vectors: np.ndarray) -> dict[int, int]:
    """How many of [n, width] vectors have a norm in each bin, from 2^(bin / BINS_PER_DOUBLING) on; 0 is in none."""
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    bins = np.floor(np.log2(squares[squares > 0]) / 2 * BINS_PER_DOUBLING).astype(int)
    return dict(zip(*(found.tolist() for found in np.unique(bins, return_counts=True)), strict=True))


def moments_of(vectors: np.ndarray) -> Moments:
    """The moments of [n, width] vectors."""
    if not len(vectors):
        return Moments(0, np.zeros(vectors.shape[1]), np.zeros(vectors.shape[1]))
    mean = vectors.mean(axis=0, dtype=np.float64)
    apart = vectors - mean
    return Moments(len(vectors), mean, np.einsum("ij,ij->j", apart, apart))


def merge_moments(found: Iterable[Moments]) -> Moments:
    """The moments of all rows together (Chan, Golub and LeVeque 1983)."""
    total, *others = found
    for one in others:
        rows = total.rows + one.rows
        if rows:
            apart, share = one.mean - total.mean, one.rows / rows
            squares = total.squares + one.squares + apart**2 * share * total.rows
            total = Moments(rows, total.mean + apart * share, squares)
    return total


def merge(tallies: Iterable[Tally]) -> Tally:
    """The tally of all rows together."""
    total = Tally()
    for one in tallies:
        total.rows += one.rows
        total.key_sum = (total.key_sum + one.key_sum) % (1 << 64)
        total.nulls = _sums(total.nulls, one.nulls)
        total.norms = _sums(total.norms, one.norms)
        total.faults = _sums(total.faults, one.faults)
        for column, counted in one.values.items():
            total.values[column] = verdicts.field_counts(_sums(total.values.get(column, {}), counted))
        for column, widths in one.widths.items():
            total.widths[column] = total.widths.get(column, set()) | widths
        for modality, moments in one.moments.items():
            if modality in total.moments and len(total.moments[modality].mean) != len(moments.mean):
                continue  # a fault: files with vectors of several widths
            found = [total.moments[modality]] if modality in total.moments else []
            total.moments[modality] = merge_moments([*found, moments])
    return total


def _sums(one: Mapping[K, int], other: Mapping[K, int]) -> dict[K, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in [*one, *(key for key in other if key not in one)]}

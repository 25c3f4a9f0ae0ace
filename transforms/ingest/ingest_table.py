"""Files of raw posts, interactions or users -> one canonical form, with an account of every input row."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam import pvalue
from apache_beam.typehints import decorators

from transforms.ingest import canonical, input_files, split_reader
from transforms.ingest.canonical import Table
from transforms.ingest.deduplication import dedupe
from transforms.ingest.erasure import Erasure
from transforms.ingest.input_files import FileSplit, InputFile
from transforms.ingest.line_reader import LineLimits
from transforms.tables import shuffle
from transforms.tables.counts import check_sum
from transforms.tables.threads import FlatMapInThreads

BLOCK_BYTES = 16 << 20
REJECTS, COUNTS = "rejects", "counts"
# Elements of a function with side outputs: Beam would take the hint `X | TaggedOutput` for the type of the main one.
Emitted = Any


class Ingested(NamedTuple):
    """parts: (part, block of the table's schema, sorted by time and id); rejects: blocks; counts: (name, number)."""

    parts: beam.PCollection[tuple[int, pa.RecordBatch]]
    rejects: beam.PCollection[pa.RecordBatch]
    counts: beam.PCollection[tuple[str, int]]


@dataclasses.dataclass
class IngestTable(beam.PTransform):
    """Reads the files of one table ("posts", "interactions" or "users").

    Every row is written, rejected with a code, or a duplicate; see `reconcile`. The first shuffle carries splits (a few
    numbers each), the second carries blocks.

    Attributes:
      table: its name.
      files: as `input_files.find_files` lists them.
      num_parts: parts that are written; 0: by the size of the files.
      block_bytes: size of the splits of plain JSONL.
      limits: on the rows of text files.
      until: rows with a time from then on (microseconds since 1970, UTC) are rejected: a run of a past date must not
        know them. Rows without a time are accepted.
      erasure: users and posts whose rows are rejected, and whose ids are removed from all output.

    Example:
      >>> from transforms.ingest.input_files import find_files
      >>> with open("users.csv", "w") as file:
      ...     _ = file.write("user_id,bio\\nann,jazz\\n")
      >>> with beam.Pipeline("FnApiRunner") as root:
      ...     users = root | IngestTable("users", find_files("users.csv"), num_parts=1)
      ...     _ = users.parts | beam.MapTuple(lambda part, block: print(block.column("user_id").to_pylist()))
      ['ann']
    """

    table: str
    files: Sequence[InputFile]
    num_parts: int = 0
    block_bytes: int = BLOCK_BYTES
    limits: LineLimits = dataclasses.field(default_factory=LineLimits)
    until: int | None = None
    erasure: Erasure | None = None

    def __post_init__(self) -> None:
        if self.table not in canonical.TABLES:
            raise ValueError(f"table must be one of {', '.join(canonical.TABLES)}, got {self.table!r}")
        if self.block_bytes < 1:
            raise ValueError(f"block_bytes must be at least 1, got {self.block_bytes}")
        self.num_parts = self.num_parts or input_files.choose_num_parts(self.files)
        shuffle.check_num_parts(self.num_parts)

    @decorators.no_annotations
    def expand(self, root: beam.Pipeline) -> Ingested:
        table = dataclasses.replace(canonical.TABLES[self.table], until=self.until, erasure=self.erasure)
        found = (
            root
            | "Files" >> beam.Create(list(self.files))
            | "SpreadFiles" >> beam.Reshuffle()
            | "PlanSplits" >> beam.FlatMap(input_files.plan_splits, block_bytes=self.block_bytes)
            | "SpreadSplits" >> beam.Reshuffle()
            | "ReadSplit"
            >> beam.FlatMap(_read, table=table, block_bytes=self.block_bytes, limits=self.limits)
            .with_output_types(pa.RecordBatch)
            .with_outputs(REJECTS, COUNTS, main="rows")
        )
        written = (
            found.rows
            | "ShuffleById" >> shuffle.GroupBlocks(table.key, self.num_parts)
            | "Dedupe"
            >> beam.ParDo(FlatMapInThreads(_dedupe, table=table))
            .with_output_types(tuple[int, pa.RecordBatch])
            .with_outputs(COUNTS, main="parts")
        )
        counts = (found[COUNTS], written[COUNTS]) | "AllCounts" >> beam.Flatten()
        return Ingested(written.parts, found[REJECTS], counts)


def _read(split: FileSplit, table: Table, block_bytes: int, limits: LineLimits) -> Iterator[Emitted]:
    """The valid rows of a split in blocks of about BLOCK_BYTES, however small the chunks that were parsed."""
    chunks: list[split_reader.ReadRows] = []
    size = 0
    for rows in split_reader.read_split(table, split, block_bytes, limits):
        chunks.append(rows)
        size += rows.block.nbytes
        if size >= BLOCK_BYTES:
            yield from _outputs(split_reader.concat(chunks))
            chunks, size = [], 0
    if chunks:
        yield from _outputs(split_reader.concat(chunks))


def _outputs(rows: split_reader.ReadRows) -> Iterator[Emitted]:
    if rows.block.num_rows:
        yield rows.block
    if rows.rejects.num_rows:
        yield pvalue.TaggedOutput(REJECTS, rows.rejects)
    yield from _counts(rows.counts)


def _counts(counts: Mapping[str, int]) -> Iterable[pvalue.TaggedOutput]:
    return [pvalue.TaggedOutput(COUNTS, count) for count in counts.items() if count[1]]


def _dedupe(numbered: tuple[int, pa.RecordBatch], table: Table) -> Iterator[Emitted]:
    part, rows = numbered
    block = dedupe(table, rows)
    yield part, block
    counts = Counter(
        {f"{table.name}.written": block.num_rows, f"{table.name}.duplicates": rows.num_rows - block.num_rows}
    )
    if "vectors" in table.roles:
        counts.update(vector_widths(table.name, block.column("vectors")))
    yield from _counts(counts)


def vector_widths(table: str, vectors: pa.MapArray) -> Counter[str]:
    """Number of supplied vectors by name and width: TABLE.vectors.NAME.WIDTH -> number."""
    names, items = vectors.keys, vectors.items
    if not len(names):
        return Counter()
    pairs = (
        pa.table({"name": names, "width": pc.list_value_length(items)})
        .group_by(["name", "width"])
        .aggregate([([], "count_all")])
    )
    return Counter({f"{table}.vectors.{row['name']}.{row['width']}": row["count_all"] for row in pairs.to_pylist()})


def reconcile(counts: Mapping[str, int]) -> None:
    """Checks that every row of the input is accounted for.

    Raises:
      ValueError: rows read are not rows written + rejected + duplicates.
    """
    for table in canonical.TABLES:
        check_sum(counts, table, "read", ("written", "rejected", "duplicates"))

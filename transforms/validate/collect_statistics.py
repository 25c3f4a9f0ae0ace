"""Statistics of all tables of a run, and the rows that violate their specifications."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam import pvalue

from transforms.tables import parquet, shuffle
from transforms.validate.file_statistics import CREATED_AT, SEPARATOR, FileStatistics
from transforms.validate.table_specs import TABLE_SPECS
from transforms.validate.table_statistics import TableStatistics, merge

DAY_US = 86_400_000_000


@dataclasses.dataclass
class CollectStatistics(beam.PTransform):
    """Pipeline -> (table, TableStatistics), one element for each table.

    Args:
      directories: by table, a key of TABLE_SPECS.
      num_parts: in which keys that have to be distinct meet.
      since: begin of the last day, microseconds since 1970.

    Example:

        pipeline | CollectStatistics({"posts": "runs/2026-01-31/posts"}, num_parts=16, since=0)
    """

    directories: Mapping[str, str]
    num_parts: int
    since: int

    def __post_init__(self) -> None:
        shuffle.check_num_parts(self.num_parts)

    def expand(self, root: beam.Pipeline) -> beam.PCollection[tuple[str, TableStatistics]]:
        read_file = beam.FlatMap(_read_file, self.since).with_output_types(tuple[str, TableStatistics])
        by_file = (
            root
            | "Tables" >> beam.Create(sorted(self.directories.items()))
            | "ListFiles" >> beam.FlatMap(lambda table: [(table[0], path) for path in parquet.list_files(table[1])])
            | "Spread" >> beam.Reshuffle()
            | "ReadFile" >> read_file.with_outputs("keys", main="statistics")
        )
        keys = by_file.keys | "TypeKeys" >> beam.Map(lambda block: block).with_output_types(pa.RecordBatch)
        repeated = (
            keys | "MeetByKey" >> shuffle.GroupBlocks("key", self.num_parts) | "FindRepeated" >> beam.FlatMap(_repeated)
        )
        return (by_file.statistics, repeated) | beam.Flatten() | "MergeByTable" >> beam.CombinePerKey(merge)


def _read_file(file: tuple[str, str], since: int) -> Iterator[object]:
    table, path = file
    with parquet.open_file(path) as source:
        file_statistics = FileStatistics(table, pq.ParquetFile(source, pre_buffer=False), since)
        for keys in file_statistics.read():
            yield pvalue.TaggedOutput("keys", keys)
    yield table, file_statistics.statistics


def _repeated(numbered: tuple[int, pa.RecordBatch]) -> Iterator[tuple[str, TableStatistics]]:
    counted = pa.table(numbered[1]).group_by("key").aggregate([([], "count_all")])
    counted = counted.filter(pc.greater(counted.column("count_all"), 1))
    rows: collections.Counter[str] = collections.Counter()
    for key, number in zip(*(counted.column(name).to_pylist() for name in ("key", "count_all")), strict=True):
        rows[key.split(SEPARATOR)[0]] += number
    for table, number in rows.items():
        fault = f"{TABLE_SPECS[table].key} stands more than once"
        yield table, TableStatistics(faults={fault: number})


def last_day(*directories: str) -> int:
    """Begin of the day that ends with the newest `created_at` of some tables, in microseconds; from their footers."""
    newest = [parquet.newest(directory, CREATED_AT) for directory in directories]
    return max((round(time.timestamp() * 1e6) for time in newest if time is not None), default=0) - DAY_US

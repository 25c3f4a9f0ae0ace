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
from transforms.validate import table_rules
from transforms.validate.file_statistics import CREATED_AT, SEPARATOR, FileTally
from transforms.validate.table_statistics import Tally, merge

DAY_US = 86_400_000_000


@dataclasses.dataclass
class TallyTables(beam.PTransform):
    """Pipeline -> (table, Tally), one element for each table of `directories` (a key of rules.RULES -> where it is).

    Keys that have to be distinct meet in `num_parts` parts. The last day begins with `since` (microseconds since 1970).
    """

    directories: Mapping[str, str]
    num_parts: int
    since: int

    def __post_init__(self) -> None:
        super().__init__()
        shuffle.check_num_parts(self.num_parts)

    def expand(self, root: beam.Pipeline) -> beam.PCollection[tuple[str, Tally]]:
        tally_file = beam.FlatMap(_tally_file, self.since).with_output_types(tuple[str, Tally])
        tallied = (
            root
            | "Tables" >> beam.Create(sorted(self.directories.items()))
            | "ListFiles" >> beam.FlatMap(lambda table: [(table[0], path) for path in parquet.list_files(table[1])])
            | "Spread" >> beam.Reshuffle()
            | "TallyFile" >> tally_file.with_outputs("keys", main="tallies")
        )
        keys = tallied.keys | "TypeKeys" >> beam.Map(lambda block: block).with_output_types(pa.RecordBatch)
        repeated = (
            keys | "MeetByKey" >> shuffle.GroupBlocks("key", self.num_parts) | "FindRepeated" >> beam.FlatMap(_repeated)
        )
        return (tallied.tallies, repeated) | beam.Flatten() | "MergeByTable" >> beam.CombinePerKey(merge)


def _tally_file(file: tuple[str, str], since: int) -> Iterator[object]:
    table, path = file
    with parquet.open_file(path) as source:
        tally = FileTally(table, pq.ParquetFile(source, pre_buffer=False), since)
        for keys in tally.read():
            yield pvalue.TaggedOutput("keys", keys)
    yield table, tally.found


def _repeated(numbered: tuple[int, pa.RecordBatch]) -> Iterator[tuple[str, Tally]]:
    counted = pa.table(numbered[1]).group_by("key").aggregate([([], "count_all")])
    counted = counted.filter(pc.greater(counted.column("count_all"), 1))
    rows: collections.Counter[str] = collections.Counter()
    for key, number in zip(*(counted.column(name).to_pylist() for name in ("key", "count_all")), strict=True):
        rows[key.split(SEPARATOR)[0]] += number
    for table, number in rows.items():
        yield table, Tally(faults={f"{table_rules.RULES[table].key} stands more than once": number})


def last_day(*directories: str) -> int:
    """When the day begins that ends with the newest `created_at` of some tables, in microseconds; by their footers."""
    newest = [parquet.newest(directory, CREATED_AT) for directory in directories]
    return max((round(time.timestamp() * 1e6) for time in newest if time is not None), default=0) - DAY_US

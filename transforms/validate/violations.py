"""Violations of the specifications of a run's tables."""

from collections.abc import Iterator, Mapping

from transforms.validate.table_specs import INTERACTIONS, POSTS, TABLE_SPECS, USERS
from transforms.validate.table_statistics import TableStatistics

# Tables whose columns of vectors must have the same width.
SAME_WIDTH = (("item_embeddings", "user_embeddings", "candidates"), "embedding")


def violations(
    tables: Mapping[str, TableStatistics], rows: Mapping[str, int], counts: Mapping[str, int]
) -> Iterator[str]:
    """Violations as lines "TABLE: violation"; those of single tables come first.

    Args:
      tables: statistics of every table.
      rows: of every table, as its stage has reported them.
      counts: of ingest.
    """
    there = [(name, tables[name]) for name in TABLE_SPECS if name in tables]
    for name, table in there:
        for fault, number in sorted(table.faults.items()):
            yield f"{name}: {fault} in {number:,} rows"
        if table.rows != rows.get(name, 0):
            yield f"{name}: {table.rows:,} rows, but its stage wrote {rows.get(name, 0):,}"
    yield from _miscounted(tables, counts)
    for name, table in there:
        other = TABLE_SPECS[name].same_as
        if other and (table.rows, table.key_sum) != (tables[other].rows, tables[other].key_sum):
            yield f"{name}: its {TABLE_SPECS[name].key}s are not those of {other}"
        for column, widths in sorted(table.widths.items()):
            if len(widths) > 1:
                yield f"{name}: column {column} has vectors of {_listed(widths)} numbers"
    together, column = SAME_WIDTH
    found = {width for name in together if name in tables for width in tables[name].widths.get(column, ())}
    if len(found) > 1:
        yield f"{', '.join(together)}: column {column} has vectors of {_listed(found)} numbers"


def _miscounted(tables: Mapping[str, TableStatistics], counts: Mapping[str, int]) -> Iterator[str]:
    inputs = (POSTS, INTERACTIONS, USERS)
    expected = {name: counts.get(f"{name}.written", 0) for name in inputs}
    expected["rejects/ingest"] = sum(counts.get(f"{name}.rejected", 0) for name in inputs)
    for name, number in expected.items():
        if name in tables and tables[name].rows != number:
            yield f"{name}: {tables[name].rows:,} rows, but ingest counted {number:,}"


def _listed(widths: set[int]) -> str:
    return " and ".join(map(str, sorted(widths)))

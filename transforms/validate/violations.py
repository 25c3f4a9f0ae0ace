"""Violations of the specifications of a run's tables."""

from collections.abc import Iterator, Mapping

from transforms.validate.table_rules import INTERACTIONS, POSTS, RULES, USERS
from transforms.validate.table_statistics import Tally

# Columns of vectors that have to be equally wide.
SAME_WIDTH = (("item_embeddings", "user_embeddings", "candidates"), "embedding")


def violations(tallies: Mapping[str, Tally], rows: Mapping[str, int], counts: Mapping[str, int]) -> Iterator[str]:
    """Violations, a line each: "TABLE: what"; tables that are wrong in themselves come first.

    Args:
      tallies: statistics of every table.
      rows: of every table, as its stage has reported them.
      counts: of ingest.
    """
    there = [(name, tallies[name]) for name in RULES if name in tallies]
    for name, tally in there:
        for fault, number in sorted(tally.faults.items()):
            yield f"{name}: {fault} in {number:,} rows"
        if tally.rows != rows.get(name, 0):
            yield f"{name}: {tally.rows:,} rows, but its stage wrote {rows.get(name, 0):,}"
    yield from _miscounted(tallies, counts)
    for name, tally in there:
        other = RULES[name].same_as
        if other and (tally.rows, tally.key_sum) != (tallies[other].rows, tallies[other].key_sum):
            yield f"{name}: its {RULES[name].key}s are not those of {other}"
        for column, widths in sorted(tally.widths.items()):
            if len(widths) > 1:
                yield f"{name}: column {column} has vectors of {_listed(widths)} numbers"
    together, column = SAME_WIDTH
    found = {width for name in together if name in tallies for width in tallies[name].widths.get(column, ())}
    if len(found) > 1:
        yield f"{', '.join(together)}: column {column} has vectors of {_listed(found)} numbers"


def _miscounted(tallies: Mapping[str, Tally], counts: Mapping[str, int]) -> Iterator[str]:
    inputs = (POSTS, INTERACTIONS, USERS)
    expected = {name: counts.get(f"{name}.written", 0) for name in inputs}
    expected["rejects/ingest"] = sum(counts.get(f"{name}.rejected", 0) for name in inputs)
    for name, number in expected.items():
        if name in tallies and tallies[name].rows != number:
            yield f"{name}: {tallies[name].rows:,} rows, but ingest counted {number:,}"


def _listed(widths: set[int]) -> str:
    return " and ".join(map(str, sorted(widths)))

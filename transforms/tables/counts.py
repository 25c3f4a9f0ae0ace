"""Exact counters that travel as data.

Beam's own metrics count attempts: a bundle that is retried counts twice. Whatever has to reconcile is therefore an
element (name, number) of a side output, summed by `SumCounts`, and written beside the tables.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import apache_beam as beam

from transforms.tables.files import exists, join, read_json, write_json

FILE_NAME = "_counts.json"


class SumCounts(beam.PTransform):
    """(name, number) elements -> one element, a dict name -> sum (empty if nothing was counted).

    Example:
      >>> with beam.Pipeline("FnApiRunner") as root:
      ...     _ = root | beam.Create([("posts.read", 2), ("posts.read", 3)]) | SumCounts() | beam.Map(print)
      {'posts.read': 5}
    """

    def expand(self, counts: beam.PCollection[tuple[str, int]]) -> beam.PCollection[dict[str, int]]:
        return counts | "SumByName" >> beam.CombinePerKey(sum) | "Gather" >> beam.combiners.ToDict()


@dataclasses.dataclass
class WriteCounts(beam.PTransform):
    """Sums (name, number) elements and writes them to DIRECTORY/_counts.json.

    Example:
      >>> with beam.Pipeline("FnApiRunner") as root:
      ...     _ = root | beam.Create([("posts.read", 2), ("posts.read", 3)]) | WriteCounts("posts")
      >>> read_counts("posts")
      {'posts.read': 5}
    """

    directory: str

    def expand(self, counts: beam.PCollection[tuple[str, int]]) -> beam.PCollection[None]:
        return counts | SumCounts() | "WriteJson" >> beam.Map(write_counts, self.directory)


def write_counts(counts: dict[str, int], directory: str) -> None:
    """Writes the counts, sorted by name, to DIRECTORY/_counts.json."""
    write_json(join(directory, FILE_NAME), counts)


def check_sum(counts: Mapping[str, int], name: str, whole: str, parts: Sequence[str], things: str = "rows") -> None:
    """Checks that NAME.WHOLE is the sum of NAME.PART over all parts; a missing count is 0.

    Raises:
      ValueError: it is not; the message has the numbers.
    """
    total = counts.get(f"{name}.{whole}", 0)
    numbers = {part: counts.get(f"{name}.{part}", 0) for part in parts}
    if total != sum(numbers.values()):
        shown = " + ".join(f"{number} {part}" for part, number in numbers.items())
        raise ValueError(
            f"{name} do not reconcile: {total} {things} {whole}, but {shown} = {sum(numbers.values())}; "
            "please report this, the tables are not to be trusted"
        )


def read_counts(directory: str) -> dict[str, int]:
    """The counts in DIRECTORY/_counts.json; empty if there is no such file."""
    path = join(directory, FILE_NAME)
    if not exists(path):
        return {}
    counts: dict[str, int] = read_json(path)
    return counts


MAX_FIELD_NAMES = 1000
OTHER_FIELDS = "(other)"


def field_counts(ignored: Mapping[str, int]) -> dict[str, int]:
    """Counts by field name; names that no field should have (ids as keys, say) are counted as OTHER_FIELDS."""
    counts: dict[str, int] = {}
    for name, rows in ignored.items():
        plain = re.sub("[-.:@$]", "_", name).isidentifier()
        shown = name if plain and len(name) <= 64 and len(counts) < MAX_FIELD_NAMES else OTHER_FIELDS
        counts[shown] = counts.get(shown, 0) + rows
    return counts

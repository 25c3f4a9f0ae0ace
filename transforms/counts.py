"""Exact counters that travel as data.

Beam's own metrics count attempts: a bundle that is retried counts twice. Whatever has to reconcile is therefore an
element (name, number) of a side output, summed by `SumCounts`, and written with the tables it speaks of.
"""

import json

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

FILE_NAME = "_counts.json"


class SumCounts(beam.PTransform):
    """(name, number) elements -> one dict name -> sum, a single element (empty where nothing was counted)."""

    def expand(self, counts: beam.PCollection[tuple[str, int]]) -> beam.PCollection[dict[str, int]]:
        return counts | "SumByName" >> beam.CombinePerKey(sum) | "Gather" >> beam.combiners.ToDict()


class WriteCounts(beam.PTransform):
    """Sums (name, number) elements and writes them to DIRECTORY/_counts.json."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self.directory = directory

    def expand(self, counts: beam.PCollection[tuple[str, int]]) -> beam.PCollection[None]:
        return counts | SumCounts() | "WriteJson" >> beam.Map(write_counts, self.directory)


def write_counts(counts: dict[str, int], directory: str) -> None:
    """Writes the counts, sorted by name, to DIRECTORY/_counts.json."""
    if not FileSystems.exists(directory):
        FileSystems.mkdirs(directory)
    path = FileSystems.join(directory, FILE_NAME)
    if FileSystems.exists(path):
        FileSystems.delete([path])
    with FileSystems.create(path, mime_type="application/json") as file:
        file.write(json.dumps(counts, indent=1, sort_keys=True).encode())


def read_counts(directory: str) -> dict[str, int]:
    """The counts that a stage left in a directory; empty where it left none."""
    path = FileSystems.join(directory, FILE_NAME)
    if not FileSystems.exists(path):
        return {}
    with FileSystems.open(path) as file:
        counts: dict[str, int] = json.load(file)
    return counts

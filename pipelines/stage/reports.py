"""Reports of complete stages, written beside their tables.

A table without a report is not complete.
"""

import dataclasses
from typing import Any

from pipelines.stage import step_counters
from transforms.tables import files


@dataclasses.dataclass(frozen=True)
class Report:
    """Report that a complete stage writes beside its tables.

    Attributes:
      stage: its name.
      seconds: what it took.
      peak_memory_bytes: of the driver's process: with the local runner in one process that is all of it.
      rows: of each table.
      counts: exact ones.
      steps: what each step of its pipelines took in, gave and cost (`transforms.tables.step_metrics`), in order.
      id: of this execution, never the same twice: what later stages were made from.
      origin: a `fingerprint.Origin` as JSON; None in reports without one.
      files: the bytes of every file of each table, by its path below the table.
    """

    stage: str
    seconds: float
    peak_memory_bytes: int
    rows: dict[str, int]
    counts: dict[str, int]
    steps: step_counters.Steps = dataclasses.field(default_factory=dict)
    id: str = ""
    origin: dict[str, Any] | None = None
    files: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    def measures(self) -> dict[str, Any]:
        """Fields of the report that go into the metrics."""
        names = ("stage", "seconds", "peak_memory_bytes", "rows", "counts", "steps")
        return {name: getattr(self, name) for name in names}


def report_path(directory: str, stage: str) -> str:
    """Where a stage's report is; it is there if and only if the stage is complete."""
    return files.join(directory, "_stages", f"{stage}.json")


def read_report(directory: str, stage: str) -> Report | None:
    """The report of a stage; None where it is not complete."""
    path = report_path(directory, stage)
    return Report(**files.read_json(path)) if files.exists(path) else None


def read_reports(directory: str) -> list[Report]:
    """The reports of all stages that are complete, by name."""
    names = sorted(files.list_sizes(files.join(directory, "_stages")))
    return [
        Report(**files.read_json(files.join(directory, "_stages", name))) for name in names if name.endswith(".json")
    ]

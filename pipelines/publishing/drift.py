"""Jumps of statistics since the last published run; with --fail_on_drift they stop a run."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.command_line.options import Options, RunError
from pipelines.command_line.plain_text import one_line
from pipelines.stage.reports import Report
from pipelines.store import runs
from pipelines.store.file_names import STATISTICS, STATISTICS_FILE
from transforms.tables import files
from transforms.tables.files import join

# Jumps that are shown, and characters of each: names and values come from the input.
NUM_SHOWN, JUMP_CHARACTERS = 5, 160
FIRST_RUN = "there is no published run that is older"

Drift = Mapping[str, Any]


def find(options: Options, directory: str) -> dict[str, Any] | None:
    """Compares a run's statistics with those of the newest published run before it; None if it has no statistics.

    Args:
      options: the flags.
      directory: where the run is made.

    Returns:
      before: that run; "" if there is none or it has no statistics.
      why_not: reason why nothing is compared; "" if something is.
      different: tables that were made with other settings and are not compared -> the difference.
      compared: statistic -> drift.Comparison.
      jumps: the statistics that moved by more than their limit, largest move first.
    """
    from transforms.validate import drift

    path = join(directory, STATISTICS, STATISTICS_FILE)
    if not files.exists(path):
        return None
    name = runs.last_before(options.output, options.run_name)
    if not name:
        return _not_compared(FIRST_RUN)
    metrics = join(runs.directory(options.output, name), "metrics.json")
    before = files.read_json(metrics).get(STATISTICS) if files.exists(metrics) else None
    if before is None:
        return _not_compared(f"{name} has no statistics")
    now = files.read_json(path)
    compared = sorted(drift.compare(before, now), key=lambda one: -one.size)
    return {
        "before": name,
        "why_not": "",
        "different": drift.not_comparable(before, now),
        "compared": {one.statistic: dataclasses.asdict(one) for one in compared},
        "jumps": [one.statistic for one in compared if one.jumped],
    }


def _not_compared(why_not: str) -> dict[str, Any]:
    return {"before": "", "why_not": why_not, "different": {}, "compared": {}, "jumps": []}


def check(report: Report, options: Options, directory: str) -> None:
    """Checks the statistics for jumps after the validate stage, if --fail_on_drift is given.

    Raises:
      RunError: some have jumped; the message has those that moved most.
    """
    found = find(options, directory) if options.fail_on_drift and report.stage == "validate" else None
    if found is not None and found["jumps"]:
        jumps = "; ".join(_jumps(found))
        raise RunError(f"{_headline(found)} (--fail_on_drift): {jumps}; without the flag the run is published")


def warnings(found: Drift) -> Iterator[str]:
    """Sentences about statistics that have jumped or are not compared with the last published run's."""
    if found["why_not"] not in ("", FIRST_RUN):
        yield f"statistics are not compared: {found['why_not']}"
    if found["jumps"]:
        yield f"{_headline(found)}: {'; '.join(_jumps(found))}"
    for name, how in found["different"].items():
        yield f"{name} is not compared with {found['before']} ({how})"


def prometheus(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Family -> label -> value: the scalar statistics, and the moves of those that are compared.

    A move is in units of its limit: above 1 it is a jump.
    """
    from transforms.validate import run_statistics

    families: dict[str, dict[str, float]] = {}
    if STATISTICS in metrics:
        families["fusefeed_statistic"] = dict(run_statistics.scalars(metrics[STATISTICS]))
    if "drift" in metrics:
        families["fusefeed_drift"] = {name: one["size"] for name, one in metrics["drift"]["compared"].items()}
    return {
        family: {f"statistic={json.dumps(name)}": value for name, value in named.items()}
        for family, named in families.items()
    }


def _headline(found: Drift) -> str:
    return f"{len(found['jumps'])} of {len(found['compared'])} statistics have jumped since {found['before']}"


def _jumps(found: Drift) -> Iterator[str]:
    for name in found["jumps"][:NUM_SHOWN]:
        one = found["compared"][name]
        before, now, low, high = (_shown(one[key]) for key in ("before", "now", "low", "high"))
        most = f", mostly {one['most']}" if one["most"] else ""
        yield one_line(f"{name}: before {before}, now {now} (limits {low} to {high}{most})", JUMP_CHARACTERS)
    if len(found["jumps"]) > NUM_SHOWN:
        yield f"{len(found['jumps']) - NUM_SHOWN} more (drift in metrics.json)"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

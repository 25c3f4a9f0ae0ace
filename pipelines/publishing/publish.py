"""Writing of the files that follow the tables: metrics, the manifest and, last, LATEST."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.command_line.options import Options, RunError
from pipelines.publishing import drift
from pipelines.publishing.gate import Decision, decide
from pipelines.publishing.reject_limit import INPUTS, MEDIA_KINDS
from pipelines.stage import fingerprint
from pipelines.stage.reports import Report
from pipelines.store import replace_run, runs
from pipelines.store.file_names import EVALUATION, EVALUATION_FILE, STATISTICS, STATISTICS_FILE
from transforms.tables import files

# Files of stages that metrics.json includes: name there, stage, path.
MEASURES = (
    ("model", "train", "model/model.json"),
    ("train", "train", "model/start.json"),
    ("continuity", "embed", "item_embeddings/_continuity.json"),
    (STATISTICS, "validate", f"{STATISTICS}/{STATISTICS_FILE}"),
    (EVALUATION, "evaluate", f"{EVALUATION}/{EVALUATION_FILE}"),
)


def publish(
    options: Options, reports: Sequence[Report], directory: str, last_published: Mapping[str, Any] | None
) -> tuple[Decision, str]:
    """Writes metrics.json, metrics.prom, then manifest.json, and then, if the gate lets it pass, names it in LATEST.

    Args:
      options: the flags.
      reports: of all stages of the run.
      directory: where the run was made: its own, or the one beside it where it was published before.
      last_published: of `last_evaluation`, for the gate.

    Returns: the decision of the gate, and where the run is now.

    Raises:
      RunError: a table is missing or damaged; nothing is published.
      ValueError: the counts of an input do not reconcile; nothing is published.
    """
    check_complete(reports, directory)
    reconcile(reports)
    name = options.run_name
    values = metrics(options, reports, directory)
    decision = decide(values.get(EVALUATION), last_published, options.gate_tolerance, no_gate=options.no_gate)
    values["gate"] = dataclasses.asdict(decision)
    if (found := drift.find(options, directory)) is not None:
        values["drift"] = found
    files.write_json(files.join(directory, "metrics.json"), values)
    files.write_text(files.join(directory, "metrics.prom"), "\n".join(prometheus(values)) + "\n")
    files.write_json(files.join(directory, runs.MANIFEST), manifest(options, reports, decision.passed))
    if not decision.passed:
        return decision, directory
    final = runs.directory(options.output, name)
    if directory != final:
        replace_run.put_in_place(directory, final)
    notes = [runs.name_latest(options.output, name)]
    notes += [
        f"run {each} is removed (--keep_runs)" for each in runs.remove_old(options.output, options.keep_runs, name)
    ]
    reason = "; ".join(filter(None, [decision.reason, *notes]))
    return dataclasses.replace(decision, reason=reason), final


def check_complete(reports: Sequence[Report], directory: str) -> None:
    """Checks that every table of a run is there, as its stage wrote it.

    Raises:
      RunError: one is missing or damaged.
    """
    for report in reports:
        if what := fingerprint.damage(report, directory):
            raise RunError(f"not published: {what}; run the same command again: it repeats {report.stage}")


def last_evaluation(options: Options) -> Any:
    """The evaluation of the newest published run before this one; None if there is none."""
    name = runs.last_before(options.output, options.run_name)
    path = files.join(runs.directory(options.output, name), "metrics.json")
    return files.read_json(path).get(EVALUATION) if name and files.exists(path) else None


def metrics(options: Options, reports: Sequence[Report], directory: str) -> dict[str, Any]:
    """Every counter and measure of the run."""
    measures: dict[str, Any] = {
        "run": options.run_name,
        "stages": {report.stage: report.measures() for report in reports},
    }
    for name, writer, path in MEASURES:
        full = files.join(directory, path)
        if writer in measures["stages"] and files.exists(full):
            measures[name] = files.read_json(full)
    return measures


def prometheus(values: dict[str, Any]) -> Iterator[str]:
    """The counters in Prometheus' text format (version 0.0.4)."""
    run = values["run"]
    families = {
        "fusefeed_stage_seconds": lambda r: {"": r["seconds"]},
        "fusefeed_stage_peak_memory_bytes": lambda r: {"": r["peak_memory_bytes"]},
        "fusefeed_table_rows": lambda r: {f'table="{table}"': rows for table, rows in r["rows"].items()},
        "fusefeed_count": lambda r: {f"name={json.dumps(name)}": number for name, number in r["counts"].items()},
        "fusefeed_step": lambda r: {
            f'step={json.dumps(step)},counter="{name}"': number
            for step, counters in r["steps"].items()
            for name, number in counters.items()
        },
    }
    for family, of_report in families.items():
        yield f"# TYPE {family} gauge"
        for name, report in values["stages"].items():
            for label, value in of_report(report).items():
                labels = ",".join(part for part in (f'run="{run}"', f'stage="{name}"', label) if part)
                yield f"{family}{{{labels}}} {value}"
    for family, labeled in drift.prometheus(values).items():
        yield f"# TYPE {family} gauge"
        for label, value in labeled.items():
            yield f'{family}{{run="{run}",{label}}} {value}'


def manifest(options: Options, reports: Sequence[Report], published: bool) -> dict[str, Any]:
    """Manifest of the run: inputs, configuration, versions, rows and files of every table, times."""
    origins = [report.origin for report in reports if report.origin]
    inputs = {name: states for origin in origins for name, states in origin["files"].items()}
    return {
        "run": options.run_name,
        "published": published,
        "inputs": {
            name: [{"path": path, "bytes": size, "changed": changed} for path, size, changed in inputs.get(name, [])]
            for name in INPUTS
        },
        "configuration": dataclasses.asdict(options),
        "versions": fingerprint.versions(),
        "rows": {table: rows for report in reports for table, rows in report.rows.items()},
        "files": {table: left for report in reports for table, left in report.files.items()},
        "seconds": {report.stage: report.seconds for report in reports},
    }


def reconcile(reports: Sequence[Report]) -> None:
    """Checks that nothing was lost: rows read = written + rejected + duplicates, media = features + missing + rejected.

    Raises:
      ValueError: naming the input and the numbers.
    """
    from transforms.tables.counts import check_sum

    by_stage = {report.stage: report.counts for report in reports}
    for name in INPUTS:
        check_sum(by_stage.get("ingest", {}), name, "read", ("written", "rejected", "duplicates"))
    for kind in MEDIA_KINDS:
        parts = ("features", "missing", "rejected")
        check_sum(by_stage.get("extract", {}), f"media.{kind}", "referenced", parts, things="files")

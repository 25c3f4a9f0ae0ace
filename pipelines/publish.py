"""What is written when all tables are there: metrics, the manifest and, last, LATEST."""

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines import stage
from pipelines.gate import Verdict, decide
from pipelines.options import Options
from pipelines.stage import Report
from transforms import files

LATEST = "LATEST"
# What stages leave besides tables and counts: its name in metrics.json, the stage, the file.
MEASURES = (("model", "train", "model/model.json"), ("evaluation", "evaluate", "evaluation/evaluation.json"))
INPUTS = ("posts", "interactions", "users")
MEDIA_KINDS = ("image", "video", "audio", "unknown")
PACKAGES = ("apache-beam", "tensorflow", "keras", "tensorflow-transform", "pyarrow", "opencv-python-headless", "av")


def publish(options: Options, reports: Sequence[Report]) -> Verdict:
    """Writes metrics.json, metrics.prom and manifest.json, and then, if the gate lets it pass, OUTPUT/LATEST.

    Raises:
      ValueError: the counts of an input do not reconcile; nothing is published.
    """
    directory = stage.run_dir(options)
    reconcile(reports)
    values = metrics(options, reports)
    verdict = decide(values.get("evaluation"), last_published(options), options.gate_tolerance, no_gate=options.no_gate)
    values["gate"] = dataclasses.asdict(verdict)
    files.write_json(stage.join(directory, "metrics.json"), values)
    files.write_text(stage.join(directory, "metrics.prom"), "\n".join(prometheus(values)) + "\n")
    files.write_json(stage.join(directory, "manifest.json"), manifest(options, reports))
    if verdict.passed:
        files.write_text(stage.join(options.output, LATEST), options.run_name + "\n")
    return verdict


def last_published(options: Options) -> Any:
    """The evaluation of the run that LATEST names; None where there is none, or it is this very run."""
    path = stage.join(options.output, LATEST)
    if not stage.exists(path):
        return None
    name = files.read_text(path).strip()
    metrics_path = stage.join(options.output, "runs", name, "metrics.json")
    if name == options.run_name or not stage.exists(metrics_path):
        return None
    return files.read_json(metrics_path).get("evaluation")


def metrics(options: Options, reports: Sequence[Report]) -> dict[str, Any]:
    """Every counter and measure of the run."""
    measures: dict[str, Any] = {
        "run": options.run_name,
        "stages": {report.stage: dataclasses.asdict(report) for report in reports},
    }
    for name, writer, path in MEASURES:
        if writer in measures["stages"]:
            measures[name] = files.read_json(stage.join(stage.run_dir(options), path))
    return measures


def prometheus(values: dict[str, Any]) -> Iterator[str]:
    """The counters in Prometheus' text format (version 0.0.4)."""
    run = values["run"]
    families = {
        "fusefeed_stage_seconds": lambda r: {"": r["seconds"]},
        "fusefeed_stage_peak_memory_bytes": lambda r: {"": r["peak_memory_bytes"]},
        "fusefeed_table_rows": lambda r: {f'table="{table}"': rows for table, rows in r["rows"].items()},
        "fusefeed_count": lambda r: {f"name={json.dumps(name)}": number for name, number in r["counts"].items()},
    }
    for family, of_report in families.items():
        yield f"# TYPE {family} gauge"
        for name, report in values["stages"].items():
            for label, value in of_report(report).items():
                labels = ",".join(part for part in (f'run="{run}"', f'stage="{name}"', label) if part)
                yield f"{family}{{{labels}}} {value}"


def manifest(options: Options, reports: Sequence[Report]) -> dict[str, Any]:
    """What the run was made from: inputs, configuration, versions, rows of every table, times."""
    return {
        "run": options.run_name,
        "inputs": {name: fingerprints(getattr(options, name)) for name in INPUTS},
        "configuration": dataclasses.asdict(options),
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
        "rows": {table: rows for report in reports for table, rows in report.rows.items()},
        "seconds": {report.stage: report.seconds for report in reports},
    }


def fingerprints(patterns: str) -> list[dict[str, Any]]:
    """Path, size and time of the last change of every file of an input."""
    from apache_beam.io.filesystems import FileSystems

    from transforms import formats

    inputs = formats.find_files(patterns) if patterns else []
    found = [FileSystems.match([file.path])[0].metadata_list[0] for file in inputs]
    return [{"path": each.path, "bytes": each.size_in_bytes, "changed": each.last_updated_in_seconds} for each in found]


def reconcile(reports: Sequence[Report]) -> None:
    """Checks that nothing was lost: rows read = written + rejected + duplicates, media = features + missing + rejected.

    Raises:
      ValueError: naming the input and the numbers.
    """
    from transforms.counts import check_sum

    by_stage = {report.stage: report.counts for report in reports}
    for name in INPUTS:
        check_sum(by_stage.get("ingest", {}), name, "read", ("written", "rejected", "duplicates"))
    for kind in MEDIA_KINDS:
        parts = ("features", "missing", "rejected")
        check_sum(by_stage.get("extract", {}), f"media.{kind}", "referenced", parts, things="files")

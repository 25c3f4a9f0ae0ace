"""Results as a table on the screen and as JSON."""

import dataclasses
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Result, Sample

VERDICTS = {True: "met", False: "not met", None: ""}


def table(result: Result) -> str:
    """The sides' times and memory, then the figures beside their targets."""
    return "\n".join(_lines(result))


def _lines(result: Result) -> Iterator[str]:
    sizes = ", ".join(f"{number:,} {name}" for name, number in result.sizes.items())
    yield f"{result.name}: {result.title}" + (f" ({sizes})" if sizes else "")
    yield f"  {'side':<26}{'median s':>10}{'min':>10}{'max':>10}{'CPU s':>10}{'peak MB':>10}"
    for name, samples in result.samples.items():
        yield f"  {name:<26}{_numbers(samples)}"
    for name, reason in result.skipped.items():
        yield f"  {name:<26}skipped: {reason}"
    for figure in result.figures:
        yield _figure(figure)


def _numbers(samples: Sequence[Sample]) -> str:
    seconds = [sample.seconds for sample in samples]
    peak = max(sample.peak_bytes for sample in samples) / 1e6
    cpu = statistics.median(sample.cpu_seconds for sample in samples)
    return f"{statistics.median(seconds):>10.3f}{min(seconds):>10.3f}{max(seconds):>10.3f}{cpu:>10.2f}{peak:>10,.0f}"


def _figure(figure: Figure) -> str:
    spread = f"({figure.low:.3g} to {figure.high:.3g})" if figure.low != figure.high else ""
    target = f"target {figure.target}" if figure.target else ""
    return f"  {figure.text:<50}{figure.value:>8.3g} {spread:<20}{target:<26}{VERDICTS[figure.met]}".rstrip()


def to_json(
    results: Sequence[Result], failures: Mapping[str, str], settings: Mapping[str, Any], machine: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that was measured, as plain values."""
    return {
        "settings": dict(settings),
        "machine": dict(machine),
        "results": [dataclasses.asdict(result) for result in results],
        "failures": dict(failures),
    }


def write(value: Mapping[str, Any], directory: Path) -> Path:
    """Writes the JSON file, named by its time, and gives its path."""
    directory.mkdir(parents=True, exist_ok=True)
    stamp = value["machine"]["time"].replace(":", "").replace("-", "").replace("+0000", "Z")
    path = directory / f"{stamp}.json"
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    return path

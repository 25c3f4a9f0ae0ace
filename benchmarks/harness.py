"""What a benchmark is, and how its sides are measured: in turn, with the same threads, each in its own process.

Every figure is a ratio of medians of the same run; absolute times depend on the machine and decide nothing.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.process import Child, ChildFailed, Unavailable, call

__all__ = ["Benchmark", "ChildFailed", "Disagreement", "Ratio", "Side", "Unavailable", "load", "run", "size"]

OURS = "fusefeed"
Facts = dict[str, Any]
# What a side does in one repetition. It gives facts about the result (row counts, say), or a function that finds them
# out after the clock has stopped. Facts called like a Sample's fields take the place of what the harness measured.
Run = Callable[[], "Facts | Callable[[], Facts]"]


@dataclasses.dataclass(frozen=True)
class Side:
    """One way to do the work.

    Attributes:
      name: as the table shows it.
      start: imports and loads what is not to be measured, given the folder of the data, and gives the Run.
      needs: modules without which the side is skipped.
    """

    name: str
    start: Callable[[Path], Run]
    needs: tuple[str, ...] = ()


# Figures of what was measured; others are numbers that a check gives, of the sides that ran.
_KINDS = ("speed", "time", "memory", "peak", "seconds")


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A figure that a benchmark reports, and what it should be.

    Attributes:
      kind: "speed" (seconds of `against` / seconds of `side`), "time" (the inverse), "memory" (peak of `side` / peak of
        `against`), "peak" (gigabytes of `side`), "seconds" (of `side`), or the name of a number that the check gives.
      side: whose figure it is.
      against: what it is compared with; of several the fastest that could run.
      at_least: the target, where there is one.
      at_most: likewise.
      full_scale_only: whether the target says nothing about smaller data.
    """

    kind: str
    side: str = OURS
    against: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    full_scale_only: bool = False


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Data, sides and figures. All functions are imported by name in the processes that run them.

    Attributes:
      name: the word that selects it.
      title: the work, in a line.
      prepare: writes the data into a folder at a scale, deterministically; gives their sizes.
      sides: ours first.
      ratios: what is reported.
      agree: facts in which all sides have to give the same value.
      check: numbers about what the sides left in the folder, after the last repetition.
      repeats: repetitions where nothing else is asked for: fewer where one takes minutes.
      module: where BENCHMARK is; by its name where empty.
    """

    name: str
    title: str
    prepare: Callable[[Path, float], Mapping[str, int]]
    sides: tuple[Side, ...]
    ratios: tuple[Ratio, ...]
    agree: tuple[str, ...] = ()
    check: Callable[[Path], Mapping[str, float]] | None = None
    repeats: int = 3
    module: str = ""

    @property
    def path(self) -> str:
        """The module that holds it as BENCHMARK."""
        return self.module or f"benchmarks.{self.name}"


@dataclasses.dataclass(frozen=True)
class Sample:
    """One repetition of one side. `cpu_seconds`, of all threads, tells of a machine that other programs keep busy."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    facts: Facts


@dataclasses.dataclass(frozen=True)
class Figure:
    """A ratio of medians; low and high are the extremes of the ratios of single repetitions."""

    text: str
    value: float
    low: float
    high: float
    target: str
    met: bool | None


@dataclasses.dataclass
class Result:
    """What came of a benchmark."""

    name: str
    title: str
    sizes: Mapping[str, int]
    samples: dict[str, list[Sample]]
    skipped: dict[str, str]
    figures: list[Figure] = dataclasses.field(default_factory=list)
    checks: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Disagreement(Exception):
    """Two sides did not do the same work: their times must not be compared."""


def size(full: float, scale: float, least: int = 1) -> int:
    """A size of scale 1 at another scale, never below `least`."""
    return max(least, round(full * scale))


def load(path: str) -> Benchmark:
    """The benchmark of a module."""
    found: Benchmark = importlib.import_module(path).BENCHMARK
    return found


def run(
    benchmark: Benchmark,
    folder: Path,
    *,
    scale: float,
    repeats: int = 0,
    threads: int,
    tell: Callable[[str], None] = lambda line: None,
) -> Result:
    """Makes the data, runs the sides in turn (`repeats` times; 0: as often as the benchmark wants) and gives figures.

    Raises:
      Disagreement: the sides' results differ in what has to agree.
      ChildFailed: a side, the data or the check failed.
    """
    repeats = repeats or benchmark.repeats
    tell("makes its data")
    sizes = call(("prepare", benchmark.path, str(folder), str(scale)), threads)
    result = Result(benchmark.name, benchmark.title, sizes, {}, {})
    with contextlib.ExitStack() as stack:
        children = _start(benchmark, folder, threads, result, stack, tell)
        for number in range(repeats):
            # There and back again: what drifts meanwhile (heat, other programs) meets all sides alike.
            for name in list(children)[:: -1 if number % 2 else 1]:
                tell(f"repetition {number + 1} of {repeats}: {name}")
                result.samples[name].append(Sample(**children[name].run()))
    _check_agreement(benchmark, result)
    if benchmark.check is not None:
        result.checks = call(("check", benchmark.path, str(folder)), threads)
    result.figures = [found for ratio in benchmark.ratios if (found := figure(ratio, result, scale)) is not None]
    return result


def _start(
    benchmark: Benchmark,
    folder: Path,
    threads: int,
    result: Result,
    stack: contextlib.ExitStack,
    tell: Callable[[str], None],
) -> dict[str, Child]:
    children = {}
    for side in benchmark.sides:
        tell(f"starts {side.name}")
        try:
            if (reason := missing(side)) is not None:
                raise Unavailable(reason)
            children[side.name] = stack.enter_context(Child(benchmark.path, side.name, folder, threads))
            result.samples[side.name] = []
        except Unavailable as error:
            result.skipped[side.name] = str(error)
    return children


def missing(side: Side) -> str | None:
    """Why a side cannot run: which module is not there; None where all are."""
    absent = [name for name in side.needs if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} not installed" if absent else None


def _check_agreement(benchmark: Benchmark, result: Result) -> None:
    for fact in benchmark.agree:
        values = {
            name: sample.facts[fact]
            for name, samples in result.samples.items()
            for sample in samples
            if fact in sample.facts
        }
        if len(set(values.values())) > 1:
            raise Disagreement(f"{fact} must be the same on all sides, got {values}")


def figure(ratio: Ratio, result: Result, scale: float) -> Figure | None:
    """The value of a ratio; None where a side that it needs did not run."""
    target = _target(ratio)
    if ratio.kind in result.checks:
        value = float(result.checks[ratio.kind])
        return Figure(ratio.kind, value, value, value, target, _met(ratio, value, scale))
    peers = [name for name in ratio.against if result.samples.get(name)]
    if ratio.kind not in _KINDS or not result.samples.get(ratio.side) or (ratio.against and not peers):
        return None
    ours = result.samples[ratio.side]
    if not peers:
        values = [s.seconds if ratio.kind == "seconds" else s.peak_bytes / 1e9 for s in ours]
        middle = statistics.median(values)
        text = f"{ratio.kind}{' in GB' if ratio.kind == 'peak' else ''} of {ratio.side}"
        return Figure(text, middle, min(values), max(values), target, _met(ratio, middle, scale))
    best = min(peers, key=lambda name: statistics.median(s.seconds for s in result.samples[name]))
    pairs = list(zip(ours, result.samples[best], strict=True))
    middle = _of(ratio.kind, _medians(ours), _medians(result.samples[best]))
    values = [_of(ratio.kind, a, b) for a, b in pairs]
    best_of = "the best peer, " if len(ratio.against) > 1 else ""
    text = f"{ratio.kind} of {ratio.side} against {best_of}{best}"
    return Figure(text, middle, min(values), max(values), target, _met(ratio, middle, scale))


def _medians(samples: Sequence[Sample]) -> Sample:
    seconds, cpu_seconds, peak = (
        statistics.median(getattr(sample, name) for sample in samples)
        for name in ("seconds", "cpu_seconds", "peak_bytes")
    )
    return Sample(seconds, cpu_seconds, round(peak), {})


def _of(kind: str, ours: Sample, peer: Sample) -> float:
    if kind == "memory":
        return ours.peak_bytes / peer.peak_bytes
    return peer.seconds / ours.seconds if kind == "speed" else ours.seconds / peer.seconds


def _target(ratio: Ratio) -> str:
    low = [f">= {ratio.at_least:g}"] if ratio.at_least is not None else []
    high = [f"<= {ratio.at_most:g}"] if ratio.at_most is not None else []
    return " and ".join(low + high) + (" at scale 1" if ratio.full_scale_only and low + high else "")


def _met(ratio: Ratio, value: float, scale: float) -> bool | None:
    if (ratio.at_least is None and ratio.at_most is None) or (ratio.full_scale_only and scale < 1):
        return None
    return (ratio.at_least is None or value >= ratio.at_least) and (ratio.at_most is None or value <= ratio.at_most)

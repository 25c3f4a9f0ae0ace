"""How fast the command answers what needs no work, beside an interpreter that does nothing."""

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import stages
from benchmarks.harness import Benchmark, Ratio, Run, Side


def prepare(folder: Path, scale: float) -> Mapping[str, int]:
    """Nothing is needed."""
    return {}


def overview(folder: Path) -> Run:
    """fusefeed --help."""
    return lambda: stages.timed([*stages.COMMAND, "--help"])


def flags(folder: Path) -> Run:
    """fusefeed run --help."""
    return lambda: stages.timed([*stages.COMMAND, "run", "--help"])


def usage_error(folder: Path) -> Run:
    """A misspelt flag."""
    return lambda: stages.timed([*stages.COMMAND, "run", "--pots", "x"], code=2)


def interpreter(folder: Path) -> Run:
    """Python itself."""
    return lambda: stages.timed([sys.executable, "-c", "pass"])


_COMMANDS = {"--help": overview, "run --help": flags, "usage error": usage_error}

BENCHMARK = Benchmark(
    name="help",
    title="answers that need no work",
    prepare=prepare,
    sides=(*(Side(name, start) for name, start in _COMMANDS.items()), Side("python -c pass", interpreter)),
    ratios=(
        *(Ratio("time", name, ("python -c pass",)) for name in _COMMANDS),
        *(Ratio("seconds", name, at_most=1.0) for name in _COMMANDS),
    ),
)

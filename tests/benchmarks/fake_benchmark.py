"""A benchmark whose times are known: the slow side says that it took three times as long as the fast one."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness import OURS, Benchmark, Facts, Ratio, Run, Side
from benchmarks.process import Unavailable

SECONDS = {OURS: (1.0, 2.0, 9.0), "slow": (3.0, 6.0, 9.0)}


def prepare(folder: Path, scale: float) -> Mapping[str, int]:
    (folder / "order").write_text("")
    return {"rows": round(100 * scale)}


def _side(folder: Path, name: str) -> Run:
    times = iter(SECONDS[name])

    def run() -> Facts:
        with open(folder / "order", "a") as order:
            order.write(name + "\n")
        return {"seconds": next(times), "rows": 100}

    return run


def fast(folder: Path) -> Run:
    return _side(folder, OURS)


def slow(folder: Path) -> Run:
    print("libraries may print what they like")
    return _side(folder, "slow")


def unavailable(folder: Path) -> Run:
    raise Unavailable("there is no moon tonight")


def unimportable(folder: Path) -> Run:
    import pytest_has_no_such_module  # noqa: F401

    return dict


def hungry(folder: Path) -> Run:
    """Holds 200 MB more in its run than before it."""

    def run() -> Facts:
        held = b"x" * 200_000_000
        return {"rows": len(held) // 2_000_000}

    return run


def broken(folder: Path) -> Run:
    raise RuntimeError("the side fell over")


def other_rows(folder: Path) -> Run:
    return lambda: {"rows": 99}


def check(folder: Path) -> Mapping[str, float]:
    return {"lines of order": float(len((folder / "order").read_text().splitlines()))}


def made(*sides: Side) -> Benchmark:
    """The benchmark with other sides; the children find them in BENCHMARK by their names."""
    return Benchmark(
        "fake",
        "a fake",
        prepare,
        sides,
        ratios=(
            Ratio("speed", against=("slow", "absent"), at_least=2.0),
            Ratio("time", against=("slow",), at_most=0.1),
            Ratio("speed", against=("absent",)),
            Ratio("peak", at_most=1e-9, full_scale_only=True),
            Ratio("lines of order", at_least=6),
            Ratio("lines of absent"),
        ),
        agree=("rows",),
        check=check,
        module="tests.benchmarks.fake_benchmark",
    )


FAST, SLOW = Side(OURS, fast), Side("slow", slow)
ABSENT = Side("absent", slow, needs=("pytest_has_no_such_module",))
MOON, IMPORT = Side("moon", unavailable), Side("import", unimportable, needs=("pytest",))
HUNGRY, BROKEN, OTHER = Side("hungry", hungry), Side("broken", broken), Side("other", other_rows)

BENCHMARK = made(FAST, SLOW, ABSENT, MOON, IMPORT, HUNGRY, BROKEN, OTHER)

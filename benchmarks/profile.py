"""Where a stage spends its time: a profile of all threads of this process, the peak of its memory, and what it took.

make profile STAGE=fuse [POSTS=20000 | RUN=OUTPUT] [PROFILE="--clock wall -- --text_width 64"]
python -m benchmarks.profile fuse [--posts 20000 | --run OUTPUT] [--clock cpu|wall|none] [-- flags of the stage]

The in-process runner works in threads, of which cProfile sees one; yappi sees them all. It makes Python code slower
(products of matrices not): times that are to be told to anybody are those of `--clock none`.
"""

import argparse
import contextlib
import dataclasses
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import data, stages, whole

if TYPE_CHECKING:
    from pipelines.command_line.options import Options
    from pipelines.stage.declaration import Stage
    from pipelines.stage.reports import Report

STAGES = ("ingest", "extract", "fuse", "factorize", "train", "embed", "recommend", "evaluate")
PROFILES = Path(__file__).resolve().parents[1] / "profiles"
CLOCKS = ("cpu", "wall", "none")
DEFAULT_POSTS = 20_000
_BY = ("cumulative", "tottime")


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0."""
    options = parse(sys.argv[1:] if argv is None else argv)
    stages.warm_up()
    if options.run is not None:
        name, flags = options.run.name, flags_of_run(options.run, options.run_date)
        found = _run_dir(options.run, flags.run_name)
    else:
        name = f"{options.posts}-posts"
        flags, found = make_world(options.results / "worlds" / name, options.posts, options.stage)
    if options.flags:
        flags = _with_flags(flags, options.stage, options.flags)
    report, cpu_seconds = profile(
        options.stage, flags, found, options.results / f"{options.stage}-{name}", options.clock, options.top
    )
    print(summary(report, cpu_seconds, options.clock))
    return 0


def profile(
    name: str, flags: "Options", run_dir: Path, target: Path, clock: str = "cpu", top: int = 40
) -> "tuple[Report, float]":
    """Runs a stage on the tables of a run, which stay as they are: (its report, its CPU seconds of all threads).

    Leaves `target`.txt (the functions that took most, by what they and what they called took, and by themselves) and
    `target`.prof (for pstats, snakeviz and the like); none of them with the clock "none".
    """
    from pipelines.stage import execute

    with _beside(run_dir, _stage(name), flags) as (directory, there):
        began = time.process_time()
        with _profiled(target, clock, top):
            report = execute.execute(_stage(name), there, str(directory))
        return report, time.process_time() - began


@contextlib.contextmanager
def _beside(run_dir: Path, stage: "Stage", flags: "Options") -> "Iterator[tuple[Path, Options]]":
    """A run of its own in which the tables that a stage reads are links to those of another run."""
    with tempfile.TemporaryDirectory(prefix="fusefeed-profile-") as output:
        directory = _run_dir(Path(output), flags.run_name)
        directory.mkdir(parents=True)
        for table in stage.reads:
            (directory / table).symlink_to((run_dir / table).resolve(strict=True))
        yield directory, dataclasses.replace(flags, output=output)


@contextlib.contextmanager
def _profiled(target: Path, clock: str, top: int) -> Iterator[None]:
    if clock == "none":
        yield
        return
    import yappi

    yappi.clear_stats()
    yappi.set_clock_type(clock)
    yappi.start(builtins=True)
    try:
        yield
    finally:
        yappi.stop()
    target.parent.mkdir(parents=True, exist_ok=True)
    yappi.get_func_stats().save(f"{target}.prof", type="pstat")
    with open(f"{target}.txt", "w") as file:
        for order in _BY:
            pstats.Stats(f"{target}.prof", stream=file).sort_stats(order).print_stats(top)
    print(f"profile in {target}.txt and {target}.prof")


def summary(report: "Report", cpu_seconds: float, clock: str) -> str:
    """What a stage took, in a line."""
    slowed = "" if clock == "none" else f" (with the profiler, {clock} clock)"
    peak = report.peak_memory_bytes / 1e6
    return f"{report.stage}: {report.seconds:.1f} s, {cpu_seconds:.1f} CPU s, peak {peak:,.0f} MB{slowed}"


def make_world(folder: Path, num_posts: int, until: str) -> "tuple[Options, Path]":
    """The synthetic world of so many posts with the tables of all stages before `until`: (flags, directory of the run).

    It has ten interactions and a fifth of a user for each post, as the benchmark `whole`. What is there already is
    taken as it is, whatever code made it.
    """
    from pipelines.command_line.options import Options
    from pipelines.stage import execute, reports

    if not folder.exists():
        # Whole or not at all: one that was interrupted would be taken for the world.
        partial = folder.with_name(f"{folder.name}.{os.getpid()}")
        partial.parent.mkdir(parents=True, exist_ok=True)
        whole.write_world(partial, num_posts / whole.POSTS)
        partial.rename(folder)
    flags = Options(**whole.world_flags(folder), output=str(folder / "output"))
    run_dir = _run_dir(folder / "output", data.RUN_DATE)
    run_dir.mkdir(parents=True, exist_ok=True)
    for name in STAGES[: STAGES.index(until)]:
        report = reports.read_report(str(run_dir), name)
        if report is None:
            began = time.process_time()
            report = execute.execute(_stage(name), flags, str(run_dir))
            print(summary(report, time.process_time() - began, "none"), flush=True)
    return flags, run_dir


def flags_of_run(output: Path, run_date: str) -> "Options":
    """The flags with which the run of an output was made, by its manifest; `run_date` "" for what LATEST names."""
    from pipelines.command_line.options import Options
    from pipelines.store import runs
    from transforms.tables import files

    name = run_date or runs.latest(str(output))
    if not name:
        raise SystemExit(f"{output} has no {runs.LATEST}; name a run by --run_date")
    path = _run_dir(output, name) / runs.MANIFEST
    if not path.exists():
        raise SystemExit(f"{path} is not there: its flags are what the stage is run with")
    made: Mapping[str, Any] = files.read_json(str(path))["configuration"]
    flags: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in made.items()}
    return Options(**flags)


def _with_flags(flags: "Options", stage: str, words: Sequence[str]) -> "Options":
    """The flags with those of some words changed."""
    from pipelines.command_line.options import Options, parse

    changed, default = parse(stage, "", words), Options()
    names = {field.name for field in dataclasses.fields(Options)}
    return dataclasses.replace(
        flags, **{name: value for name in names if (value := getattr(changed, name)) != getattr(default, name)}
    )


def _run_dir(output: Path, name: str) -> Path:
    return output / "runs" / name


def _stage(name: str) -> "Stage":
    import importlib

    found: Stage = importlib.import_module(f"pipelines.{name}").STAGE
    return found


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The settings; bad ones end the program with exit code 2 and a line that names them."""
    words = list(argv)
    flags = words[words.index("--") + 1 :] if "--" in words else []
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile",
        description=(__doc__ or "").splitlines()[0],
        epilog="Flags of the stage come after --.",
        allow_abbrev=False,
    )
    parser.add_argument("stage", choices=STAGES, help="which stage")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--posts", type=int, default=DEFAULT_POSTS, help="size of a made world (default %(default)s)")
    source.add_argument("--run", type=Path, help="an OUTPUT of fusefeed, on whose tables the stage is run")
    parser.add_argument("--run_date", default="", help="which run of it (default: what LATEST names)")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="cpu", help="what is profiled; none: only time and memory (default cpu)"
    )
    parser.add_argument("--top", type=int, default=40, help="functions that are listed (default %(default)s)")
    parser.add_argument("--results", type=Path, default=PROFILES, help="where profiles go (default %(default)s)")
    options = parser.parse_args(words[: len(words) - len(flags) - 1] if "--" in words else words)
    for name, low in (("posts", 200), ("top", 1)):
        if getattr(options, name) < low:
            parser.error(f"--{name} must be at least {low}, got {getattr(options, name)}")
    options.flags = flags
    return options


if __name__ == "__main__":
    sys.exit(main())

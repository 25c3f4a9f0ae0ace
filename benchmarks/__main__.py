"""Runs benchmarks: ours beside raw loops and peers on the same data, in the same run, with the same threads.

python -m benchmarks [NAME ...] [--scale 0.05] [--repeats 3]
"""

import argparse
import difflib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import harness, machine, report

NAMES = (
    "ingest",
    "shuffle",
    "factors",
    "images",
    "video_audio",
    "text",
    "training",
    "topk",
    "workers",
    "help",
    "whole",
)
RESULTS = Path(__file__).resolve().parent / "results"
DONE, FAILED = 0, 1


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 1 where a benchmark failed; a target that is missed is no failure."""
    options = parse(argv)
    facts = machine.facts()
    print(f"{facts['cpu']}, {facts['cores']} cores, BLAS {facts['blas']}, settings {facts['settings'] or 'none'}")
    if facts["load"][0] > 0.5:
        print(f"load average {facts['load'][0]:.1f}: other programs are running, the figures are noisy")
    results, failures = [], {}
    for name in options.names:
        try:
            results.append(_run(name, options))
            print("\n" + report.table(results[-1]), flush=True)
        except (harness.Disagreement, harness.ChildFailed) as error:
            failures[name] = str(error)
            print(f"\n{name}: failed: {error}", flush=True)
    settings = {name: getattr(options, name) for name in ("names", "scale", "repeats", "threads")}
    facts["load_after"] = list(os.getloadavg())
    path = report.write(report.to_json(results, failures, settings, facts), options.results)
    print(f"\nresults in {path}")
    return FAILED if failures else DONE


def _run(name: str, options: argparse.Namespace) -> harness.Result:
    def tell(line: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{name} {line}", end="\r", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix=f"fusefeed-bench-{name}-") as folder:
        result = harness.run(
            harness.load(f"benchmarks.{name}"),
            Path(folder),
            scale=options.scale,
            repeats=options.repeats or 0,
            threads=options.threads,
            tell=tell,
        )
    tell("\033[K")
    return result


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The settings; bad ones end the program with exit code 2 and a line that names them."""
    titles = "\n".join(f"  {name:<14}{harness.load(f'benchmarks.{name}').title}" for name in NAMES)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{(__doc__ or '').splitlines()[0]}\n\nbenchmarks (all where none is named):\n{titles}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run")
    parser.add_argument(
        "--scale", type=float, default=0.05, help="size of the data, 1 for the full ones (default 0.05)"
    )
    parser.add_argument(
        "--repeats", type=int, help="repetitions of every side (default 3, of what takes minutes 1 or 2)"
    )
    parser.add_argument("--threads", type=int, default=machine.num_cores(), help="of every side (default all cores)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory of the JSON (default %(default)s)")
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in NAMES:
            close = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(NAMES)}"
            parser.error(f"unknown benchmark {name!r}, {hint}")
    if not 0 < options.scale <= 100:
        parser.error(f"--scale must be above 0 and at most 100, got {options.scale}")
    for flag in ("repeats", "threads"):
        if getattr(options, flag) is not None and getattr(options, flag) < 1:
            parser.error(f"--{flag} must be at least 1, got {getattr(options, flag)}")
    options.names = list(dict.fromkeys(options.names)) or list(NAMES)
    return options


if __name__ == "__main__":
    sys.exit(main())

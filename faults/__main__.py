"""Makes runs of the small demo world fail in every way that nights have, and checks that nothing is lost.

python -m faults [NAME ...] [--seed 0] [--kills 20] [--times 3]
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from faults import kill, moments, surroundings, world
from faults.world import Reference

Fault = Callable[[Reference, Path, random.Random, int], Iterator[str]]
FAULTS: dict[str, Fault] = {
    "evaluate": kill.evaluating,
    "full_disk": surroundings.full_disks,
    "small_files": surroundings.small_files,
    "read_only": surroundings.read_only,
    "shrinking_input": surroundings.shrinking_inputs,
    "cut_shard": surroundings.cut_shards,
}
KILL, MOMENTS, PUBLISH, REPLACE = "kill", "moments", "publish", "replace"
NAMES = (KILL, MOMENTS, PUBLISH, REPLACE, *FAULTS)
# Kills of small runs for every kill of a real one.
SMALL_KILLS = 50


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 1 where something did not hold."""
    options = parse(argv)
    broken = 0
    with tempfile.TemporaryDirectory(prefix="fusefeed-faults-") as folder:
        base = Path(folder)
        made = world.make(base / "world", options.seed, 100, 20)
        reference = world.undisturbed(made, base / "reference", base / "scratch", "--no_evaluate")
        tell(f"undisturbed: {reference.seconds:.0f} s")
        for name in options.names:
            began = time.monotonic()
            try:
                for line in _inject(name, options, reference, base):
                    tell(line)
                tell(f"{name}: held, {time.monotonic() - began:.0f} s")
            except world.Broken as error:
                broken += 1
                tell(f"{name}: BROKEN: {error}")
    tell(f"{len(options.names) - broken} of {len(options.names)} faults held")
    return 1 if broken else 0


def _inject(name: str, options: argparse.Namespace, reference: Reference, base: Path) -> Iterator[str]:
    if name == MOMENTS:
        return iter([moments.in_a_process(base / MOMENTS, options.seed, SMALL_KILLS * options.kills)])
    chosen = random.Random(f"{options.seed} {name}")
    if name == KILL:
        return kill.first_runs(reference, base, chosen, options.kills)
    if name == PUBLISH:
        return kill.publishing(reference, base, chosen, options.kills)
    if name == REPLACE:
        flags = ("--no_evaluate", "--seed", "1")
        other = world.undisturbed(reference.world, base / "other", base / "scratch", *flags)
        return kill.replacements(reference, other, base, chosen, options.times)
    return FAULTS[name](reference, base, chosen, options.times)


def tell(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the world and of all moments (default 0)")
    parser.add_argument(
        "--kills", type=int, default=20, help="kills of a first run, and of its publishing (default 20)"
    )
    parser.add_argument("--times", type=int, default=3, help="repetitions of every other fault (default 3)")
    options = parser.parse_args(argv)
    options.names = options.names or list(NAMES)
    for name in options.names:
        if name not in NAMES:
            parser.error(f"unknown fault {name!r}, expected one of {', '.join(NAMES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())

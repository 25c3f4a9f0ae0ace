"""The small demo world, the run of it that nothing disturbs, and what has to hold after a run that was disturbed."""

import dataclasses
import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from faults import command
from pipelines.demo_world import make_world

# Small vectors: the course of a run is that of any, in less time.
FLAGS = ("--k", "10", "--epochs", "3", "--text_width", "8", "--factors", "8")
# Everything that a run writes must be as in the undisturbed one, also what only later stages read.
TABLES = (
    *("posts", "interactions", "users", "rejects/ingest", "features", "rejects/extract", "history", "collaborative"),
    *("fused", "item_embeddings", "post_profiles", "user_embeddings", "user_scales", "candidates", "recommendations"),
    "similar_posts",
)
STRAY = re.compile(r"_[a-z]+-[0-9a-f]{32}|_[0-9a-f]{32}\.tmp|LOCK.*|_training|.*\.next|_part-.*")

# What is said of stages: "[3/8] fuse: not done yet", "fuse: 15 s, 100 rows".
PROGRESS = re.compile(r"\[\d|\w+: [\d.]+ (s|min|h)\b")


class Broken(Exception):
    """Something does not hold that has to."""


def need(holds: bool, otherwise: str) -> None:
    """Raises `Broken` where something does not hold."""
    if not holds:
        raise Broken(otherwise)


@dataclasses.dataclass(frozen=True)
class World:
    """Input files and the words that name them."""

    root: Path
    posts: str
    interactions: str
    users: str
    media_root: str
    run_date: str

    def words(self, output: Path, *more: str) -> list[str]:
        """`run` on this world."""
        inputs = ["--posts", self.posts, "--interactions", self.interactions, "--users", self.users]
        named = ["--media_root", self.media_root, "--run_date", self.run_date, "--output", str(output)]
        return ["run", *inputs, *named, *FLAGS, *more]

    def run_dir(self, output: Path) -> Path:
        """The directory of its run."""
        return output / "runs" / self.run_date


def make(root: Path, seed: int, num_posts: int, num_users: int) -> World:
    """Writes the demo world."""
    made = make_world(str(root), num_posts=num_posts, num_users=num_users, seed=seed)
    return World(root, made.posts, made.interactions, made.users, made.media_root, made.run_date)


@dataclasses.dataclass(frozen=True)
class Reference:
    """A run that nothing disturbed: its output, the seconds that it took, when each stage began, further flags."""

    world: World
    output: Path
    seconds: float
    began: dict[str, float]
    words: tuple[str, ...]

    def moment(self, moments: random.Random, by_stage: bool, last: float = 1.0) -> tuple[str, float]:
        """A random moment of a run: (what it says when the stage begins, seconds after that).

        Args:
          moments: where it comes from.
          by_stage: whether every stage is as likely, or every second.
          last: the share of the run before which it has to be.
        """
        stages, starts = list(self.began), [*self.began.values(), self.seconds]
        if by_stage:
            number = moments.randrange(max(1, int(last * len(stages))))
            when = moments.uniform(starts[number], starts[number + 1])
        else:
            when = moments.uniform(starts[0], starts[0] + last * (self.seconds - starts[0]))
            number = max(index for index, start in enumerate(starts[:-1]) if start <= when)
        return stages[number], when - starts[number]


def undisturbed(world: World, output: Path, scratch: Path, *more: str) -> Reference:
    """Makes one."""
    process = command.Command(world.words(output, *more), scratch)
    done = process.finish()
    need(done.code == 0, f"the undisturbed run failed: {done.message}")
    return Reference(world, output, done.seconds, process.began(), more)


def check_whole(reference: Reference, output: Path, scratch: Path) -> float:
    """Checks that a run is as if nothing had happened and that nothing is left beside it.

    Returns: the largest difference of two numbers in the tables; 0 where they are equal to the last bit.

    Raises:
      Broken: something is different or left.
    """
    name = reference.world.run_date
    latest = output / "LATEST"
    need(latest.exists() and latest.read_text() == f"{name}\n", "LATEST does not name the run")
    strays = [str(path) for path in output.rglob("*") if STRAY.fullmatch(path.name)]
    strays += [str(path) for path in scratch.glob("fusefeed-*")]
    need(not strays, f"left behind: {', '.join(strays)}")
    whole, other = reference.world.run_dir(reference.output), reference.world.run_dir(output)
    return max(check_same(whole / table, other / table) for table in TABLES)


def check_same(one: Path, two: Path, tolerance: float = 1e-5) -> float:
    """Checks that two tables have the same rows, numbers with decimals to the tolerance; the largest difference."""
    tables = [pq.read_table(path) for path in (one, two)]
    need(tables[0].schema == tables[1].schema, f"{two} has another schema")
    if tables[0].equals(tables[1]):
        return 0.0
    need(tables[0].num_rows == tables[1].num_rows, f"{two} has {tables[1].num_rows} rows, not {tables[0].num_rows}")
    worst = 0.0
    for name in tables[0].column_names:
        left, right = (table.column(name).combine_chunks() for table in tables)
        if left.equals(right):
            continue
        while pa.types.is_list(left.type) or pa.types.is_fixed_size_list(left.type):
            left, right = left.flatten(), right.flatten()
        need(pa.types.is_floating(left.type), f"{two}: {name} is not the same")
        difference = np.abs(left.to_numpy(zero_copy_only=False) - right.to_numpy(zero_copy_only=False))
        worst = max(worst, float(np.nanmax(difference)))
    need(worst <= tolerance, f"{two} differs by {worst:g}")
    return worst


def check_unpublished(output: Path) -> None:
    """Checks that no reader is told of a run.

    Raises:
      Broken: LATEST is there.
    """
    need(not (output / "LATEST").exists(), "LATEST names a run that is not complete")


def check_one_line(done: command.Done, *says: str) -> None:
    """Checks that a command failed (exit code 1, or 2 where it could not begin) and said why in one line.

    Raises:
      Broken: it did not.
    """
    need(done.code in (1, 2), f"exit code {done.code}, not 1: {done.message}")
    lines = [line for line in done.errors if not PROGRESS.match(line)]
    need(len(lines) == 1, f"{len(lines)} lines are said, not one: {' | '.join(lines[-5:])}")
    need(any(word in lines[0] for word in says), f"{lines[0]!r} says nothing of {' or '.join(says)}")


def redone(done: command.Done) -> Sequence[str]:
    """The stages that a command did, by what it said."""
    lines = [line.partition("] ")[2] for line in done.errors if line.startswith("[")]
    return [line.split(":")[0] for line in lines if not line.endswith("skipped: unchanged")]

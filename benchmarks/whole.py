"""A whole run, from raw files to published recommendations, beside itself on half of everything."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import data, stages
from benchmarks.harness import Benchmark, Facts, Ratio, Run, Side, size

POSTS, INTERACTIONS, USERS, K = 1_000_000, 10_000_000, 200_000, 50


def prepare(folder: Path, scale: float) -> Mapping[str, int]:
    """Two worlds, one of twice the size of the other."""
    for name, share in (("full", scale), ("half", scale / 2)):
        write_world(folder / name, share)
    return dict(zip(("posts", "interactions", "users"), _sizes(scale), strict=True))


def _sizes(scale: float) -> tuple[int, int, int]:
    return size(POSTS, scale, least=200), size(INTERACTIONS, scale, least=1000), size(USERS, scale, least=50)


def write_world(folder: Path, scale: float) -> None:
    """Writes posts.jsonl, interactions.parquet and users.parquet into a new folder."""
    import pyarrow.parquet as pq

    posts, interactions, users = _sizes(scale)
    folder.mkdir()
    data.write_posts_jsonl(folder / "posts.jsonl", posts)
    pq.write_table(data.interactions(interactions, users, posts), folder / "interactions.parquet")
    data.write_users(folder / "users.parquet", users)


def world_flags(folder: Path) -> dict[str, Any]:
    """The flags of a run on what `write_world` wrote, but for the output."""
    inputs = {"posts": "posts.jsonl", "interactions": "interactions.parquet", "users": "users.parquet"}
    return {name: str(folder / file) for name, file in inputs.items()} | {"run_date": data.RUN_DATE, "k": K}


def _whole(folder: Path) -> Run:
    output = folder / "output"
    flags = world_flags(folder) | {"output": str(output)}
    command = [*stages.COMMAND, "run", *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]

    def run() -> Facts:
        shutil.rmtree(output, ignore_errors=True)
        facts = stages.timed(command)
        reports = sorted((output / "runs" / data.RUN_DATE / "_stages").glob("*.json"))
        return facts | {f"seconds of {path.stem}": json.loads(path.read_text())["seconds"] for path in reports}

    return run


def full(folder: Path) -> Run:
    """All of it."""
    return _whole(folder / "full")


def half(folder: Path) -> Run:
    """Half the posts, interactions and users."""
    return _whole(folder / "half")


BENCHMARK = Benchmark(
    name="whole",
    title="a whole run",
    prepare=prepare,
    sides=(Side("full size", full), Side("half size", half)),
    ratios=(
        Ratio("time", "full size", ("half size",), at_most=2.2),
        Ratio("memory", "full size", ("half size",)),
        Ratio("peak", "full size", at_most=8.0, full_scale_only=True),
    ),
    repeats=1,
)

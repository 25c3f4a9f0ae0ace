"""A whole run, from raw files to published recommendations, beside itself on half of everything."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from benchmarks import data, stages
from benchmarks.harness import Benchmark, Facts, Ratio, Run, Side, size

POSTS, INTERACTIONS, USERS, K = 1_000_000, 10_000_000, 200_000, 50


def prepare(folder: Path, scale: float) -> Mapping[str, int]:
    """Two worlds, one of twice the size of the other."""
    for name, share in (("full", scale), ("half", scale / 2)):
        _write_world(folder / name, share)
    return dict(zip(("posts", "interactions", "users"), _sizes(scale), strict=True))


def _sizes(scale: float) -> tuple[int, int, int]:
    return size(POSTS, scale, least=200), size(INTERACTIONS, scale, least=1000), size(USERS, scale, least=50)


def _write_world(folder: Path, scale: float) -> None:
    import pyarrow.parquet as pq

    posts, interactions, users = _sizes(scale)
    folder.mkdir()
    data.write_posts_jsonl(folder / "posts.jsonl", posts)
    pq.write_table(data.interactions(interactions, users, posts), folder / "interactions.parquet")
    data.write_users(folder / "users.parquet", users)


def _whole(folder: Path) -> Run:
    output = folder / "output"
    command = [*stages.COMMAND, "run", "--posts", str(folder / "posts.jsonl")]
    command += ["--interactions", str(folder / "interactions.parquet"), "--users", str(folder / "users.parquet")]
    command += ["--output", str(output), "--run_date", data.RUN_DATE, "--k", str(K)]

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

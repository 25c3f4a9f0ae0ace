"""Extract with two worker processes, beside one. What is compared is the stage's own time: the command's start is not,
but the workers' is, so that small data say little."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from benchmarks import data, media, stages
from benchmarks.harness import Benchmark, Facts, Ratio, Run, Side, size

POSTS, FILES, PARTS = 12_000, 200, 24


def prepare(folder: Path, scale: float) -> Mapping[str, int]:
    """Large pictures, each in several posts, in a table of many parts."""
    from transforms.tables import blocks, parquet, schemas

    number = size(POSTS, scale, least=PARTS)
    names = media.write_jpegs(folder / "media", size(FILES, scale, least=4), *media.FULL_HD)
    posts = media.posts_of([names[index % len(names)] for index in range(number)])
    for part, rows in enumerate(blocks.split_rows(posts, -(-number // PARTS))):
        parquet.write_file(str(folder / "posts" / f"part-{part:05d}.parquet"), rows, schemas.POSTS)
    return {"posts": number, "pictures": len(names)}


def _workers(folder: Path, number: int) -> Run:
    output = folder / f"workers-{number}"
    run_dir = output / "runs" / data.RUN_DATE
    run_dir.mkdir(parents=True)
    os.symlink(folder / "posts", run_dir / "posts")
    command = [*stages.COMMAND, "extract", "--output", str(output), "--run_date", data.RUN_DATE]
    command += ["--media_root", str(folder / "media"), "--video_encoder", "none", "--audio_encoder", "none"]
    command += ["--", "--direct_running_mode=multi_processing", f"--direct_num_workers={number}"]

    def run() -> Facts:
        facts = stages.timed(command)
        report = json.loads((run_dir / "_stages" / "extract.json").read_text())
        return facts | {"seconds": report["seconds"], "rows": report["rows"]["features"]}

    return run


def one(folder: Path) -> Run:
    """One worker process."""
    return _workers(folder, 1)


def two(folder: Path) -> Run:
    """Two worker processes."""
    return _workers(folder, 2)


BENCHMARK = Benchmark(
    name="workers",
    title="extract with two worker processes",
    prepare=prepare,
    sides=(Side("two workers", two), Side("one worker", one)),
    repeats=2,
    ratios=(Ratio("speed", "two workers", ("one worker",), at_least=1.7),),
    agree=("rows",),
)

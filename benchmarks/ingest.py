"""Posts as JSONL -> canonical Parquet with all checks, beside pyarrow that writes what it read, unchecked."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from benchmarks import data, stages
from benchmarks.harness import OURS, Benchmark, Facts, Ratio, Run, Side, size

POSTS = 1_000_000


def prepare(folder: Path, scale: float) -> Mapping[str, int]:
    """One JSONL file."""
    number = size(POSTS, scale, least=100)
    data.write_posts_jsonl(folder / "posts.jsonl", number)
    return {"posts": number, "bytes": (folder / "posts.jsonl").stat().st_size}


def ours(folder: Path) -> Run:
    """The stage, in this process."""
    stages.warm_up(tensorflow=False)

    def run() -> Facts:
        output = folder / "ours"
        shutil.rmtree(output, ignore_errors=True)
        posts = str(folder / "posts.jsonl")
        report = stages.execute("ingest", posts=posts, output=str(output), run_date=data.RUN_DATE)
        return {"rows": report.rows["posts"]}

    return run


def pyarrow(folder: Path) -> Run:
    """read_json and write_table: no check, no deduplication, no order."""
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    def run() -> Facts:
        table = pj.read_json(folder / "posts.jsonl")
        pq.write_table(table, folder / "pyarrow.parquet", compression="zstd")
        return {"rows": table.num_rows}

    return run


BENCHMARK = Benchmark(
    name="ingest",
    title="posts as JSONL -> canonical Parquet with all checks",
    prepare=prepare,
    sides=(Side(OURS, ours), Side("pyarrow", pyarrow)),
    ratios=(
        Ratio("speed", against=("pyarrow",), at_least=0.35),
        Ratio("peak", at_most=2.0, full_scale_only=True),
    ),
    agree=("rows",),
)

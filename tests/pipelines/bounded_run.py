"""A run on a small catalog, and then on a large one with hardly more memory: what test_bounded_memory starts.

    python bounded_run.py WORLDS STAGE ...

Prints JSON: of each stage the rows of its tables, and the private memory that the large run took at most beyond what
the process had after the small one.
"""

import functools
import importlib
import json
import resource
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.media.sandbox_main import data_bytes

RUN_DATE = "2026-01-31"
SMALL, LARGE = 2_000, 32_000
WIDTH = 512
# Posts of a part of any table.
PART_POSTS = 500
# What the large run may have beyond what the process holds after the small one. Seen are 30 to 55 MiB, of 16,000 posts
# and of 32,000; the vectors of the large catalog are 62 MiB, in the candidates 127 MiB.
ALLOWED_BYTES = 96 << 20


def write_world(folder: Path, num_posts: int) -> None:
    """Posts with one vector each, three interactions a post, and a user for every four posts."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    centers = rng.standard_normal((20, WIDTH)).astype(np.float32)
    for start in range(0, num_posts, 1_000):
        values = centers[rng.integers(0, 20, 1_000)] + rng.standard_normal((1_000, WIDTH)).astype(np.float32)
        lists = pa.ListArray.from_arrays(np.arange(0, values.size + 1, WIDTH, dtype=np.int32), values.ravel())
        vectors = pa.MapArray.from_arrays(np.arange(1_001, dtype=np.int32), ["clip"] * 1_000, lists)
        ids = [f"p{number:06d}" for number in range(start, start + 1_000)]
        posts = pa.table(
            {"post_id": ids, "text": [f"word{n % 97} word{n % 89}" for n in range(1_000)], "vectors": vectors}
        )
        pq.write_table(posts, folder / f"posts-{start:06d}.parquet", row_group_size=PART_POSTS)
    users = rng.integers(0, num_posts // 4, 3 * num_posts)
    met = rng.integers(0, num_posts, 3 * num_posts)
    interactions = {
        "user_id": [f"u{n}" for n in users],
        "post_id": [f"p{n:06d}" for n in met],
        "kind": ["like"] * len(met),
    }
    pq.write_table(pa.table(interactions), folder / "interactions.parquet")


def flags(folder: Path, num_posts: int) -> dict[str, Any]:
    """Small blocks and parts, and vectors that stay as wide as they come."""
    return {
        "posts": str(folder / "posts-*.parquet"),
        "interactions": str(folder / "interactions.parquet"),
        "output": str(folder / "output"),
        "run_date": RUN_DATE,
        "num_parts": num_posts // PART_POSTS,
        "text_width": 8,
        "factors": 8,
        "latent": 16,
        "epochs": 1,
        "k": 10,
        "similar_k": 5,
    }


def shrink_limits() -> None:
    """What is held whole up to a stated limit is held up to a smaller one: limits of full size are not reached here."""
    from transforms.tables import parquet

    for module, name, value in (
        ("transforms.search.catalog", "CACHED_BYTES", 0),
        ("transforms.search.cells", "MIN_POSTS", 1_000),
        ("transforms.search.cells", "_SAMPLED_POSTS_A_CELL", 4),
        ("transforms.search.cells", "_BALANCED_BY", 2_000),
        ("transforms.tables.parquet", "READ_OFTEN", parquet.FileLayout(500, "none")),
        ("transforms.search.top_k", "TILE_ROWS", 500),
        ("transforms.recommend.recommend_posts", "USER_ROWS", 1_000),
        ("transforms.recommend.similar_posts", "POST_ROWS", 2_000),
        ("model.fit", "MAX_VALIDATION_ROWS", 500),
        ("model.spool", "MAX_BUCKET_BYTES", 1 << 20),
        ("transforms.tables.spill", "MIN_BYTES", 1),
        ("transforms.extract.extract_features", "BLOCK_ROWS", PART_POSTS),
        ("transforms.ingest.ingest_table", "BLOCK_BYTES", 1 << 20),
        ("transforms.fuse.fuse_features", "PCA_WIDTH", WIDTH),
    ):
        assert hasattr(importlib.import_module(module), name)
        setattr(importlib.import_module(module), name, value)
    from transforms.tuning import sample

    sample.sample_interactions = functools.partial(sample.sample_interactions, max_users=20, max_posts=500)


def hoard(function: str) -> None:
    """Makes a function keep all that it ever gave, as a step would that holds its table."""
    module_name, name = function.rsplit(".", 1)
    module = importlib.import_module(module_name)
    original, kept = getattr(module, name), []

    def keep(*args: Any, **arguments: Any) -> Any:
        kept.append(original(*args, **arguments))
        return kept[-1]

    setattr(module, name, keep)


class Peak:
    """The most private memory while it is watched."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.bytes = max(self.bytes, data_bytes())

    def end(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.bytes


def run_stage(name: str, folder: Path, num_posts: int) -> dict[str, int]:
    """Rows of the tables that the stage wrote."""
    from pipelines.command_line.options import Options
    from pipelines.stage import execute

    made = execute.execute(importlib.import_module(f"pipelines.{name}").STAGE, Options(**flags(folder, num_posts)))
    return dict(made.rows)


def main(worlds: str, *words: str) -> None:
    """Runs the stages named, on both worlds; `limit=none` lifts the limit, `hoard=MODULE.FUNCTION` makes a hoarder."""
    stages = [word for word in words if "=" not in word]
    found = {}
    shrink_limits()
    for name in stages:
        run_stage(name, Path(worlds) / "small", SMALL)
    for name in words:
        if name.startswith("hoard="):
            hoard(name.removeprefix("hoard="))
    before = data_bytes()
    if "limit=none" not in words:
        resource.setrlimit(resource.RLIMIT_DATA, (before + ALLOWED_BYTES, resource.RLIM_INFINITY))
    for name in stages:
        peak = Peak()
        rows = run_stage(name, Path(worlds) / "large", LARGE)
        found[name] = {"rows": rows, "peak": peak.end() - before}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

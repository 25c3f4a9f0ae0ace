"""A catalog larger than the memory that is left goes through all the same: no step holds all posts or users."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines import bounded_run

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, and RLIMIT_DATA of Linux")

# So that what is freed is given back, and what is counted is what is held.
TIDY = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}


def start(worlds: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, bounded_run.__file__, str(worlds), *words]
    return subprocess.run(command, env=os.environ | TIDY, capture_output=True, text=True, timeout=240, check=False)


def rows_of(worlds: Path, *words: str) -> dict[str, dict[str, Any]]:
    done = start(worlds, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    return {stage: each["rows"] for stage, each in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds")
    bounded_run.write_world(folder / "small", bounded_run.SMALL)
    bounded_run.write_world(folder / "large", bounded_run.LARGE)
    return folder


def test_no_step_holds_the_catalog(worlds: Path) -> None:
    posts, k = bounded_run.LARGE, 10
    rows = rows_of(worlds, "ingest", "extract", "fuse", "factorize")
    assert rows["ingest"]["posts"] == rows["extract"]["features"] == rows["factorize"]["fused"] == posts
    # The trainer works on one machine, with samples and buckets of stated sizes that are larger than this catalog.
    rows_of(worlds, "train", "limit=none")
    rows = rows_of(worlds, "embed", "recommend")
    assert rows["embed"]["item_embeddings"] == rows["recommend"]["candidates"] == posts
    assert rows["recommend"]["recommendations"] == k * rows["embed"]["user_embeddings"] > 0
    assert rows["recommend"]["similar_posts"] == 5 * posts
    candidates = worlds / "large" / "output" / "runs" / bounded_run.RUN_DATE / "candidates"
    assert any((candidates / "_regions").iterdir())

    # The limit means something: a step that keeps what it reads does not get through.
    hoarding = start(worlds, "embed", "recommend", "hoard=transforms.tables.parquet.read_file")
    assert hoarding.returncode != 0
    assert any(word in hoarding.stderr for word in ("MemoryError", "malloc", "bad_alloc", "out of memory"))

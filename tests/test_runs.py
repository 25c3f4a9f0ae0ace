"""Whole runs on a small part of the demo world: same tables however the work is cut, other runners, exit codes."""

import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faults import command
from faults.world import STRAY, check_one_line
from pipelines.demo_world import DemoWorld, make_world

ROOT = Path(__file__).resolve().parents[1]
TABLES = ("posts", "interactions", "users", "features", "rejects", "recommendations", "similar_posts")

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> DemoWorld:
    return make_world(str(tmp_path_factory.mktemp("world")), num_posts=150, num_users=40)


# A program that runs the command with blocks of a few rows.
SMALL_BLOCKS = """
import sys
from pipelines import cli
from transforms.extract import extract_features
from transforms.ingest import ingest_table
ingest_table.BLOCK_BYTES, extract_features.BLOCK_ROWS = 1500, 7
sys.exit(cli.main())
"""


def _fusefeed(*words: str, small_blocks: bool = False) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *(("-c", SMALL_BLOCKS) if small_blocks else ("-m", "pipelines.cli")), *words],
        capture_output=True,
        text=True,
        env=environment,
    )


def _input(world: DemoWorld) -> list[str]:
    inputs = ["--posts", world.posts, "--interactions", world.interactions, "--users", world.users]
    return [
        *inputs,
        "--media_root",
        world.media_root,
        "--run_date",
        world.run_date,
        "--k",
        "10",
        "--epochs",
        "3",
        "--no_evaluate",
    ]


def _run(world: DemoWorld, output: Path, *words: str, small_blocks: bool = False) -> Path:
    done = _fusefeed("run", *_input(world), "--output", str(output), *words, small_blocks=small_blocks)
    assert done.returncode == 0, done.stderr[-4000:]
    return output / "runs" / world.run_date


@pytest.fixture(scope="module")
def plain(world: DemoWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(world, tmp_path_factory.mktemp("plain"))


def _rows(run_dir: Path, table: str) -> pa.Table:
    found = pq.read_table(run_dir / table)
    keys = [
        name for name in ("source", "line", "record", "id", "post_id", "user_id", "kind") if name in found.schema.names
    ]
    ranked = ["rank"] if "rank" in found.schema.names else []
    times = ["created_at"] if "created_at" in found.schema.names else []
    return found.sort_by([(name, "ascending") for name in [*keys, *ranked, *times]])


def _assert_same(first: Path, second: Path) -> None:
    for table in TABLES:
        assert _rows(first, table).equals(_rows(second, table)), table
    for table in ("item_embeddings", "user_embeddings"):
        one, two = _rows(first, table), _rows(second, table)
        assert one.drop_columns("embedding").equals(two.drop_columns("embedding"))
        vectors = [np.array(t["embedding"].combine_chunks().values) for t in (one, two)]
        np.testing.assert_allclose(*vectors, atol=1e-5)


def test_tables_do_not_depend_on_blocks_and_files(world: DemoWorld, plain: Path, tmp_path: Path) -> None:
    other = _run(world, tmp_path, "--num_parts", "3", small_blocks=True)
    assert len(list((other / "posts").glob("*.parquet"))) == 3
    _assert_same(plain, other)


def test_tables_do_not_depend_on_the_workers(world: DemoWorld, plain: Path, tmp_path: Path) -> None:
    flags = ("--", "--direct_running_mode=multi_processing", "--direct_num_workers=2")
    _assert_same(plain, _run(world, tmp_path, *flags))


def test_done_again_the_run_gives_the_same(world: DemoWorld, plain: Path) -> None:
    before = {table: _rows(plain, table) for table in TABLES}
    again = _run(world, plain.parents[1], "--force", "all")
    assert again == plain
    assert all(_rows(plain, table).equals(before[table]) for table in TABLES)


def test_a_run_that_is_killed_goes_on_to_the_same_tables(world: DemoWorld, plain: Path, tmp_path: Path) -> None:
    """Killed in fuse, then in a later stage; the third time it is left alone."""
    moments, output, scratch = random.Random(0), tmp_path / "out", tmp_path / "scratch"
    words = ["run", *_input(world), "--output", str(output)]
    done = []
    for stage in ("[3/8]", moments.choice(["[4/8]", "[5/8]", "[6/8]", "[7/8]"])):
        process = command.Command(words, scratch)
        process.wait_for(stage)
        process.sleep(moments.uniform(0, 1))  # each of them takes longer
        done.append(process.kill())
        assert done[-1].code == -9 and not (output / "LATEST").exists()
    last = command.run(words, scratch)
    assert last.code == 0, last.errors
    assert "took over the lock of pid" in last.errors[0]
    assert [line for line in last.errors if line.startswith("[1/8]")] == ["[1/8] ingest: skipped: unchanged"]
    _assert_same(plain, output / "runs" / world.run_date)
    assert (output / "LATEST").read_text() == f"{world.run_date}\n"
    left = [path.name for path in output.rglob("*")] + [path.name for path in scratch.glob("fusefeed-*")]
    assert not [name for name in left if STRAY.fullmatch(name) or name.startswith("fusefeed-")]


def test_a_disk_that_is_full_is_told_in_one_line(world: DemoWorld, plain: Path, tmp_path: Path) -> None:
    """No file may have more than 20,000 bytes; without the limit the same command goes on."""
    output, scratch = tmp_path / "out", tmp_path / "scratch"
    words = ["run", *_input(world), "--output", str(output)]
    limit = (20_000, 20_000)
    failed = command.run(words, scratch, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    check_one_line(failed, "File too large")
    assert failed.code == 1 and not (output / "LATEST").exists()
    assert command.run(words, scratch).code == 0
    _assert_same(plain, output / "runs" / world.run_date)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--pots", "x"], "unknown flag --pots, did you mean --posts?"),
        (["--k", "0"], "--k must be at least 1, got 0"),
        (["--posts", "none/*.jsonl"], "--posts: "),
        (["--posts", "README.txt"], "--posts: "),
        (["--media_root", "nowhere"], "--media_root: nowhere is not there"),
        (["--output", "/proc/nowhere"], "/proc/nowhere"),
        (["--", "--runer=X"], "unknown flag --runer=X after --"),
    ],
)
def test_bad_usage_exits_2_with_one_line(world: DemoWorld, tmp_path: Path, words: list[str], says: str) -> None:
    done = _fusefeed("run", *_input(world), "--output", str(tmp_path / "out"), *words)
    assert done.returncode == 2
    assert says in done.stderr and len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not (tmp_path / "out" / "LATEST").exists()


def test_a_stage_without_its_input_exits_2(tmp_path: Path) -> None:
    done = _fusefeed("extract", "--output", str(tmp_path), "--run_date", "2026-01-31")
    assert done.returncode == 2
    assert "run the stage that writes it before extract" in done.stderr


def test_a_run_that_fails_exits_1_and_publishes_nothing(world: DemoWorld, tmp_path: Path) -> None:
    """No post has any modality: there is nothing to train on."""
    posts = tmp_path / "posts.jsonl"
    posts.write_text('{"post_id": "a"}\n{"post_id": "b"}\n')
    words = ["--posts", str(posts), "--interactions", world.interactions, "--output", str(tmp_path / "out")]
    words.append("--no_evaluate")
    done = _fusefeed("run", *words)
    assert done.returncode == 1
    assert "failed: " in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "LATEST").exists()


def test_help_and_unknown_commands() -> None:
    assert "fusefeed COMMAND" in _fusefeed("--help").stdout
    assert _fusefeed("run", "--help").returncode == 0
    assert _fusefeed("recomend").returncode == 2
    assert _fusefeed().returncode == 2


def test_help_imports_neither_beam_nor_tensorflow() -> None:
    code = (
        "import sys; from pipelines import cli\n"
        "try: cli.main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'apache_beam', 'tensorflow', 'keras'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)

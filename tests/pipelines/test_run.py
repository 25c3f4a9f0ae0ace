"""What `run` does around its stages, with small stages of its own: resume, publishing, dates, old runs."""

import ast
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines import run
from pipelines.command_line import console
from pipelines.command_line.options import Options, RunError
from pipelines.stage import execute, fingerprint, reports
from pipelines.stage.declaration import Places, Stage
from pipelines.store import lock, paths, replace_run, runs
from tests.pipelines.flat_store import FlatStore
from transforms.tables import files, parquet

DAY = "2026-01-31"
SCHEMA = pa.schema([("x", pa.int64())])


def write(places: Places, table: str, value: int) -> None:
    block = pa.RecordBatch.from_pydict({"x": [value]})
    parquet.write_file(places.output(table) + "/part-00000.parquet", block, SCHEMA)


def value_of(directory: str, table: str) -> int:
    return int(parquet.read_file(f"{directory}/{table}/part-00000.parquet").column("x")[0].as_py())


def read_input(options: Options, places: Places) -> None:
    write(places, "raw", int(files.read_text(options.posts)))


def add_k(options: Options, places: Places) -> None:
    if options.seed == 13:
        raise ValueError("an unlucky number")
    write(places, "sum", value_of(places.run_dir, "raw") + options.k)


def add_latent(options: Options, places: Places) -> None:
    write(places, "other", options.latent)


def double(options: Options, places: Places) -> None:
    write(places, "double", 2 * value_of(places.run_dir, "sum") + 0 * value_of(places.run_dir, "other"))


STAGES = [
    Stage("ingest", (), ("raw",), read_input, tensorflow=False, files=("posts",)),
    Stage("extract", ("raw",), ("sum",), add_k, tensorflow=False, options=("k", "seed")),
    Stage("fuse", (), ("other",), add_latent, tensorflow=False, options=("latent",)),
    Stage("recommend", ("sum", "other"), ("double",), double, tensorflow=False, options=("similar_k",)),
]
NAMES = [each.name for each in STAGES]


class Output:
    """An output, and what the runs that were made there printed."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self.capsys = path / "out", capsys
        (path / "posts.jsonl").write_text("3")
        self.options = Options(
            posts=str(path / "posts.jsonl"), output=str(self.path), run_date=DAY, no_evaluate=True, no_gate=True
        )
        self.printed = self.errors = ""

    def run(self, stages: Sequence[Stage] = STAGES, **flags: Any) -> int:
        code = run.make_runs(dataclasses.replace(self.options, **flags), stages)
        self.printed, self.errors = self.capsys.readouterr()
        return code

    def said(self) -> dict[str, str]:
        """What was said of each stage."""
        lines = [line.partition("] ")[2] for line in self.errors.splitlines() if line.startswith("[")]
        return dict(line.split(": ", 1) for line in lines)

    def done(self) -> list[str]:
        return [name for name, what in self.said().items() if what != run.SKIPPED]

    def directory(self, day: str = DAY) -> Path:
        return self.path / "runs" / day

    def value(self, day: str = DAY) -> int:
        return value_of(str(self.directory(day)), "double")

    @property
    def latest(self) -> str:
        path = self.path / "LATEST"
        return path.read_text() if path.exists() else ""

    def state(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.path.rglob("*") if path.is_file()}


@pytest.fixture
def output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Output:
    return Output(tmp_path, capsys)


def test_done_again_everything_is_skipped_and_published_identically(output: Output) -> None:
    assert output.run() == 0
    assert output.said() == dict.fromkeys(NAMES, "not done yet")
    assert (output.value(), output.latest) == (2 * (3 + 50), f"{DAY}\n")
    before = output.state()
    assert output.run() == 0
    assert output.said() == dict.fromkeys(NAMES, run.SKIPPED)
    assert output.state() == before
    rows = json.loads(before[str(output.directory() / "metrics.json")])["stages"]["recommend"]["rows"]
    assert rows == {"double": 1}


@pytest.mark.parametrize(
    ("flags", "done", "why"),
    [
        ({"k": 7}, ["extract", "recommend"], ("extract", "--k was 50, is 7")),
        ({"similar_k": 7}, ["recommend"], ("recommend", "--similar_k was 20, is 7")),
        ({"latent": 7}, ["fuse", "recommend"], ("recommend", "fuse is done again")),
        ({"force": ("ingest",)}, ["ingest", "extract", "recommend"], ("ingest", "--force")),
        ({"force": ("fuse", "recommend")}, ["fuse", "recommend"], ("recommend", "--force")),
        ({"force": ("all",)}, NAMES, ("fuse", "--force")),
        ({"epochs": 7, "no_gate": True, "keep_runs": 3}, [], ("fuse", run.SKIPPED)),
    ],
)
def test_only_what_depends_on_a_flag_is_done_again(
    output: Output, flags: dict[str, Any], done: list[str], why: tuple[str, str]
) -> None:
    output.run()
    assert output.run(**flags) == 0
    assert output.done() == done
    assert output.said()[why[0]] == why[1]
    assert output.value() == 2 * (3 + flags.get("k", 50))
    assert sorted(path.name for path in output.path.iterdir()) == ["LATEST", "runs"]
    assert [path.name for path in (output.path / "runs").iterdir()] == [DAY]


def test_another_input_is_noticed(output: Output, tmp_path: Path) -> None:
    output.run()
    posts = tmp_path / "posts.jsonl"
    posts.write_text("44")
    output.run()
    assert output.said()["ingest"] == f"--posts: {posts} has changed from 1 to 2 bytes"
    assert (output.done(), output.value()) == (["ingest", "extract", "recommend"], 2 * (44 + 50))
    os.utime(posts, (0, 0))
    output.run()
    assert output.said()["ingest"] == f"--posts: {posts} has changed"


def test_another_version_is_noticed(output: Output) -> None:
    output.run()
    path = reports.report_path(str(output.directory()), "fuse")
    report = files.read_json(path)
    report["origin"]["versions"]["keras"] = "0.1"
    files.write_json(path, report)
    output.run()
    assert output.said()["fuse"] == f"keras was 0.1, is {fingerprint.versions()['keras']}"
    assert output.done() == ["fuse", "recommend"]


def damage_shard(directory: Path) -> None:
    os.truncate(directory / "sum" / "part-00000.parquet", 10)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (damage_shard, "sum/part-00000.parquet has 10 bytes, not "),
        (lambda run_dir: (run_dir / "sum" / "part-00000.parquet").unlink(), "sum/part-00000.parquet is gone"),
        (lambda run_dir: shutil.rmtree(run_dir / "sum"), "sum/part-00000.parquet is gone"),
        (
            lambda run_dir: shutil.copy(run_dir / "raw" / "part-00000.parquet", run_dir / "sum" / "part-00001.parquet"),
            "sum/part-00001.parquet is none of its files",
        ),
    ],
)
def test_a_table_that_was_damaged_is_made_anew(output: Output, harm: Any, why: str) -> None:
    output.run()
    harm(output.directory())
    assert output.run() == 0
    assert output.said()["extract"].startswith(why)
    assert (output.done(), output.value()) == (["extract", "recommend"], 2 * (3 + 50))


def test_a_table_damaged_between_stages_stops_the_run(output: Output) -> None:
    def harm(options: Options, places: Places) -> None:
        add_latent(options, places)
        damage_shard(Path(places.run_dir))

    stages = [*STAGES[:2], dataclasses.replace(STAGES[2], run=harm), STAGES[3]]
    with pytest.raises(
        RunError, match=r"recommend cannot read what extract left: sum/part-00000\.parquet has 10 bytes"
    ):
        output.run(stages)
    assert output.latest == ""
    output.capsys.readouterr()
    assert output.run() == 0
    assert (output.done(), output.value()) == (["extract", "recommend"], 2 * (3 + 50))


def test_a_table_damaged_at_the_end_is_not_published_and_the_same_command_mends_it(output: Output) -> None:
    def harm(options: Options, places: Places) -> None:
        double(options, places)
        damage_shard(Path(places.run_dir))

    message = (
        r"not published: sum/part-00000\.parquet has 10 bytes, not .*; run the same command again: it repeats extract"
    )
    with pytest.raises(RunError, match=message):
        output.run([*STAGES[:3], dataclasses.replace(STAGES[3], run=harm)])
    assert output.latest == "" and not (output.directory() / "manifest.json").exists()
    output.capsys.readouterr()
    assert output.run() == 0
    assert output.done()[0] == "extract"


def test_a_stage_that_leaves_no_table_is_not_published(output: Output) -> None:
    with pytest.raises(RunError, match="not published: missing/ has no files"):
        output.run([*STAGES, Stage("embed", (), ("missing",), add_latent, tensorflow=False)])
    assert output.latest == ""


def test_an_input_that_shrinks_while_it_is_read_fails_the_run(output: Output, tmp_path: Path) -> None:
    posts = tmp_path / "posts.jsonl"
    posts.write_text("345")

    def shrink(options: Options, places: Places) -> None:
        read_input(options, places)
        os.truncate(posts, 1)

    with pytest.raises(RunError, match=r"--posts: .*posts.jsonl has changed from 3 to 1 bytes while ingest read it"):
        output.run([dataclasses.replace(STAGES[0], run=shrink), *STAGES[1:]])
    assert output.latest == "" and not (output.directory() / "raw").exists()


def test_a_published_run_stays_whole_until_the_new_one_is(output: Output) -> None:
    output.run()
    before = output.state()
    with pytest.raises(ValueError, match="unlucky"):
        output.run(k=7, seed=13, latent=8)
    after = output.state()
    assert {path: data for path, data in after.items() if ".next" not in path} == before
    output.capsys.readouterr()
    assert output.run(k=7, latent=8) == 0
    assert output.value() == 2 * (3 + 7)
    assert [path.name for path in (output.path / "runs").iterdir()] == [DAY]


def test_what_was_begun_beside_a_published_run_goes_when_the_run_stands(output: Output) -> None:
    output.run()
    with pytest.raises(ValueError, match="unlucky"):
        output.run(seed=13)
    output.capsys.readouterr()
    output.run()
    assert output.done() == [] and [path.name for path in (output.path / "runs").iterdir()] == [DAY]


def test_directories_change_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        for name in ("old", "new"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "said").write_text(name)
        replace_run.put_in_place(str(tmp_path / "new"), str(tmp_path / "old"))
        assert [path.name for path in tmp_path.iterdir()] == ["old"]
        assert (tmp_path / "old" / "said").read_text() == "new"
        shutil.rmtree(tmp_path / "old")
        monkeypatch.setattr(replace_run, "exchange", lambda one, two: False)  # a system that cannot


def test_a_run_killed_between_two_renames_is_put_in_place(output: Output) -> None:
    output.run()
    output.directory().rename(str(output.directory()) + ".next")
    assert output.run() == 0
    assert output.done() == [] and output.latest == f"{DAY}\n"


def test_leftovers_of_killed_commands_are_removed(output: Output, tmp_path: Path) -> None:
    output.run()
    before, hexes = output.state(), "0123456789abcdef" * 2
    for folder in (f"runs/{DAY}/_fuse-{hexes}/x", f"runs/_clone-{hexes}", f"runs/_removed-{hexes}"):
        (output.path / folder).mkdir(parents=True)
        (output.path / folder / "part-00000.parquet").write_text("x")
    for file in (f"_{hexes}.tmp", f"runs/{DAY}/_{hexes}.tmp", f"runs/{DAY}/_stages/_{hexes}.tmp"):
        (output.path / file).write_text("x")
    local = Path(tempfile.gettempdir()) / (paths.local_prefix(str(output.path)) + "fuse-xyz")
    local.mkdir()
    output.run()
    assert output.state() == before and not local.exists()
    assert [path.name for path in (output.path / "runs").iterdir()] == [DAY]


def test_a_second_command_fails_at_once(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    with lock.hold(str(output.path)), pytest.raises(RunError, match="another command is at work"):
        output.run()
    options = Options(output=str(output.path), run_date=DAY)
    with lock.hold(str(output.path)):
        assert console.exit_code("fusefeed x", lambda: execute.command(STAGES[2], options) or 0) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not output.directory().exists()


def test_a_range_of_dates_is_a_run_each_and_a_failure_stops_no_other(output: Output) -> None:
    def fail_once(options: Options, places: Places) -> None:
        if options.run_name == "2026-01-02":
            raise OSError(28, "No space left on device", "x")
        add_k(options, places)

    stages = [STAGES[0], dataclasses.replace(STAGES[1], run=fail_once), *STAGES[2:]]
    assert output.run(stages, run_date="2026-01-01:2026-01-03") == 1
    assert "fusefeed run 2026-01-02: failed: [Errno 28] No space left on device: 'x'\n" in output.errors
    assert "Traceback" not in output.errors
    assert output.printed.splitlines()[-3:] == [
        "run 2026-01-01: published",
        "run 2026-01-02: failed",
        "run 2026-01-03: published",
    ]
    assert output.latest == "2026-01-03\n"
    assert output.run(run_date="2026-01-01:2026-01-03") == 0
    assert output.errors.count(run.SKIPPED) == 4 + 1 + 4
    assert output.latest == "2026-01-03\n"


def test_a_backfill_does_not_move_latest_back(output: Output) -> None:
    output.run()
    assert output.run(run_date="2026-01-05") == 0
    assert f"published, but LATEST still names {DAY}, which is newer" in output.errors
    assert output.latest == f"{DAY}\n"
    output.run(run_date="2026-02-01")
    assert "LATEST" not in output.errors and output.latest == "2026-02-01\n"
    assert runs.last_before(str(output.path), DAY) == "2026-01-05"
    assert runs.last_before(str(output.path), "2026-01-05") == ""
    assert runs.last_before(str(output.path), "2027-01-01") == "2026-02-01"


def test_latest_that_names_no_run_is_moved(output: Output) -> None:
    output.path.mkdir()
    (output.path / "LATEST").write_text("2030-01-01\n")
    assert output.run() == 0
    assert output.latest == f"{DAY}\n"


def test_old_runs_go_but_neither_latest_nor_what_is_newer(output: Output) -> None:
    output.run(run_date="2026-01-01:2026-01-04")
    (output.directory("2026-01-02") / "manifest.json").unlink()  # one that was never published
    (output.path / "runs" / "notes").mkdir()
    shutil.copytree(output.directory("2026-01-01"), output.directory("2026-01-09"))
    assert output.run(run_date="2026-01-05", keep_runs=2) == 0
    left = sorted(path.name for path in (output.path / "runs").iterdir())
    assert left == ["2026-01-04", "2026-01-05", "2026-01-09", "notes"]
    assert "run 2026-01-01 is removed (--keep_runs); run 2026-01-02 is removed" in output.errors
    assert output.run(run_date="2026-01-01", keep_runs=1) == 0  # the run just made stays
    left = sorted(path.name for path in (output.path / "runs").iterdir())
    assert left == ["2026-01-01", "2026-01-05", "2026-01-09", "notes"]
    assert output.latest == "2026-01-05\n"


def test_an_object_store_has_no_half_runs_either(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)
    FlatStore.objects.clear()
    there, hexes = "flat://bucket/out", "0123456789abcdef" * 2
    assert output.run(output=there) == 0
    latest, manifest = f"{there}/LATEST", f"{there}/runs/{DAY}/manifest.json"
    assert FlatStore.objects[latest][0].decode() == f"{DAY}\n"
    assert json.loads(FlatStore.objects[manifest][0])["files"]["double"].keys() == {"part-00000.parquet"}
    FlatStore.objects[f"{there}/runs/{DAY}/_fuse-{hexes}/x"] = FlatStore.objects[f"{there}/_{hexes}.tmp"] = (b"", 1.0)
    before = set(FlatStore.objects)
    assert output.run(output=there) == 0
    assert output.done() == []
    assert before - set(FlatStore.objects) == {path for path in before if hexes in path}
    with pytest.raises(ValueError, match="unlucky"):
        output.run(output=there, seed=13)
    assert not {latest, manifest} & set(FlatStore.objects)  # withdrawn before anything of it changed
    output.capsys.readouterr()
    assert output.run(output=there, k=7) == 0
    assert value_of(f"{there}/runs/{DAY}", "double") == 2 * (3 + 7)
    assert {latest, manifest} <= set(FlatStore.objects)


def test_the_flags_that_a_stage_reads_are_those_it_depends_on() -> None:
    """By the source of the stage's module: `options.NAME`; what only cuts or names the work is left out."""
    folder = Path(run.__file__).parent
    changes_nothing = {"output", "run_name", "beam_args", "media_root"}
    for each in run.all_stages():
        source = (folder / f"{each.name}.py").read_text()
        read = {
            node.attr
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "options"
        }
        assert read - changes_nothing <= set(fingerprint.option_names(each.options)) | set(each.files), each.name

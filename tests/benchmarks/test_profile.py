"""Profiles of stages: what the workers' threads do is in them, and the run whose tables they read stays as it was."""

import pstats
from pathlib import Path

import pytest

from benchmarks import profile
from pipelines.command_line.options import Options
from pipelines.publishing import publish
from pipelines.stage import reports
from pipelines.store import runs
from transforms.tables import files


def _files(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file()
    }


def test_a_made_world_is_profiled_and_used_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["extract", "--posts", "200", "--results", str(tmp_path), "--top", "5", "--clock", "wall"]
    assert profile.main([*words, "--", "--max_media_seconds", "7"]) == 0
    shown = capsys.readouterr().out
    assert "\nextract: " in shown and " CPU s, peak " in shown and "ingest: " in shown
    found = pstats.Stats(str(tmp_path / "extract-200-posts.prof"))
    calls = {f"{Path(file).name}:{name}": of[1] for (file, _, name), of in found.stats.items()}  # type: ignore[attr-defined]
    # A thread of the worker does this, for each of the table's eight parts.
    assert (
        sum(number for name, number in calls.items() if name.startswith("extract_features.py:Extractor._finish")) >= 8
    )
    assert (tmp_path / "extract-200-posts.txt").read_text().count("Ordered by: ") == 2
    world = _files(tmp_path / "worlds")
    assert profile.main(words) == 0
    assert "ingest: " not in capsys.readouterr().out
    assert _files(tmp_path / "worlds") == world


def test_a_run_that_is_there_lends_its_flags_and_tables(tmp_path: Path) -> None:
    world, run_dir = profile.make_world(tmp_path / "worlds" / "w", 200, "extract")
    output = Path(world.output)
    made = Options(**{**profile.dataclasses.asdict(world), "media_root": (str(tmp_path),)})
    manifest = publish.manifest(made, reports.read_reports(str(run_dir)), True)
    files.write_json(str(run_dir / runs.MANIFEST), manifest)
    runs.name_latest(str(output), run_dir.name)
    before = _files(output)
    assert profile.flags_of_run(output, "") == made
    report, cpu_seconds = profile.profile("extract", made, run_dir, tmp_path / "found", clock="none")
    assert report.rows["features"] == 200 and cpu_seconds > 0
    assert _files(output) == before and not (tmp_path / "found.prof").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fuze"], "invalid choice: 'fuze'"),
        ([], "the following arguments are required: stage"),
        (["fuse", "--posts", "20"], "--posts must be at least 200, got 20"),
        (["fuse", "--top", "0"], "--top must be at least 1, got 0"),
        (["fuse", "--posts", "300", "--run", "out"], "not allowed with argument --posts"),
        (["fuse", "--clock", "sun"], "invalid choice: 'sun'"),
    ],
)
def test_bad_usage_exits_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        profile.parse(words)
    assert exit.value.code == 2
    assert says in capsys.readouterr().err

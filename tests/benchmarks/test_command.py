"""The command: what it refuses, what it lists, what it leaves."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import harness

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ingst"], "unknown benchmark 'ingst', did you mean ingest?"),
        (["ingest", "qqq"], "unknown benchmark 'qqq', expected one of ingest, "),
        (["--scale", "0"], "--scale must be above 0 and at most 100, got 0.0"),
        (["--scale", "nan"], "--scale must be above 0"),
        (["--scale", "big"], "--scale: invalid float value: 'big'"),
        (["--repeats", "0"], "--repeats must be at least 1, got 0"),
        (["--threads", "-1"], "--threads must be at least 1, got -1"),
        (["--repeat", "3"], "unrecognized arguments: --repeat"),
    ],
)
def test_bad_usage_exits_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        command.main(words)
    assert exit.value.code == 2
    assert says in capsys.readouterr().err


def test_help_lists_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        command.main(["--help"])
    assert exit.value.code == 0
    shown = capsys.readouterr().out
    for name in command.NAMES:
        assert f"  {name} " in shown and harness.load(f"benchmarks.{name}").title in shown


def test_a_run_shows_a_table_and_leaves_json(tmp_path: Path) -> None:
    words = ["-m", "benchmarks", "help", "help", "--repeats", "1", "--results", str(tmp_path)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "seconds of --help" in done.stdout and "target <= 1" in done.stdout
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text())
    assert str(path) in done.stdout
    assert [result["name"] for result in found["results"]] == ["help"]
    assert found["settings"]["repeats"] == 1
    (sample,) = found["results"][0]["samples"]["python -c pass"]
    assert sample["seconds"] > 0 and 1e6 < sample["peak_bytes"] < 1e9


def test_a_benchmark_that_fails_is_told_and_exits_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.benchmarks import fake_benchmark as fake

    monkeypatch.setattr(harness, "load", lambda path: fake.made(fake.FAST, fake.BROKEN))
    assert command.main(["ingest", "--results", str(tmp_path)]) == 1
    assert "ingest: failed: " in capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    assert "the side fell over" in json.loads(path.read_text())["failures"]["ingest"]

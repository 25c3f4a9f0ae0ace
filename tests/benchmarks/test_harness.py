"""The harness on a benchmark whose times are known: order, medians, skipped peers, failures, memory."""

import json
from pathlib import Path

import pytest

from benchmarks import machine, report
from benchmarks.harness import OURS, Disagreement, Result, run, size
from benchmarks.process import ChildFailed, environment
from tests.benchmarks import fake_benchmark as fake


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("fake")
    sides = (fake.FAST, fake.SLOW, fake.ABSENT, fake.MOON, fake.IMPORT)
    return run(fake.made(*sides), folder, scale=0.5, repeats=3, threads=2), folder


def test_sides_take_turns_there_and_back(measured: tuple[Result, Path]) -> None:
    order = (measured[1] / "order").read_text().split()
    assert order == [OURS, "slow", "slow", OURS, OURS, "slow"]


def test_figures_are_ratios_of_medians_with_the_extremes_of_single_repetitions(measured: tuple[Result, Path]) -> None:
    speed, time, peak, lines = measured[0].figures
    assert (speed.value, speed.low, speed.high) == (3.0, 1.0, 3.0)
    assert speed.text == "speed of fusefeed against the best peer, slow"
    assert speed.target == ">= 2" and speed.met is True
    assert time.value == pytest.approx(1 / 3) and time.met is False
    assert peak.value > 0 and peak.met is None and peak.target == "<= 1e-09 at scale 1"
    assert (lines.value, lines.met) == (6.0, True)


def test_what_does_not_run_is_skipped_with_its_reason(measured: tuple[Result, Path]) -> None:
    assert measured[0].skipped == {
        "absent": "pytest_has_no_such_module not installed",
        "moon": "there is no moon tonight",
        "import": "cannot be imported: No module named 'pytest_has_no_such_module'",
    }
    text = report.table(measured[0])
    assert "skipped: there is no moon tonight" in text
    assert "against absent" not in text and "lines of absent" not in text


def test_the_table_shows_sides_sizes_and_verdicts(measured: tuple[Result, Path]) -> None:
    lines = report.table(measured[0]).splitlines()
    assert lines[0] == "fake: a fake (50 rows)"
    assert lines[2].split()[:4] == [OURS, "2.000", "1.000", "9.000"]
    assert any(line.endswith("target >= 2               met") for line in lines)
    assert any("target <= 0.1" in line and line.endswith("not met") for line in lines)


def test_json_holds_every_repetition_and_the_machine(measured: tuple[Result, Path], tmp_path: Path) -> None:
    value = report.to_json([measured[0]], {"other": "why"}, {"scale": 0.5}, machine.facts())
    read = json.loads(report.write(value, tmp_path / "results").read_text())
    samples = read["results"][0]["samples"]["slow"]
    assert [sample["seconds"] for sample in samples] == [3.0, 6.0, 9.0]
    assert read["failures"] == {"other": "why"}
    assert read["machine"]["cores"] >= 1 and read["machine"]["versions"]["numpy"]
    assert {"cpu", "settings", "blas", "load"} <= read["machine"].keys()


def test_settings_that_bear_on_speed_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert machine.facts()["settings"]["OPENBLAS_CORETYPE"] == "Haswell"


def test_memory_is_that_of_the_side_and_its_repetition(tmp_path: Path) -> None:
    result = run(fake.made(fake.FAST, fake.HUNGRY), tmp_path, scale=1, repeats=1, threads=1)
    light, heavy = (result.samples[name][0].peak_bytes for name in (OURS, "hungry"))
    assert 200e6 < heavy < 400e6
    assert light < heavy - 150e6


def test_sides_that_disagree_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(Disagreement, match=r"rows must be the same on all sides, got .*100.*99"):
        run(fake.made(fake.FAST, fake.OTHER), tmp_path, scale=1, repeats=1, threads=1)


def test_a_side_that_fails_tells_why(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="the side fell over"):
        run(fake.made(fake.FAST, fake.BROKEN), tmp_path, scale=1, repeats=1, threads=1)


def test_all_libraries_get_the_same_threads() -> None:
    made = environment(3)
    assert {made[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")} == {"3"}


def test_sizes_have_a_least() -> None:
    assert (size(1000, 0.1), size(1000, 0.0001, least=5)) == (100, 5)

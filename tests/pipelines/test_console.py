import pytest

from pipelines import console
from pipelines.options import UsageError


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def usage() -> int:
        raise UsageError("--k must be at least 1, got 0")

    def crash() -> int:
        raise OSError("no space left")

    assert console.exit_code("fusefeed run", lambda: 0) == 0
    assert console.exit_code("fusefeed run", usage) == 2
    assert capsys.readouterr().err == "fusefeed run: --k must be at least 1, got 0\n"
    assert console.exit_code("fusefeed run", crash) == 1
    assert capsys.readouterr().err.endswith("fusefeed run: failed: no space left\n")


def test_progress_lines() -> None:
    assert console.progress_line("extract", 0, 100, 3.21) == "extract: 3.2 s"
    assert console.progress_line("extract", 50, 0, 10) == "extract: 10 s, 50 rows, 5 rows/s"
    assert console.progress_line("extract", 50, 100, 10) == "extract: 10 s, 50 of 100 rows, 5 rows/s, 10 s left"


def test_durations() -> None:
    assert [console.duration(s) for s in (0.42, 59.4, 185, 7800)] == ["0.4 s", "59 s", "3 min 05 s", "2 h 10 min"]

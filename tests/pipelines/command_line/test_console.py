import io
import re
import time

import pytest

from pipelines.command_line import console
from pipelines.command_line.options import UsageError
from transforms.tables import progress as rows


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


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_at_a_terminal_and_lines_elsewhere(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(console, "PLAIN_SECONDS", 0.0)
    monkeypatch.setenv("COLUMNS", "200")
    until = time.monotonic() + 30
    with console.progress("train", 100):
        rows.advance(40)
        console.show_progress("epoch 3 of at most 9")
        while "epoch 3" not in screen.getvalue() and time.monotonic() < until:
            time.sleep(0.05)
    said = screen.getvalue()
    assert re.search(r"train: \d\.\d s, 40 of 100 rows, \d+ rows/s, \d\.\d s left, epoch 3 of at most 9", said)
    assert ("\x1b[" in said) == terminal
    assert said.endswith("\x1b[2K" if terminal else " 9\n")


def test_durations() -> None:
    assert [console.duration(s) for s in (0.42, 59.4, 185, 7800)] == ["0.4 s", "59 s", "3 min 05 s", "2 h 10 min"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "x"), "[Errno 28] No space left on device: 'x'"),
        (RuntimeError("OSError: [Errno 27] File too large [while running 'Write']"), "OSError: [Errno 27] File too"),
        (
            RuntimeError("Traceback:\n  f()\nOSError: [Errno 30] Read-only file system: 'x'\n"),
            "OSError: [Errno 30] Read-",
        ),
        (RuntimeError("errors_impl.ResourceExhaustedError: a.pb; No space left on device"), "errors_impl.Resource"),
    ],
)
def test_what_the_system_refuses_is_told_in_one_line(
    error: Exception, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.report_error("fusefeed run", error) == console.FAILED
    said = capsys.readouterr().err
    assert said.startswith(f"fusefeed run: failed: {says}") and said.count("\n") == 1


def test_what_nobody_foresaw_has_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("an unlucky number")
    except ValueError as error:
        assert console.report_error("fusefeed run", error) == console.FAILED
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("Traceback") and said[-1] == "fusefeed run: failed: an unlucky number"

import pytest

from pipelines.command_line import console
from pipelines.command_line.options import UsageError


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
    assert console.tell_error("fusefeed run", error) == console.FAILED
    said = capsys.readouterr().err
    assert said.startswith(f"fusefeed run: failed: {says}") and said.count("\n") == 1


def test_what_nobody_foresaw_has_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("an unlucky number")
    except ValueError as error:
        assert console.tell_error("fusefeed run", error) == console.FAILED
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("Traceback") and said[-1] == "fusefeed run: failed: an unlucky number"

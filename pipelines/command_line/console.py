"""Terminal output: progress (a moving line at a terminal, plain lines elsewhere), errors and exit codes."""

import contextlib
import errno
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator

from pipelines.command_line.options import RunError, UsageError

DONE, FAILED, BAD_USAGE, REFUSED = 0, 1, 2, 3
PLAIN_SECONDS = 15.0
_text = ""
# An OSError as text; TensorFlow reports a full disk with the system's message.
_SYSTEM_ERROR = re.compile(
    rf"[^\n]*(?:\[Errno \d+\]|{os.strerror(errno.ENOSPC)}|{os.strerror(errno.EROFS)}|{os.strerror(errno.EFBIG)})[^\n]*"
)


def exit_code(command: str, work: Callable[[], int]) -> int:
    """Exit code of the work: its own, 2 (and one line) for bad usage, 1 if it failed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with _interrupted_by_sigterm():
            return work()
    except KeyboardInterrupt:
        print(f"{command}: interrupted", file=sys.stderr)
        return FAILED
    except Exception as error:
        return report_error(command, error)


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Treats SIGTERM, with which schedulers stop a job, as Ctrl-C, so that temporary files and the lock are removed."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals are handled there alone
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def report_error(command: str, error: Exception) -> int:
    """Prints an error, with a traceback if it is unexpected. Returns the exit code."""
    if isinstance(error, UsageError | RunError):
        print(f"{command}: {error}", file=sys.stderr)
        return BAD_USAGE if isinstance(error, UsageError) else FAILED
    message = environment_error(error)
    if not message:
        traceback.print_exception(error)
    print(f"{command}: failed: {message or error}", file=sys.stderr)
    return FAILED


def environment_error(error: BaseException) -> str:
    """One-line message of an operating system error (a full disk, a missing file); "" for all other errors.

    Beam's runner passes on an error of a worker as text that ends with it.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return str(error)
    found = _SYSTEM_ERROR.findall(str(error))
    return found[-1] if found else ""


def show_progress(text: str) -> None:
    """Shows a text in the progress display that is running, in the place of the last one."""
    global _text
    _text = text


@contextlib.contextmanager
def progress(name: str, total: int) -> Iterator[None]:
    """Shows progress while the block runs: a bar at a terminal, a line every PLAIN_SECONDS elsewhere.

    Args:
      name: of the stage.
      total: rows of the work; 0 if unknown. Workers in other processes are not seen here: without rows only the time
        that has passed is shown.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress

    from transforms.tables import progress as work_done

    show_progress("")
    terminal = sys.stderr.isatty()
    bar = Progress(
        BarColumn(),
        "{task.description}",
        console=Console(stderr=True, force_terminal=terminal),
        refresh_per_second=2,
        transient=True,
        redirect_stdout=False,
        disable=not terminal,
    )
    task = bar.add_task(name, total=None)
    first, began = work_done.rows(), time.monotonic()
    stop = threading.Event()

    def show() -> None:
        next_line = PLAIN_SECONDS
        while not stop.wait(0.5):
            rows, seconds = work_done.rows() - first, time.monotonic() - began
            line = progress_line(name, rows, total, seconds) + (f", {_text}" if _text else "")
            bar.update(task, description=line, completed=rows, total=total if rows and total else None)
            if not terminal and seconds >= next_line:
                next_line = seconds + PLAIN_SECONDS
                print(line, file=sys.stderr, flush=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        with bar:
            yield
    finally:
        stop.set()
        thread.join()


def progress_line(name: str, rows: int, total: int, seconds: float) -> str:
    """One line: the stage, its rows of the total, rows a second and the time left, as far as they are known."""
    line = f"{name}: {duration(seconds)}"
    if not rows:
        return line
    rate = rows / max(seconds, 1e-9)
    if not total:
        return f"{line}, {rows:,} rows, {rate:,.0f} rows/s"
    left = max(total - rows, 0) / rate
    return f"{line}, {min(rows, total):,} of {total:,} rows, {rate:,.0f} rows/s, {duration(left)} left"


def duration(seconds: float) -> str:
    """Seconds for a reader: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _is_relevant(record: logging.LogRecord) -> bool:
    # Beam logs this for every transform with several named inputs or outputs, which its own style guide recommends.
    return "type hint will be ignored and not used for type-checking" not in str(record.msg)


logging.getLogger("apache_beam").setLevel(logging.ERROR)
# An error of a step is also raised, and printed once.
logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
logging.getLogger().addFilter(_is_relevant)

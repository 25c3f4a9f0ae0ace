"""Process-wide counter of processed rows, for the progress display of a driver that runs the pipeline itself."""

import threading

_lock = threading.Lock()
_rows = 0


def advance(rows: int) -> None:
    """Adds to the number of processed rows."""
    global _rows
    with _lock:
        _rows += rows


def rows() -> int:
    """Number of rows processed by this process since its start."""
    return _rows

"""How far the work of this process has come, for whoever shows it (the driver, when it runs the pipeline itself)."""

import threading

_lock = threading.Lock()
_rows = 0


def advance(rows: int) -> None:
    """Adds rows that have been worked on."""
    global _rows
    with _lock:
        _rows += rows


def rows() -> int:
    """Rows worked on by this process since it began."""
    return _rows

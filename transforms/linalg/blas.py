"""Single-threaded BLAS, for work with its own threads or products too small to parallelize."""

import contextlib
import threading
from collections.abc import Iterator

from threadpoolctl import threadpool_limits


class _Limit:
    """Reference-counted BLAS thread limit: process-wide, set by the first holder and lifted by the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._limits: threadpool_limits | None = None

    def hold(self) -> None:
        with self._lock:
            if self._limits is None:
                self._limits = threadpool_limits(limits=1, user_api="blas")
            self._holders += 1

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if not self._holders and self._limits is not None:
                self._limits.restore_original_limits()
                self._limits = None


_LIMIT = _Limit()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limits BLAS to the calling thread inside the context; applies to all threads of the process meanwhile."""
    _LIMIT.hold()
    try:
        yield
    finally:
        _LIMIT.release()

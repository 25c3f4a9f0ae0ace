"""The lock on an output: one command at a time works there; a second one is refused with the name of the first.

OUTPUT/LOCK names the holder, in JSON. Locally that file is locked by the system, which ends the lock with its process.
Beam has no locks for object stores: there LOCK is written, read again after SETTLE_SECONDS (the last writer holds the
lock) and written again every BEAT_SECONDS. It is stale when that has not happened for STALE_SECONDS, by the clock of
the store. Two commands that begin within SETTLE_SECONDS exclude each other if a write is seen in less than that.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator

import fasteners

from pipelines.command_line.console import duration
from pipelines.command_line.options import RunError, UsageError
from transforms.tables import files

NAME = "LOCK"
BEAT_SECONDS = 20.0
STALE_SECONDS = 300.0
SETTLE_SECONDS = 2.0
_MAX_COMMAND = 200
# Local locks of this process. The system excludes other processes only, and drops the lock when the process closes the
# file, however it opened it: a lock file of our own must not even be read.
_held: set[str] = set()


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
      id: of the lock, random.
      host: the machine's name.
      pid: the process id.
      since: ISO 8601, UTC.
      command: the words of the command.
    """

    id: str
    host: str
    pid: int
    since: str
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host} since {self.since} ({self.command})"


UNKNOWN = Holder("", "an unknown host", 0, "an unknown time", "an unknown command")


@dataclasses.dataclass(frozen=True)
class Lock:
    """A lock held by this process; `file` is None on an object store."""

    path: str
    holder: Holder
    file: fasteners.InterProcessLock | None = None

    def check(self) -> None:
        """Checks that the lock is still held: its file may have been removed, or taken over while the machine slept.

        Raises:
          RunError: it is not held; nothing may be written any more.
        """
        if self.file is not None and _is_at(self.file, self.path):
            return
        found = read(self.path)
        if self.file is not None or found is None or found.id != self.holder.id:
            now = "removed" if found is None else f"taken over by {found}"
            raise RunError(f"the lock {self.path} was {now}; nothing more is written")


@contextlib.contextmanager
def hold(output: str) -> Iterator[Lock]:
    """Holds the lock on an output while the block runs.

    Raises:
      RunError: another command holds it; the message names that.
      UsageError: the output cannot be written.
    """
    path = files.join(output, NAME)
    words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
    command = " ".join(shlex.join(words).split())
    shown = command if len(command) <= _MAX_COMMAND else command[:_MAX_COMMAND] + "..."
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    me = Holder(files.new_id(), socket.gethostname(), os.getpid(), now, shown)
    with _hold_file(path, me) if files.is_local(path) else _hold_object(path, me) as lock:
        yield lock


def read(path: str) -> Holder | None:
    """Holder named in a lock file; None if there is no file."""
    try:
        return Holder(**json.loads(files.read_text(path)))
    except OSError:
        return None
    except (ValueError, TypeError):
        return UNKNOWN


def _in_use(path: str, holder: Holder) -> RunError:
    return RunError(f"another command is at work here: {holder}; {path} goes with it")


def _text(holder: Holder) -> str:
    return json.dumps(dataclasses.asdict(holder), indent=1) + "\n"


@contextlib.contextmanager
def _hold_file(path: str, me: Holder) -> Iterator[Lock]:
    real = os.path.realpath(path)
    if real in _held:
        raise _in_use(path, me)
    try:
        file = _lock_file(path)
        file.lockfile.truncate(0)
        file.lockfile.write(_text(me))
        file.lockfile.flush()
    except (OSError, threading.ThreadError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{os.path.dirname(path)} cannot be written: {reason}") from None
    _held.add(real)
    try:
        yield Lock(path, me, file)
    finally:
        _held.discard(real)
        with contextlib.suppress(OSError):
            if _is_at(file, path):
                os.remove(path)
        file.release()


def _lock_file(path: str) -> fasteners.InterProcessLock:
    """The lock of a file.

    Raises:
      RunError: another process holds it.
    """
    while True:
        before = read(path)
        file = fasteners.InterProcessLock(path)
        if not file.acquire(blocking=False):
            file.lockfile.close()
            raise _in_use(path, read(path) or UNKNOWN)
        if _is_at(file, path):
            if before is not None and os.path.getsize(path):
                print(f"took over the lock of {before}: its process is gone", file=sys.stderr, flush=True)
            return file
        file.release()  # of a file that its holder has removed since we opened it


def _is_at(file: fasteners.InterProcessLock, path: str) -> bool:
    """True if an open lock file is still the one at its path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.lockfile.fileno()))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _hold_object(path: str, me: Holder) -> Iterator[Lock]:
    before = read(path)
    if before is not None:
        age = _age(path, me)
        if age <= STALE_SECONDS:
            raise _in_use(path, before)
        print(f"took over the lock of {before}: no heartbeat for {duration(age)}", file=sys.stderr, flush=True)
    files.write_text(path, _text(me))
    time.sleep(SETTLE_SECONDS)
    settled = read(path)
    if settled != me:
        raise _in_use(path, settled or UNKNOWN)
    lock, stop = Lock(path, me), threading.Event()
    thread = threading.Thread(target=_beat, args=(lock, stop), daemon=True)
    thread.start()
    try:
        yield lock
    finally:
        stop.set()
        thread.join()
        with contextlib.suppress(OSError, RunError):
            lock.check()
            files.delete(path)


def _age(path: str, me: Holder) -> float:
    """Seconds since an object was written, by the store's own clock; 0 if that is unknown."""
    probe = files.join(os.path.dirname(path), f"_{me.id}.tmp")
    files.write_text(probe, "")
    states = [files.read_state(each) for each in (probe, path)]
    files.delete(probe)
    now, then = (state.modified if state else 0.0 for state in states)
    return now - then if now and then else 0.0


def _beat(lock: Lock, stop: threading.Event) -> None:
    while not stop.wait(BEAT_SECONDS):
        # The next beat makes up for one that fails (the store is away for a while).
        with contextlib.suppress(OSError, RunError):
            lock.check()
            files.write_text(lock.path, _text(lock.holder))

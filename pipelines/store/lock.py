"""The lock on an output: one command at a time works there, and whoever comes second is told who was first.

OUTPUT/LOCK says in JSON who that is; how long ago it was touched is the heartbeat. A lock is stale when its process is
gone (told on the same machine and in the same container) or, seen from elsewhere, when its heartbeat has stopped for
STALE_SECONDS; ages are told by the clock of the file system, not by those of the machines.

Locally the lock is taken with one atomic `link`, and a stale one is replaced under `flock`: exactly one can have it.
Object stores have no such operation in Beam: there the lock is written, left to settle and read again, the last writer
has it. Two that begin within SETTLE_SECONDS are told apart as long as a write takes less than that to be seen.
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import glob
import json
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator

from pipelines.command_line.console import duration
from pipelines.command_line.options import RunError, UsageError
from transforms.tables import files

NAME = "LOCK"
BEAT_SECONDS = 20.0
STALE_SECONDS = 300.0
SETTLE_SECONDS = 2.0
_MAX_COMMAND = 200


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
      id: of the lock, never the same twice.
      host: the machine's name.
      place: where process ids mean the same: this start of the system and its namespace; "" where that is not known.
      pid: the process.
      started: when that process began, in the system's ticks: a process id is given away again; "" where not known.
      since: when the lock was taken, ISO 8601, UTC.
      command: the words of the command.
    """

    id: str
    host: str
    place: str
    pid: int
    started: str
    since: str
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host} since {self.since} ({self.command})"


UNKNOWN = Holder("", "an unknown host", "?", 0, "", "an unknown time", "an unknown command")


class Lock:
    """A lock that this process has."""

    def __init__(self, path: str, me: Holder) -> None:
        self.path = path
        self.me = me

    def check(self) -> None:
        """Finds out whether the lock is still ours: a machine that slept too long may have lost it.

        Raises:
          RunError: it is not; nothing may be written any more.
        """
        holder = read(self.path)
        if holder is None or holder.id != self.me.id:
            now = "removed" if holder is None else f"taken over by {holder}"
            raise RunError(f"the lock {self.path} was {now}; nothing more is written")


@contextlib.contextmanager
def hold(output: str) -> Iterator[Lock]:
    """Has the lock on an output while the block runs.

    Raises:
      RunError: another command has it; the message says who.
      UsageError: the output cannot be written.
    """
    path = f"{output.rstrip('/')}/{NAME}"
    me = _me()
    stale = _take_local(path, me) if files.is_local(path) else _take_remote(path, me)
    if stale:
        print(f"took over the lock of {stale}", file=sys.stderr, flush=True)
    lock, stop = Lock(path, me), threading.Event()
    thread = threading.Thread(target=_beat, args=(lock, stop), daemon=True)
    thread.start()
    try:
        yield lock
    finally:
        stop.set()
        thread.join()
        # What cannot be removed (the output has become read-only, say) is found stale by whoever comes next.
        with contextlib.suppress(OSError, RunError):
            lock.check()
            _remove(path)


def read(path: str) -> Holder | None:
    """Who holds the lock; None where nobody does."""
    try:
        return _parse(files.read_text(path))
    except OSError:
        if files.is_local(path) and os.path.exists(path):
            return UNKNOWN
        return None


def why_stale(holder: Holder, age: float) -> str:
    """Why the lock does not count any more; "" where it does.

    Args:
      holder: who has it.
      age: seconds since its last heartbeat.
    """
    if holder.place == _place() and holder.host == socket.gethostname():
        return "" if _started(holder.pid) == holder.started else "its process is gone"
    return f"no heartbeat for {duration(age)}" if age > STALE_SECONDS else ""


def _me() -> Holder:
    words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
    command = " ".join(shlex.join(words).split())
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    pid = os.getpid()
    shown = command if len(command) <= _MAX_COMMAND else command[:_MAX_COMMAND] + "..."
    return Holder(uuid.uuid4().hex, socket.gethostname(), _place(), pid, _started(pid), now, shown)


def _place() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began; "gone" where there is none (or one that is dead and not buried yet)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, *fields = file.read().rpartition(")")[2].split()
        return "gone" if state in "ZXx" else fields[18]
    except (OSError, IndexError):
        if os.path.exists("/proc/self/stat"):
            return "gone"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except PermissionError:
        pass
    return ""


def _parse(text: str) -> Holder:
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return UNKNOWN


def _text(holder: Holder) -> str:
    return json.dumps(dataclasses.asdict(holder), indent=1) + "\n"


def _in_use(path: str, holder: Holder) -> RunError:
    return RunError(f"another command is at work here: {holder}; {path} goes with it")


def _take_local(path: str, me: Holder) -> str:
    """Takes a local lock. Returns whose stale one it was and why; "" where there was none."""
    temporary = f"{path}-{me.id}"
    try:
        while True:
            _write_candidate(temporary, me)
            # Not found: whoever has the lock has swept it away.
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                _link(temporary, path)
                return ""
            stale = _replace_stale(path, temporary)
            if stale:
                return stale
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


def _write_candidate(temporary: str, me: Holder) -> None:
    directory = os.path.dirname(temporary)
    try:
        os.makedirs(directory, exist_ok=True)
        with open(temporary, "w") as file:
            file.write(_text(me))
    except OSError as error:
        raise UsageError(f"{directory} cannot be written: {error.strerror}") from None


def _link(temporary: str, path: str) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        with open(path, "x") as lock, open(temporary) as file:  # a file system without links
            lock.write(file.read())


def _replace_stale(path: str, temporary: str) -> str:
    """Puts our lock in the place of one that does not count; "" where it is there no more, so that all begins anew."""
    with contextlib.suppress(FileNotFoundError), open(path) as file:
        with contextlib.suppress(OSError):  # not every file system has it
            fcntl.flock(file, fcntl.LOCK_EX)
        found = os.stat(path)
        if found.st_ino != os.fstat(file.fileno()).st_ino:
            return ""
        holder = _parse(file.read())
        os.utime(temporary)
        why = why_stale(holder, os.stat(temporary).st_mtime - found.st_mtime)
        if not why:
            raise _in_use(path, holder)
        os.replace(temporary, path)
        return f"{holder}: {why}"
    return ""


def _take_remote(path: str, me: Holder) -> str:
    """Takes the lock of an object store. Returns whose stale one it was and why; "" where there was none."""
    holder, stale = read(path), ""
    if holder is not None:
        why = why_stale(holder, _age(path, me))
        if not why:
            raise _in_use(path, holder)
        stale = f"{holder}: {why}"
    files.write_text(path, _text(me))
    time.sleep(SETTLE_SECONDS)
    settled = read(path)
    if settled is None or settled.id != me.id:
        raise _in_use(path, settled or UNKNOWN)
    return stale


def _age(path: str, me: Holder) -> float:
    """Seconds since an object was written, by the store's own clock; 0 where it does not tell."""
    probe = f"{path.rsplit('/', 1)[0]}/_{me.id}.tmp"
    files.write_text(probe, "")
    try:
        now, then = (files.match(each)[0].modified for each in (probe, path))
    finally:
        _remove(probe)
    return now - then if now and then else 0.0


def sweep(output: str) -> None:
    """Removes what processes have left that were killed while they took a local lock; those alive write it anew."""
    for temporary in glob.glob(f"{glob.escape(output)}/{NAME}-*"):
        with contextlib.suppress(OSError):
            os.remove(temporary)


def _remove(path: str) -> None:
    files.delete(path)


def _beat(lock: Lock, stop: threading.Event) -> None:
    while not stop.wait(BEAT_SECONDS):
        # A beat that fails (the output is full, or away for a while) is made up for by the next.
        with contextlib.suppress(OSError, RunError):
            lock.check()
            if files.is_local(lock.path):
                os.utime(lock.path)
            else:
                files.write_text(lock.path, _text(lock.me))

"""The process in which media are decoded: `python -m transforms.decoder_process`, started by a worker.

Reads files from standard input and answers on standard output (`transforms.decoder_messages`), until its
input ends. It can open no file and no connection, write no file, and hold no more memory than it is told; a file that
takes too long ends it.
"""

import importlib
import os
import pkgutil
import queue
import resource
import signal
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any

import av
import numpy as np

from transforms.decode import decode_medium
from transforms.decoder_messages import describe_arrays, read_message, write_message
from transforms.media import MediaError, MediaLimits
from transforms.video import VideoSample, video_features

_MIB = 1 << 20


def main() -> None:
    """Decodes until standard input ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    settings = read_message(requests, 0)
    if settings is None:
        return
    limits = MediaLimits(**settings[0]["limits"])
    preload()
    confine(limits.max_decode_mib)
    write_message(answers, {"ready": True})
    answers.flush()
    serve(requests, answers, limits, settings[0]["wanted"])


def preload() -> None:
    """Imports what PyAV and numpy import only when they first need it: later they could not."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith(("__main__", ".datasets")):
            importlib.import_module(module.name)
    black, level = np.zeros((64, 64, 3), np.uint8), np.zeros(3, np.float32)
    video_features(VideoSample([black, black], 3, 1.0, level[1:], level))


def confine(max_mib: int) -> None:
    """Gives up what decoding does not need, for good: files, connections, more memory than `max_mib`, core dumps."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0] if sys.platform != "linux" else 1 << 16)
    # An interrupt from the keyboard is the worker's to handle. The alarm must end this process whatever it inherited.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    if sys.platform == "linux":
        most = _data_bytes() + max_mib * _MIB
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    for limit, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 3)):
        resource.setrlimit(limit, (most, most))


def _data_bytes() -> int:
    """What counts against RLIMIT_DATA by now."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmData:"))


def serve(requests: IO[bytes], answers: IO[bytes], limits: MediaLimits, wanted: Mapping[str, bool]) -> None:
    """Answers each file as soon as it is decoded, until there are no more.

    Another thread takes what comes meanwhile: the worker never waits to write while this process waits to write, too.
    """
    taken: queue.SimpleQueue[tuple[dict[str, Any], bytes] | None] = queue.SimpleQueue()
    threading.Thread(target=_take, args=(requests, limits.max_bytes, taken), daemon=True).start()
    while (message := taken.get()) is not None:
        head, data = message
        signal.setitimer(signal.ITIMER_REAL, limits.max_decode_seconds)
        answer, body = _answer(head["kind"], data, limits, wanted)
        signal.setitimer(signal.ITIMER_REAL, 0)
        write_message(answers, answer, *body)
        answers.flush()


def _take(requests: IO[bytes], max_bytes: int, taken: "queue.SimpleQueue[tuple[dict[str, Any], bytes] | None]") -> None:
    message: tuple[dict[str, Any], bytes] | None = None
    try:
        while (message := read_message(requests, max_bytes)) is not None:
            taken.put(message)
    finally:
        taken.put(None)


def _answer(
    kind: str, data: bytes, limits: MediaLimits, wanted: Mapping[str, bool]
) -> tuple[dict[str, Any], list[Any]]:
    try:
        arrays = decode_medium(kind, data, limits, wanted)
    except MediaError as error:
        return {"code": error.code, "message": error.message}, []
    return {"arrays": describe_arrays(arrays)}, list(arrays.values())


if __name__ == "__main__":
    main()

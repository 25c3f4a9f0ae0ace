"""The process in which media are decoded: `python -m transforms.media.sandbox_main`, started by a worker.

Receives on standard input where files lie in the memory that it shares with the worker, and answers on standard output
(`transforms.media.sandbox_protocol`), until its input ends. It can open no file and no connection, write
no file, and hold no more memory than its limit; a file that takes too long ends it.
"""

import importlib
import mmap
import os
import pkgutil
import resource
import signal
import sys
from collections.abc import Mapping
from typing import IO, Any

import av
import numpy as np

from transforms.media.decode import NO_MEMORY, decode_medium
from transforms.media.media_files import MediaError, MediaLimits
from transforms.media.sandbox_protocol import describe_arrays, read_message, write_message
from transforms.media.shared_memory import reading
from transforms.media.video import VideoSample, video_features

_MIB = 1 << 20


def main() -> None:
    """Decodes until standard input ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    settings = read_message(requests, 0)
    if settings is None:
        return
    told = settings[0]
    limits, media = MediaLimits(**told["limits"]), reading(told["media"], told["size"])
    preload()
    confine(limits.max_decode_mib, told["errors"])
    write_message(answers, {"ready": True})
    answers.flush()
    serve(requests, answers, media, limits, told["wanted"])


def preload() -> None:
    """Imports what PyAV, Pillow and numpy import only when they first need it: later they could not."""
    importlib.import_module("PIL.ImageCms")
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith(("__main__", ".datasets")):
            importlib.import_module(module.name)
    black, level = np.zeros((64, 64, 3), np.uint8), np.zeros(3, np.float32)
    video_features(VideoSample([black, black], 3, 1.0, level[1:], level))


def confine(max_mib: int, errors: int) -> None:
    """Gives up what decoding does not need, for good: files, connections, more memory than `max_mib`, core dumps.

    Args:
      max_mib: memory from now on, in MiB.
      errors: a pipe in the place of standard error, for last words; whoever does not read it holds nobody up.
    """
    os.set_blocking(errors, False)
    os.dup2(errors, 2)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0] if sys.platform != "linux" else 1 << 16)
    # An interrupt from the keyboard is the worker's to handle. The alarm must end this process whatever it inherited.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    if sys.platform == "linux":
        most = data_bytes() + max_mib * _MIB
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    for limit, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 3)):
        resource.setrlimit(limit, (most, most))


def data_bytes() -> int:
    """Bytes currently counted against RLIMIT_DATA."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmData:"))


def serve(
    requests: IO[bytes], answers: IO[bytes], media: mmap.mmap, limits: MediaLimits, wanted: Mapping[str, bool]
) -> None:
    """Answers each file as soon as it is decoded, until there are no more."""
    while (message := read_message(requests, 0)) is not None:
        signal.setitimer(signal.ITIMER_REAL, limits.max_decode_seconds)
        answer, body = _answer(message[0], media, limits, wanted)
        signal.setitimer(signal.ITIMER_REAL, 0)
        write_message(answers, answer, *body)
        answers.flush()


def _answer(
    asked: Mapping[str, Any], media: mmap.mmap, limits: MediaLimits, wanted: Mapping[str, bool]
) -> tuple[dict[str, Any], list[Any]]:
    try:
        arrays = decode_medium(asked["kind"], media[asked["begin"] : asked["end"]], limits, wanted)
    except MediaError as error:
        return {"code": error.code, "message": error.message}, []
    except MemoryError:
        return {"code": "decoder_memory", "message": NO_MEMORY}, []
    return {"arrays": describe_arrays(arrays)}, list(arrays.values())


if __name__ == "__main__":
    main()

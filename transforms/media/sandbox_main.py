"""The process in which media are decoded: `python -m transforms.media.sandbox_main`, started by a worker.

Receives the places of files in the memory that it shares with the worker on standard input, and responds on standard
output (`transforms.media.sandbox_protocol`), until its input ends. It cannot open files or connections, and its memory
is limited; a file that takes too long ends it.
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
    requests, responses = sys.stdin.buffer, sys.stdout.buffer
    message = read_message(requests, 0)
    if message is None:
        return
    settings = message[0]
    limits, media = MediaLimits(**settings["limits"]), reading(settings["media"], settings["size"])
    preload()
    confine(limits.max_decode_mib, settings["errors"])
    write_message(responses, {"ready": True})
    responses.flush()
    serve(requests, responses, media, limits, settings["wanted"])


def preload() -> None:
    """Imports the modules that PyAV, Pillow and numpy import on first use: a confined process cannot."""
    importlib.import_module("PIL.ImageCms")
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith(("__main__", ".datasets")):
            importlib.import_module(module.name)
    black, level = np.zeros((64, 64, 3), np.uint8), np.zeros(3, np.float32)
    video_features(VideoSample([black, black], 3, 1.0, level[1:], level))


def confine(max_mib: int, errors: int) -> None:
    """Irrevocably gives up files, connections, core dumps, and memory beyond `max_mib`.

    Args:
      max_mib: memory from now on, in MiB.
      errors: a pipe that becomes standard error; it never blocks, also where nobody reads it.
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
    requests: IO[bytes], responses: IO[bytes], media: mmap.mmap, limits: MediaLimits, wanted: Mapping[str, bool]
) -> None:
    """Decodes the files of the requests, each answered at once, until there are no more."""
    while (message := read_message(requests, 0)) is not None:
        signal.setitimer(signal.ITIMER_REAL, limits.max_decode_seconds)
        head, body = _decode(message[0], media, limits, wanted)
        signal.setitimer(signal.ITIMER_REAL, 0)
        write_message(responses, head, *body)
        responses.flush()


def _decode(
    request: Mapping[str, Any], media: mmap.mmap, limits: MediaLimits, wanted: Mapping[str, bool]
) -> tuple[dict[str, Any], list[Any]]:
    try:
        arrays = decode_medium(request["kind"], media[request["begin"] : request["end"]], limits, wanted)
    except MediaError as error:
        return {"code": error.code, "message": error.message}, []
    except MemoryError:
        return {"code": "decoder_memory", "message": NO_MEMORY}, []
    return {"arrays": describe_arrays(arrays)}, list(arrays.values())


if __name__ == "__main__":
    main()

"""A decoder process whose picture decoder does what a file's first word says, as broken files make real ones do."""

import contextlib
import os
import socket
import sys
import time

import numpy as np

from transforms.media import image_decode, sandbox_main
from transforms.media.media_files import MediaLimits

held: list[object] = []
decode_image = image_decode.decode_image


def decode(data: bytes, limits: MediaLimits) -> np.ndarray:
    word = data[:16].split(b" ")[0].decode("latin-1")
    if word == "abort":
        os.abort()
    elif word == "exit":
        os._exit(7)
    elif word == "hang":
        time.sleep(600)
    elif word == "spin":
        while True:
            pass
    elif word == "eat":
        held.extend(np.ones(8 << 20, np.uint8) for _ in range(1 << 20))
    elif word == "leak":
        held.append(np.ones(24 << 20, np.uint8))
    elif word == "spoil":
        held.append("spoilt")
    elif word == "frail" and held:
        os.abort()
    elif word == "junk":
        sys.stdout.buffer.write(b"\xff" * 64)
        sys.stdout.buffer.flush()
    elif word == "type":
        return np.ones((1, 1, 3), np.complex64)
    elif word == "open":
        open(__file__).close()
    elif word == "connect":
        socket.create_connection(("127.0.0.1", 9))
    elif word == "write":
        os.write(2, b"post content")
    elif word in ("throw", "noise"):
        os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n" if word == "throw" else data)
        os.abort()
    elif word == "chatty":
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(2, bytes(1 << 16))
    elif word == "wait":
        time.sleep(0.2)
    elif word not in ("frail", "fine"):
        return decode_image(data, limits)
    return np.full((1, 1, 3), len(data), np.uint8)


if __name__ == "__main__":
    image_decode.decode_image = decode
    sandbox_main.main()

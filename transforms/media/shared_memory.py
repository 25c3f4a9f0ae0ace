"""Bytes of media in memory that a worker writes and its decoder process only reads: no pipe, no copy on the way.

Data passed this way do not count against its own limit of memory, however much of it waits.
"""

import mmap
import os
import sys
import tempfile
import weakref
from collections.abc import Sequence


class SharedMedia:
    """Room for two groups of files: one that is decoded and one that waits.

    Memory is taken as it is written to, and kept until `close`.

    Args:
      group_bytes: what the files of one group have at most, together.
    """

    def __init__(self, group_bytes: int) -> None:
        self.size = 2 * group_bytes
        self._group_bytes, self._num_groups = group_bytes, 0
        if sys.platform == "linux":
            self.fd = os.memfd_create("media")
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        self._close = weakref.finalize(self, os.close, self.fd)
        os.ftruncate(self.fd, self.size)
        self._memory = mmap.mmap(self.fd, self.size)

    def put(self, files: Sequence[bytes]) -> list[tuple[int, int]]:
        """Writes a group in the place of the last but one; (begin, end) of each file.

        Raises:
          ValueError: the files have more bytes than a group may have.
        """
        if sum(map(len, files)) > self._group_bytes:
            raise ValueError(f"a group may have at most {self._group_bytes} bytes, got {sum(map(len, files))}")
        at = self._num_groups % 2 * self._group_bytes
        self._num_groups += 1
        places = []
        for data in files:
            places.append((at, at + len(data)))
            self._memory[at : at + len(data)] = data
            at += len(data)
        return places

    def close(self) -> None:
        """Gives the memory back, as soon as the other process has, too."""
        self._memory.close()
        self._close()


def reading(fd: int, size: int) -> mmap.mmap:
    """The memory behind a SharedMedia's `fd`, in another process: it can be read, not written to."""
    return mmap.mmap(fd, size, prot=mmap.PROT_READ)

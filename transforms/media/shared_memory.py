"""Media in memory that a worker writes and its decoder process only reads, without a pipe or a copy.

It does not count against the decoder's limit of memory.
"""

import mmap
import os
import sys
import tempfile
import weakref
from collections.abc import Sequence


class SharedMedia:
    """Memory for two groups of files: one that is being decoded and the next one.

    It is allocated when first written to, and released by `close`.

    Args:
      group_bytes: of the files of one group together, at most.
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
        """Writes a group over the last but one; (begin, end) of each file.

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
        """Releases the memory, as soon as the other process has, too."""
        self._memory.close()
        self._close()


def reading(fd: int, size: int) -> mmap.mmap:
    """The memory of a SharedMedia's `fd` in another process, read-only."""
    return mmap.mmap(fd, size, prot=mmap.PROT_READ)

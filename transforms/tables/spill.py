"""Pieces of a shuffle on local disk, for a runner whose workers are all on this machine.

The in-process runner has shuffled data in memory, up to five times. With a spill directory it has only the location
of each piece in memory, and the data have to fit on the disk. Cluster runners have their own shuffles on disk: there
pieces are sent as bytes.
"""

import contextlib
import contextvars
import os
import uuid
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa

from transforms.tables import blocks

# The pieces of a smaller block travel as bytes: a file would cost more than it saves.
MIN_BYTES = 1 << 18
_directory: contextvars.ContextVar[str] = contextvars.ContextVar("directory", default="")


class SpilledPiece(NamedTuple):
    """Rows of one block that go to one part: the bytes of an Arrow IPC stream, or their location in a local file.

    Attributes:
      name: of their collection.
      data: the bytes; empty if there is a path.
      path: of the file, or "".
      start: offset of the first byte.
      num_bytes: number of bytes.
    """

    name: str
    data: bytes
    path: str
    start: int
    num_bytes: int

    def read(self) -> pa.RecordBatch:
        """The rows of the piece.

        Raises:
          OSError: the file cannot be read.
        """
        if not self.path:
            return blocks.from_ipc(self.data)
        with pa.OSFile(self.path) as file:
            file.seek(self.start)
            return blocks.from_ipc(file.read_buffer(self.num_bytes))


# As it crosses the shuffle.
PIECE = tuple[str, bytes, str, int, int]


@contextlib.contextmanager
def into(directory: str) -> Iterator[None]:
    """Makes shuffles constructed inside the context spill into a local directory, which must exist until they ran."""
    token = _directory.set(directory)
    try:
        yield
    finally:
        _directory.reset(token)


def directory() -> str:
    """Spill directory of the shuffles being constructed; "" if there is none."""
    return _directory.get()


def pieces(
    name: str, parts: Iterable[tuple[int, pa.RecordBatch]], directory: str
) -> Iterator[tuple[int, SpilledPiece]]:
    """The parts of a block, each as a piece.

    Args:
      name: of the collection.
      parts: (number of the part, its rows).
      directory: of the one file with all of them; "" for bytes.

    Raises:
      OSError: they cannot be written.
    """
    if not directory:
        for part, rows in parts:
            data = blocks.to_ipc(rows)
            yield part, SpilledPiece(name, data, "", 0, len(data))
        return
    path = os.path.join(directory, uuid.uuid4().hex)
    with pa.OSFile(path, "wb") as file:
        for part, rows in parts:
            start = file.tell()
            blocks.write_ipc(rows, file)
            yield part, SpilledPiece(name, b"", path, start, file.tell() - start)

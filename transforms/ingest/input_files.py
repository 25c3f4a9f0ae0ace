"""Input files: listing them, their formats, and cutting each into splits that are read independently.

A split is a few numbers, which cross a shuffle in place of its bytes.
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.tables import files, parquet

JSONL, CSV, PARQUET = "jsonl", "csv", "parquet"
ENDINGS = {".jsonl": JSONL, ".ndjson": JSONL, ".json": JSONL, ".csv": CSV, ".parquet": PARQUET, ".pq": PARQUET}
GZIP = ".gz"

PART_BYTES = 32 << 20
MIN_PARTS = 8
# A shuffle cuts every block into a piece for each part: from this number on parts grow instead, within the memory of a
# worker.
MANY_PARTS = 4096
MAX_PART_BYTES = 256 << 20
MAX_PARTS = 65_536
# Bytes of text in one byte of a compressed file, roughly.
_COMPRESSION = 5
_CACHE_BYTES = 1 << 18


@dataclasses.dataclass(frozen=True)
class InputFile:
    """A file of the input; `number` is its place in the sorted list of all files of its table."""

    path: str
    number: int
    format: str
    gzipped: bool
    size: int


@dataclasses.dataclass(frozen=True)
class FileSplit:
    """A piece of a file.

    Attributes:
      file: the file.
      start: first byte (JSONL), or the row group (Parquet).
      end: the byte after the last one; None: up to the end of the file.
      first: the line (from 1) or row (from 1) with which the split begins.
      fault: why the file cannot be read at all; "" where it can.
    """

    file: InputFile
    start: int = 0
    end: int | None = None
    first: int = 1
    fault: str = ""


def find_files(globs: str) -> list[InputFile]:
    """The files that comma-separated globs match, sorted by path. Names that begin with "_" or "." are no input.

    Raises:
      ValueError: a glob matches nothing, or a file has no known extension.
    """
    sizes: dict[str, int] = {}
    for glob in filter(None, (word.strip() for word in globs.split(","))):
        found = _match(glob)
        if not found:
            raise ValueError(f"no file matches {glob}")
        sizes |= found
    if not sizes:
        raise ValueError(f"no glob of input files in {globs!r}")
    return [_input_file(path, number, sizes[path]) for number, path in enumerate(sorted(sizes))]


def _match(glob: str) -> dict[str, int]:
    try:
        found = {state.path: state.size for state in files.match(glob)}
    except OSError as error:
        raise ValueError(f"{glob} cannot be listed: {error}") from error
    return {path: size for path, size in found.items() if os.path.basename(path)[:1] not in ("_", ".")}


def _input_file(path: str, number: int, size: int) -> InputFile:
    name = path.lower()
    gzipped = name.endswith(GZIP)
    kind = ENDINGS.get(os.path.splitext(name.removesuffix(GZIP))[1])
    if kind is None or (gzipped and kind == PARQUET):
        raise ValueError(f"{path} has no known file extension, expected one of {', '.join(ENDINGS)} (text also .gz)")
    if files.is_local(path) and not os.path.isfile(path):
        raise ValueError(f"{path} is not a file; name the files in it, like {path.rstrip('/')}/*")
    return InputFile(path, number, kind, gzipped, size)


def choose_num_parts(files: Sequence[InputFile]) -> int:
    """The number of parts of a table: of some 32 MiB of text, at least 8, from 4096 on of up to 256 MiB.

    Raises:
      ValueError: a part would be larger.
    """
    total = sum(file.size * (_COMPRESSION if file.gzipped or file.format == PARQUET else 1) for file in files)
    if total > MAX_PARTS * MAX_PART_BYTES:
        limit = MAX_PARTS * MAX_PART_BYTES
        raise ValueError(f"{total:,} bytes of text are more than {limit:,}: run on less, or give --num_parts")
    small, large = (math.ceil(total / size) for size in (PART_BYTES, MAX_PART_BYTES))
    return max(MIN_PARTS, min(small, MANY_PARTS), large)


def plan_splits(file: InputFile, block_bytes: int) -> Iterator[FileSplit]:
    """The splits of a file: plain JSONL cut at newlines every `block_bytes`, Parquet by row group, others whole."""
    if file.format == PARQUET:
        yield from _plan_parquet(file)
    elif file.format == JSONL and not file.gzipped:
        yield from _plan_lines(file, block_bytes)
    else:
        yield FileSplit(file)


def _plan_lines(file: InputFile, block_bytes: int) -> Iterator[FileSplit]:
    start = position = 0
    first = line = 1
    with files.open_read(file.path) as stream:
        while data := stream.read(block_bytes):
            cut = data.rfind(b"\n") + 1
            line += count_lines(data)
            if cut:
                yield FileSplit(file, start, position + cut, first)
                start, first = position + cut, line
            position += len(data)
    if start < position:
        yield FileSplit(file, start, position, first)


def count_lines(data: bytes) -> int:
    """Number of newlines in the data: numpy, a cache full at a time, counts them in half the time of bytes.count."""
    characters = np.frombuffer(data, np.uint8)
    return sum(
        int(np.count_nonzero(characters[start : start + _CACHE_BYTES] == ord("\n")))
        for start in range(0, len(data), _CACHE_BYTES)
    )


def _plan_parquet(file: InputFile) -> Iterator[FileSplit]:
    try:
        with parquet.open_file(file.path) as source:
            metadata = pq.ParquetFile(source, pre_buffer=False).metadata
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        yield FileSplit(file, fault="the file is no Parquet, or its footer is damaged")
        return
    first = 1
    for group in range(metadata.num_row_groups):
        yield FileSplit(file, group, None, first)
        first += metadata.row_group(group).num_rows

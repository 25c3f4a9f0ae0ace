"""Reads a file as ingest does, without Beam."""

from pathlib import Path
from typing import Any

from transforms.ingest import canonical, input_files, split_reader
from transforms.ingest.line_reader import LineLimits

Row = dict[str, Any]


def read_file(
    path: Path, table: str = "posts", block_bytes: int = 1 << 20, limits: LineLimits | None = None
) -> tuple[list[Row], list[Row], dict[str, int]]:
    """(good rows in the order of the file, rejects, counts)."""
    (file,) = input_files.find_files(str(path))
    pieces = [
        piece
        for split in input_files.plan_splits(file, block_bytes)
        for piece in split_reader.read_split(canonical.TABLES[table], split, block_bytes, limits or LineLimits())
    ]
    if not pieces:
        return [], [], {}
    done = split_reader.concat(pieces)
    assert done.rejects.num_rows == done.counts[f"{table}.rejected"]
    return done.block.to_pylist(), done.rejects.to_pylist(), dict(done.counts)


def places(rejects: list[Row]) -> list[tuple[Any, str]]:
    """(line or record, code) of rejects."""
    return [(row["line"] or row["record"], row["code"]) for row in rejects]

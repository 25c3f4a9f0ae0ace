import gzip
from pathlib import Path

import pytest

from transforms.ingest import input_files, line_reader


def _chunks(path: Path, chunk_bytes: int, max_line_bytes: int = 100) -> list[line_reader.Chunk]:
    (file,) = input_files.find_files(str(path))
    return list(
        line_reader.read_chunks(input_files.FileSplit(file), chunk_bytes, line_reader.LineLimits(max_line_bytes))
    )


@pytest.mark.parametrize("chunk_bytes", [1, 3, 64, 1000])
@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
def test_chunks_are_whole_lines_that_know_their_number(tmp_path: Path, name: str, chunk_bytes: int) -> None:
    data = b"".join(b"%d" % n * (n % 40) + b"\n" for n in range(200)) + b"last"
    path = tmp_path / name
    path.write_bytes(gzip.compress(line_reader.BOM + data) if name.endswith("gz") else line_reader.BOM + data)
    chunks = _chunks(path, chunk_bytes, 1000)
    assert b"".join(chunk.data for chunk in chunks) == data
    assert all(chunk.data.endswith(b"\n") for chunk in chunks[:-1])
    position = 0
    for chunk in chunks:
        assert chunk.first == 1 + data[:position].count(b"\n") and not chunk.fault
        position += len(chunk.data)


@pytest.mark.parametrize("chunk_bytes", [1, 7, 64])
def test_a_line_that_is_too_long_is_skipped_with_one_error(tmp_path: Path, chunk_bytes: int) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"a\n" + b"x" * 500 + b"\nb\n" + b"y" * 500)
    chunks = _chunks(path, chunk_bytes)
    assert [(chunk.first, chunk.fault[0]) for chunk in chunks if chunk.fault] == [
        (2, "row_too_long"),
        (4, "row_too_long"),
    ]
    assert b"".join(chunk.data for chunk in chunks) == b"a\nb\n"
    assert [chunk.first for chunk in chunks if chunk.data == b"b\n"] == [3]


def test_line_bounds() -> None:
    starts, ends = line_reader.line_bounds(b"ab\n\ncd")
    assert (starts.tolist(), ends.tolist()) == ([0, 3, 4], [2, 3, 6])
    assert [len(bounds) for bounds in line_reader.line_bounds(b"")] == [0, 0]

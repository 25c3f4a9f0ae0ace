from pathlib import Path

import pytest

from transforms.ingest import input_files
from transforms.ingest.input_files import InputFile


def _touch(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"x")


def test_files_are_sorted_and_their_endings_tell_the_format(tmp_path: Path) -> None:
    _touch(tmp_path, "b.jsonl.gz", "a.CSV", "c/d.parquet", "e.ndjson", "_left.csv", ".hidden.csv", "a.json")
    found = input_files.find_files(f"{tmp_path}/*.*, {tmp_path}/c/*,{tmp_path}/a.CSV")
    shown = [(Path(file.path).name, file.number, file.format, file.gzipped) for file in found]
    assert shown == [
        ("a.CSV", 0, "csv", False),
        ("a.json", 1, "jsonl", False),
        ("b.jsonl.gz", 2, "jsonl", True),
        ("d.parquet", 3, "parquet", False),
        ("e.ndjson", 4, "jsonl", False),
    ]


def test_input_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    _touch(tmp_path, "a.txt", "b.parquet.gz", "c.jsonl", "d.csv/part.csv")
    for globs, message in (
        (f"{tmp_path}/*.avro", "no file matches"),
        (f"{tmp_path}/c.jsonl,{tmp_path}/none.csv", "no file matches .*none.csv"),
        (f"{tmp_path}/a.txt", "a.txt has no known file extension, expected one of .jsonl"),
        (f"{tmp_path}/b.parquet.gz", "has no known file extension"),
        (f"{tmp_path}/d.csv", "is not a file"),
        (" , ", "no glob"),
    ):
        with pytest.raises(ValueError, match=message):
            input_files.find_files(globs)


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 10, 64, 1000])
@pytest.mark.parametrize("data", [b"", b"a", b"\n", b"a\n\nbb\nccc", b"a\r\n" * 50, b"x" * 500 + b"\ny\n" + b"z" * 500])
def test_splits_cover_the_file_and_begin_with_lines(tmp_path: Path, data: bytes, block_bytes: int) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(data)
    splits = list(input_files.plan_splits(input_files.find_files(str(path))[0], block_bytes))
    pieces = [data[split.start : split.end] for split in splits]
    assert b"".join(pieces) == data and all(piece for piece in pieces)
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])
    assert [split.first for split in splits] == [1 + data[: split.start].count(b"\n") for split in splits]


def test_number_of_parts_follows_the_size() -> None:
    def file(size: int, gzipped: bool = False) -> InputFile:
        return InputFile("p", 0, "jsonl", gzipped, size)

    assert input_files.choose_num_parts([]) == 8
    assert input_files.choose_num_parts([file(1 << 30)]) == 32
    assert input_files.choose_num_parts([file(1 << 29), file(1 << 29, gzipped=True)]) == 96
    # Past so many parts they grow, up to a size that a worker holds.
    assert input_files.choose_num_parts([file(200 << 30)]) == 4096
    assert input_files.choose_num_parts([file(16 << 40)]) == 65_536
    with pytest.raises(ValueError, match="17,592,186,044,417 bytes of text are more than 17,592,186,044,416"):
        input_files.choose_num_parts([file((16 << 40) + 1)])

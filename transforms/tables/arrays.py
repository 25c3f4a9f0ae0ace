"""Arrays on disk, as .npy files on any file system, of which a slice of rows can be read without the rest."""

import os
import uuid

import numpy as np
from apache_beam.io.filesystems import FileSystems

from transforms.tables import files


def save(path: str, array: np.ndarray) -> None:
    """Writes an array, under a temporary name first: of a bundle that is tried twice one whole file stays."""
    directory, name = os.path.split(path)
    temporary = FileSystems.join(directory, f"_{name}.{uuid.uuid4().hex}")
    files.make_directory(directory)
    with FileSystems.create(temporary, "application/octet-stream", compression_type="uncompressed") as file:
        contiguous = np.ascontiguousarray(array)
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(contiguous))
        # Not `tofile`, which does not say that it is the disk that is full.
        file.write(contiguous.reshape(-1).view(np.uint8).data)
    FileSystems.rename([temporary], [path])


def load(path: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """The rows from `start` to before `stop` of an array: mapped into memory where it is local, read elsewhere."""
    if files.is_local(path):
        rows: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)[start:stop]
        return rows
    with FileSystems.open(path, compression_type="uncompressed") as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        stop = shape[0] if stop is None else min(stop, shape[0])
        row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        file.seek(file.tell() + start * row_bytes)
        data = file.read((stop - start) * row_bytes)
    return np.frombuffer(data, dtype).reshape(stop - start, *shape[1:])


def delete(path: str) -> None:
    """Deletes a file; it is no error if it is gone."""
    try:
        FileSystems.delete([path])
    except OSError:
        if FileSystems.exists(path):
            raise

"""Arrays on disk, as .npy files on any file system, with reads of row slices."""

import numpy as np

from transforms.tables import files


def save(path: str, array: np.ndarray) -> None:
    """Writes an array."""
    with files.open_write(path) as file:
        contiguous = np.ascontiguousarray(array)
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(contiguous))
        # Not `tofile`, whose error does not name a full disk.
        file.write(contiguous.reshape(-1).view(np.uint8).data)


def load(path: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """The rows from `start` to before `stop` of an array: memory-mapped if local, otherwise read."""
    if files.is_local(path):
        rows: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)[start:stop]
        return rows
    with files.open_read(path) as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        stop = shape[0] if stop is None else min(stop, shape[0])
        row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        file.seek(file.tell() + start * row_bytes)
        data = file.read((stop - start) * row_bytes)
    return np.frombuffer(data, dtype).reshape(stop - start, *shape[1:])

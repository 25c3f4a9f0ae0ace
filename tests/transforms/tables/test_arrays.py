import errno
import io
import resource
from pathlib import Path

import numpy as np
import pytest

from transforms.tables import arrays, files


@pytest.mark.parametrize("local", [True, False])
def test_a_slice_of_rows_is_read_back(tmp_path: Path, local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "deep" / "a.npy")
    values = np.arange(24, dtype=np.float64).reshape(8, 3)
    arrays.save(path, values)
    if not local:  # as from a store that cannot be mapped into memory
        monkeypatch.setattr(files, "is_local", lambda path: False)
    np.testing.assert_array_equal(arrays.load(path), values)
    np.testing.assert_array_equal(arrays.load(path, 2, 5), values[2:5])
    assert arrays.load(path, 7, 100).shape == (1, 3)
    assert arrays.load(path, 3, 3).shape == (0, 3)


def test_records_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "a.npy")
    values = np.array([(1, 0.5), (2, 0.25)], [("row", np.int32), ("value", np.float64)])
    arrays.save(path, values)
    assert arrays.load(path, 1)["value"].tolist() == [0.25]
    monkeypatch.setattr(files, "is_local", lambda path: False)
    assert arrays.load(path, 1)["value"].tolist() == [0.25]


def test_the_file_is_a_plain_npy_and_nothing_else_is_left(tmp_path: Path) -> None:
    arrays.save(str(tmp_path / "a.npy"), np.ones(3))
    arrays.save(str(tmp_path / "a.npy"), np.zeros(2))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert np.load(io.BytesIO((tmp_path / "a.npy").read_bytes())).tolist() == [0, 0]


def test_a_full_disk_is_told_as_the_system_tells_it(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as failed:
            arrays.save(str(tmp_path / "large.npy"), np.zeros(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert failed.value.errno == errno.EFBIG
    assert not (tmp_path / "large.npy").exists()

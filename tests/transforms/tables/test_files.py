from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.flat_store import FlatStore
from transforms.tables import files


@pytest.fixture(params=["local", "flat"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    FlatStore.objects.clear()
    yield str(tmp_path) if request.param == "local" else "flat://bucket/root"
    FlatStore.objects.clear()


def _fill(root: str) -> None:
    files.write_text(f"{root}/a.txt", "one")
    files.write_text(f"{root}/deep/b.txt", "three")


def test_a_new_file_replaces_the_old_one_and_leaves_nothing_else(root: str) -> None:
    files.write_text(f"{root}/a.txt", "old")
    files.write_json(f"{root}/a.txt", {"b": (1, 2)})
    assert files.read_json(f"{root}/a.txt") == {"b": [1, 2]}
    assert files.list_names(root) == ["a.txt"]


def test_a_file_that_is_not_complete_does_not_take_its_name(root: str) -> None:
    files.write_text(f"{root}/a.txt", "old")
    with pytest.raises(RuntimeError, match="half"), files.open_write(f"{root}/a.txt") as file:
        file.write(b"ne")
        raise RuntimeError("half")
    assert files.read_text(f"{root}/a.txt") == "old"


def test_listings(root: str) -> None:
    _fill(root)
    assert files.list_names(root) == ["a.txt", "deep"]
    assert files.list_sizes(root) == {"a.txt": 3, "deep/b.txt": 5}
    assert [state.path for state in files.match(f"{root}/*.txt", f"{root}/deep/*")] == [
        f"{root}/a.txt",
        f"{root}/deep/b.txt",
    ]
    assert files.list_names(f"{root}/none") == []
    assert files.list_sizes(f"{root}/none") == {}


def test_a_directory_exists_and_is_no_object(root: str) -> None:
    _fill(root)
    assert files.exists(f"{root}/deep")
    assert files.exists(f"{root}/deep/b.txt") and files.file_exists(f"{root}/deep/b.txt")
    assert not files.exists(f"{root}/dee")
    assert files.file_exists(f"{root}/deep") == files.is_local(root)


def test_the_state_of_a_file_changes_with_it(root: str) -> None:
    _fill(root)
    before = files.read_state(f"{root}/a.txt")
    assert before is not None and before[:2] == (f"{root}/a.txt", 3) and before.modified > 1e9
    assert [before] == files.match(f"{root}/a.txt")
    files.write_text(f"{root}/a.txt", "longer")
    assert files.read_state(f"{root}/a.txt") != before
    assert files.read_state(f"{root}/none") is None


def test_deleting_takes_files_and_directories_and_a_missing_one_is_no_error(root: str) -> None:
    _fill(root)
    for _ in range(2):
        files.delete(f"{root}/deep")
        assert files.list_sizes(root) == {"a.txt": 3}
    for _ in range(2):
        files.delete(f"{root}/a.txt")
        assert files.list_names(root) == []


def test_deleting_a_path_with_a_wildcard_deletes_that_alone(tmp_path: Path) -> None:
    for name in ("a*", "ab"):
        (tmp_path / name).touch()
    files.delete(str(tmp_path / "a*"))
    assert files.list_names(str(tmp_path)) == ["ab"]


def test_moving_replaces_a_directory(root: str) -> None:
    _fill(root)
    files.write_text(f"{root}/new/place/old.txt", "old")
    files.move(f"{root}/deep", f"{root}/new/place")
    files.move(f"{root}/deep", f"{root}/new/place")  # already moved: nothing happens
    assert files.list_sizes(root) == {"a.txt": 3, "new/place/b.txt": 5}


def test_a_directory_goes_to_another_file_system_and_back(tmp_path: Path) -> None:
    FlatStore.objects.clear()
    _fill(str(tmp_path / "source"))
    files.upload(str(tmp_path / "source"), "flat://bucket/copy")
    files.copy_directory("flat://bucket/copy", str(tmp_path / "back"))
    assert files.list_sizes("flat://bucket/copy") == {"a.txt": 3, "deep/b.txt": 5}
    assert files.read_text(str(tmp_path / "back/deep/b.txt")) == "three"
    files.upload(str(tmp_path / "back"), str(tmp_path / "new/place"))
    assert files.list_sizes(str(tmp_path / "new")) == {"place/a.txt": 3, "place/deep/b.txt": 5}
    assert not (tmp_path / "back").exists()

"""Directories and files on any file system that Beam supports; the one module that calls Beam's `FileSystems`."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from apache_beam.io.filesystems import FileSystems


class FileState(NamedTuple):
    """Path, size in bytes and time of the last change (seconds since 1970; 0 where unknown) of a file."""

    path: str
    size: int
    modified: float


def _file_systems() -> "type[FileSystems]":
    # Beam takes a second to import, and commands that only print their flags import this module too.
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def is_local(path: str) -> bool:
    """True if a path is on this machine (no scheme like gs://)."""
    return _file_systems().get_scheme(path) is None


def join(*parts: str) -> str:
    """A path below a directory."""
    return "/".join([parts[0].rstrip("/"), *parts[1:]])


def new_id() -> str:
    """A random name: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def make_directory(directory: str) -> None:
    """Creates a directory and its parents; existing ones are no error (workers race for it)."""
    if is_local(directory):
        os.makedirs(directory, exist_ok=True)


def exists(path: str) -> bool:
    """True if there is a file or directory."""
    return file_exists(path) or (not is_local(path) and bool(match(join(path, "**"), limit=1)))


def file_exists(path: str) -> bool:
    """True if there is a file; the path is no pattern."""
    return bool(_file_systems().exists(path))


def match(*patterns: str, limit: int | None = None) -> list[FileState]:
    """Files that match glob patterns, at most `limit` for each pattern. `**` also matches below subdirectories."""
    found = _file_systems().match(list(patterns), [limit] * len(patterns))
    return [
        FileState(each.path, each.size_in_bytes, each.last_updated_in_seconds or 0.0)
        for result in found
        for each in result.metadata_list
    ]


def read_state(path: str) -> FileState | None:
    """State of one file; None if there is none."""
    if is_local(path):
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        return FileState(path, found.st_size, found.st_mtime)
    return next((state for state in match(path) if state.path == path), None)


def list_names(directory: str) -> list[str]:
    """Names directly in a directory, sorted; empty if the directory does not exist."""
    if is_local(directory):
        return sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    return sorted({path.split("/")[0] for path in list_sizes(directory)})


def list_sizes(directory: str) -> dict[str, int]:
    """Size in bytes of every file below a directory, by relative path; empty if the directory does not exist."""
    root = directory.rstrip("/")
    if is_local(root):
        paths = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
        return {os.path.relpath(path, root): os.path.getsize(path) for path in paths}
    return {state.path[len(root) + 1 :]: state.size for state in match(f"{root}/**")}


def open_read(path: str) -> BinaryIO:
    """Opens a file for reading, as it is (compressed or not)."""
    file: BinaryIO = _file_systems().open(path, "application/octet-stream", compression_type="uncompressed")
    return file


@contextlib.contextmanager
def open_write(path: str) -> Iterator[BinaryIO]:
    """Opens a new file that takes its name when it is complete: readers see the old file or the new one.

    A retried bundle leaves one complete file. Directories are made.
    """
    directory = os.path.dirname(path) or "."
    make_directory(directory)
    temporary = join(directory, f"_{new_id()}.tmp")
    with _file_systems().create(temporary, "application/octet-stream", compression_type="uncompressed") as file:
        yield file
    _file_systems().rename([temporary], [path])


def read_text(path: str) -> str:
    """The text of a small file."""
    with open_read(path) as file:
        return file.read().decode()


def write_text(path: str, text: str) -> None:
    """Writes a small text file."""
    with open_write(path) as file:
        file.write(text.encode())


def read_json(path: str) -> Any:
    """The value in a JSON file."""
    return json.loads(read_text(path))


def write_json(path: str, value: Any) -> None:
    """Writes a JSON file."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def plain(value: Any) -> Any:
    """The value after a JSON round trip: tuples become lists, for example."""
    return json.loads(json.dumps(value))


def delete(path: str) -> None:
    """Deletes a file, or a directory with all that is in it; a missing one is no error."""
    if not is_local(path):
        found = [state.path for state in match(path, join(path, "**"))]
        if found:
            _file_systems().delete(found)
    elif os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def move(source: str, target: str) -> None:
    """Replaces a directory by another, if that exists: a rename locally, object by object elsewhere."""
    if not exists(source):
        return
    delete(target)
    if is_local(source):
        make_directory(os.path.dirname(target))
        _file_systems().rename([source], [target])
    else:
        names = list(list_sizes(source))
        _file_systems().rename([join(source, name) for name in names], [join(target, name) for name in names])


def upload(local: str, target: str) -> None:
    """Moves a local directory to a path of any file system."""
    if is_local(target):
        make_directory(os.path.dirname(target))
        shutil.move(local, target)
    else:
        copy_directory(local, target)


def copy_directory(source: str, target: str) -> None:
    """Copies all files below a directory, between any two file systems."""
    for name in list_sizes(source):
        with open_read(join(source, name)) as read, open_write(join(target, name)) as written:
            shutil.copyfileobj(read, written, 1 << 20)


def hash_sources(folders: Iterable[Path]) -> str:
    """SHA-256 of the relative paths and contents of the Python files in and below the folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()

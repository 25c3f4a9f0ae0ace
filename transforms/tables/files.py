"""Directories and small files on any file system that Beam supports."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Beam is imported where it is used: commands that only print their flags import this module too.


def is_local(path: str) -> bool:
    """True if a path is on this machine (no scheme like gs://)."""
    from apache_beam.io.filesystems import FileSystems

    return FileSystems.get_scheme(path) is None


def make_directory(directory: str) -> None:
    """Creates a directory and its parents; existing ones are no error (workers race for it)."""
    if is_local(directory):
        os.makedirs(directory, exist_ok=True)


def write_text(path: str, text: str) -> None:
    """Writes a small text file atomically: readers see the old file or the new one."""
    from apache_beam.io.filesystems import FileSystems

    directory = path.rsplit("/", 1)[0]
    make_directory(directory)
    temporary = f"{directory}/_{uuid.uuid4().hex}.tmp"
    with FileSystems.create(temporary, compression_type="uncompressed") as file:
        file.write(text.encode())
    FileSystems.rename([temporary], [path])


def read_text(path: str) -> str:
    """The text of a small file."""
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.open(path) as file:
        text: str = file.read().decode()
    return text


def write_json(path: str, value: Any) -> None:
    """Writes JSON as `write_text` writes text."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: str) -> Any:
    """The value in a JSON file."""
    return json.loads(read_text(path))


def plain(value: Any) -> Any:
    """The value after a JSON round trip: tuples become lists, for example."""
    return json.loads(json.dumps(value))


def list_sizes(directory: str) -> dict[str, int]:
    """Size in bytes of every file below a directory, by relative path; empty if the directory does not exist."""
    from apache_beam.io.filesystems import FileSystems

    root = directory.rstrip("/")
    if is_local(root):
        paths = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
        return {os.path.relpath(path, root): os.path.getsize(path) for path in paths}
    found = [each for match in FileSystems.match([f"{root}/**"]) for each in match.metadata_list]
    return {each.path[len(root) + 1 :]: each.size_in_bytes for each in found}


def hash_sources(folders: Iterable[Path]) -> str:
    """SHA-256 of the relative paths and contents of the Python files in and below the folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()

"""Directories of any file system: paths, names, moves and deletions."""

import hashlib
import os
import shutil
import uuid

from pipelines.command_line.options import UsageError
from transforms.tables import files


def join(*parts: str) -> str:
    """A path below a directory of any file system."""
    return "/".join([parts[0].rstrip("/"), *parts[1:]])


def check_writable(directory: str) -> None:
    """Makes a directory and writes a file in it, to find out before the work whether that can be done.

    Raises:
      UsageError: it cannot.
    """
    path = join(directory, f"_{new_id()}.tmp")
    try:
        files.write_text(path, "")
        delete(path)
    except OSError as error:
        raise UsageError(f"{directory} cannot be written: {error.strerror or error}") from None


def exists(path: str) -> bool:
    """True if a file or directory exists at a path of any file system."""
    from apache_beam.io.filesystems import FileSystems

    if FileSystems.get_scheme(path) is None:
        return FileSystems.exists(path)
    return FileSystems.exists(path) or bool(FileSystems.match([join(path, "**")], limits=[1])[0].metadata_list)


def list_names(directory: str) -> list[str]:
    """The names right in a directory of any file system, sorted; none where there is no such directory."""
    from apache_beam.io.filesystems import FileSystems

    if FileSystems.get_scheme(directory) is None:
        return sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    root = directory.rstrip("/") + "/"
    found = [each.path for match in FileSystems.match([root + "**"]) for each in match.metadata_list]
    return sorted({path[len(root) :].split("/")[0] for path in found})


def move(source: str, target: str) -> None:
    """Puts a directory in the place of another: a rename locally, object by object elsewhere."""
    from apache_beam.io.filesystems import FileSystems

    if not exists(source):
        return
    delete(target)
    if FileSystems.get_scheme(source) is None:
        make(target.rsplit("/", 1)[0])
        FileSystems.rename([source], [target])
        return
    found = [m.path for match in FileSystems.match([join(source, "**")]) for m in match.metadata_list]
    FileSystems.rename(found, [target + path[len(source) :] for path in found])


def upload(local: str, target: str) -> None:
    """Puts a local directory to a path of any file system; where that is local too it is moved."""
    from apache_beam.io.filesystems import FileSystems

    if FileSystems.get_scheme(target) is None:
        make(os.path.dirname(target))
        shutil.move(local, target)
        return
    for folder, _, names in os.walk(local):
        for name in names:
            path = os.path.join(folder, name)
            copy = join(target, os.path.relpath(path, local))
            with open(path, "rb") as source, FileSystems.create(copy, compression_type="uncompressed") as sink:
                shutil.copyfileobj(source, sink)


def new_id() -> str:
    """A name that nothing had before."""
    return uuid.uuid4().hex


def slug(path: str) -> str:
    """A short name made from a path, the same every time."""
    return hashlib.sha256(path.encode()).hexdigest()[:16]


def delete(path: str) -> None:
    """Deletes a file or directory where there is one."""
    from apache_beam.io.filesystems import FileSystems

    if FileSystems.get_scheme(path) is None:
        if os.path.lexists(path):
            FileSystems.delete([path])
        return
    found = [each.path for match in FileSystems.match([path, join(path, "**")]) for each in match.metadata_list]
    if found:
        FileSystems.delete(found)


def make(directory: str) -> None:
    """Makes a directory and those above it.

    Raises:
      UsageError: it cannot be made.
    """
    try:
        files.make_directory(directory)
    except OSError as error:
        raise UsageError(f"{directory} cannot be written: {error.strerror}") from None


def local_prefix(output: str) -> str:
    """Name prefix of the local scratch directories that belong to an output."""
    return f"fusefeed-{slug(os.path.abspath(output) if files.is_local(output) else output)}-"

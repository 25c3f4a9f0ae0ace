"""Names and checks of an output's directories."""

import hashlib
import os

from pipelines.command_line.options import UsageError
from transforms.tables import files


def check_writable(directory: str) -> None:
    """Makes a directory and writes a file in it, before the work begins.

    Raises:
      UsageError: it cannot be written.
    """
    path = files.join(directory, f"_{files.new_id()}.tmp")
    try:
        files.write_text(path, "")
        files.delete(path)
    except OSError as error:
        raise UsageError(f"{directory} cannot be written: {error.strerror or error}") from None


def slug(path: str) -> str:
    """Short name made from a path, always the same: 16 hexadecimal digits."""
    return hashlib.sha256(path.encode()).hexdigest()[:16]


def local_prefix(output: str) -> str:
    """Name prefix of the local scratch directories that belong to an output."""
    return f"fusefeed-{slug(os.path.abspath(output) if files.is_local(output) else output)}-"

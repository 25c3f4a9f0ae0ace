"""Media files of posts: resolution of their URIs, and bounded reading.

Everything here treats URIs and bytes as hostile: they come from anyone's posts.
"""

import dataclasses
import os
import posixpath
import re
import stat
import unicodedata
import urllib.parse
from collections.abc import Iterator, Sequence

import numpy as np

from transforms.media.file_signatures import ENDINGS
from transforms.tables.files import file_exists, open_read

_MAX_URI_CHARS = 4096
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# Schemes that need no "//"; any other "word:" may be the beginning of a file's name.
_BARE_SCHEME = re.compile(r"(data|blob|about|javascript|mailto|urn|file):", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


class MediaError(Exception):
    """Media that gives no features: a code of `rejects.CODES` and a message without any post content."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclasses.dataclass(frozen=True)
class MediaLimits:
    """Resource limits for one file.

    Attributes:
      max_bytes: bytes read of a file. Social networks take pictures up to some 20 MB; 64 MiB also holds short clips.
      max_pixels: pixels of a picture or of a video's frame by its header, checked before decoding: 100 megapixels is
        what the larger phone sensors give, and 300 MB decoded.
      max_frames_sampled: frames of a video that are described.
      max_seconds: seconds of sound or video that are decoded; the rest is ignored. Most posts are shorter than that.
      reject_long: True if files longer than max_seconds are refused instead.
      max_frames: frames within max_seconds: two minutes at 400 a second. More are refused.
      max_decoded_pixels: the pixels of all frames that are decoded, the rest is ignored: two minutes of 1080p at
        60 frames a second.
      max_audio_samples: samples within max_seconds, of all channels, at the file's own rate: two minutes of eight
        channels at 192 kHz. More are refused.
      max_decode_seconds: seconds by the clock that decoding one file may take.
      max_decode_mib: memory that decoding may take, in MiB, beyond what the decoder process needs to start (Linux).
      max_fetch_seconds: seconds by the clock that fetching one file by http(s) may take.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 100_000_000
    max_frames_sampled: int = 16
    max_seconds: float = 120.0
    reject_long: bool = False
    max_frames: int = 50_000
    max_decoded_pixels: int = 15_000_000_000
    max_audio_samples: int = 200_000_000
    max_decode_seconds: float = 120.0
    max_decode_mib: int = 2048
    max_fetch_seconds: float = 60.0


def check_memory(width: int, height: int) -> None:
    """Finds out whether there was room to decode a picture or a frame, where its decoder does not report why it failed.

    Decoders hold up to 12 bytes a pixel at once: 16 bits of four channels and what is made of them, or eight frames of
    video.

    Raises:
      MemoryError: there was not.
    """
    np.empty((height, width, 12), np.uint8)


def resolve_uri(uri: str, roots: Sequence[str]) -> str:
    """The path of the regular file that `uri` names inside one of `roots`; the first root that has it is used.

    A relative URI is a literal path under a root (percent signs and all). An absolute path or a file:// URI (this one
    percent-decoded, once) has to lie inside a root after symbolic links are followed. Roots may be of any Beam file
    system (gs://bucket/dir): there paths are joined and normalized as text.

    Raises:
      MediaError: media_uri_invalid, media_scheme_not_allowed, media_outside_root or media_missing.
    """
    roots = [_local_root(root) for root in roots]
    path = _path_of(uri, roots)
    outside = False
    for root in roots:
        if _SCHEME.match(root):
            found = _remote_path(path, root)
            outside |= found is None
            if found is not None and file_exists(found):
                return found
        elif not _SCHEME.match(path):
            candidate = os.path.realpath(os.path.join(root, path))
            if not any(_is_inside(candidate, other) for other in roots if not _SCHEME.match(other)):
                outside = True
            elif _is_regular_file(candidate):
                return candidate
    if outside or (not roots and os.path.isabs(path)):
        raise MediaError("media_outside_root", "the path leads out of every media root")
    raise MediaError("media_missing", "no such file" if roots else "no media root is given")


def read_media(path: str, limits: MediaLimits) -> bytes:
    """The bytes of a file that `resolve_uri` found, never more than `limits.max_bytes`.

    Raises:
      MediaError: media_missing, media_uri_invalid (not a regular file), media_empty or media_too_large.
    """
    try:
        data = b"".join(_read_bounded(path, limits.max_bytes))
    except FileNotFoundError as error:
        raise MediaError("media_missing", "no such file") from error
    except OSError as error:
        raise MediaError("media_missing", f"the file cannot be read ({type(error).__name__})") from error
    if not data:
        raise MediaError("media_empty", "the file has no bytes")
    if len(data) > limits.max_bytes:
        raise MediaError("media_too_large", f"the file has more than {limits.max_bytes} bytes")
    return data


def kind_of(kind: str | None, uri: str) -> str:
    """image, video or audio: by the post (a MIME type will do), else by the URI's ending.

    Raises:
      MediaError: media_kind_unknown, when neither determines it.
    """
    said = (kind or "").strip().lower().split("/", 1)[0]
    if said in ("image", "video", "audio"):
        return said
    for path in (uri, uri.split("#", 1)[0].split("?", 1)[0]):
        ending = os.path.splitext(path)[1].lstrip(".").lower()
        if ending in ENDINGS:
            return ENDINGS[ending]
    raise MediaError("media_kind_unknown", "neither the kind nor the ending says image, video or audio")


def _read_bounded(path: str, max_bytes: int) -> Iterator[bytes]:
    """Pieces of the file, at most one byte more than `max_bytes` (which shows that there is more)."""
    if _SCHEME.match(path):
        with open_read(path) as file:
            left = max_bytes + 1
            while left > 0 and (piece := file.read(min(left, 1 << 20))):
                left -= len(piece)
                yield piece
        return
    # O_NONBLOCK: a FIFO put in the file's place meanwhile must not block the worker.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not _is_at(file.fileno(), path):
            raise MediaError("media_outside_root", "a symbolic link has taken the place of the file or of its folder")
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise MediaError("media_uri_invalid", "not a regular file")
        if status.st_size > max_bytes:
            raise MediaError("media_too_large", f"the file has {status.st_size} bytes, the limit is {max_bytes}")
        yield file.read(max_bytes + 1)


def _is_at(descriptor: int, path: str) -> bool:
    """True if an open file is the one that was at a path without symbolic links when it was opened.

    Between the look at a path and its opening a link may have been put there; what was opened is looked at again. Where
    the system does not give the path of an open file, the path is followed once more.
    """
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)") == path
    except OSError:
        return os.path.realpath(path) == path and os.path.samestat(os.fstat(descriptor), os.lstat(path))


def _path_of(uri: str, roots: Sequence[str]) -> str:
    """The path a URI stands for (a URI of a root's own scheme stays as it is), its characters and scheme checked."""
    _check_characters(uri)
    if _DRIVE.match(uri):
        raise MediaError("media_uri_invalid", "the path names a drive")
    scheme = _SCHEME.match(uri) or _BARE_SCHEME.match(uri)
    if scheme is None:
        return uri
    name = scheme.group(1).lower()
    if name == "file":
        parts = urllib.parse.urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise MediaError("media_scheme_not_allowed", "a file URI of another host")
        path = urllib.parse.unquote(parts.path, errors="surrogateescape")
        _check_characters(path)
        if not os.path.isabs(path):
            raise MediaError("media_uri_invalid", "a file URI without an absolute path")
        return path
    if not any(root.lower().startswith(f"{name}://") for root in roots):
        raise MediaError("media_scheme_not_allowed", f"scheme {name} is not allowed")
    return uri


def _local_root(root: str) -> str:
    return urllib.parse.unquote(urllib.parse.urlsplit(root).path) if root.lower().startswith("file://") else root


def _check_characters(uri: str) -> None:
    """Refuses what no honest path has: control characters, and look-alikes that turn into separators or `..`."""
    if not uri.strip():
        raise MediaError("media_uri_invalid", "the URI is empty")
    if len(uri) > _MAX_URI_CHARS:
        raise MediaError("media_uri_invalid", f"the URI has {len(uri)} characters, the limit is {_MAX_URI_CHARS}")
    # Plain ASCII has neither.
    plain = uri.isascii() and uri.isprintable()
    if not plain and any(unicodedata.category(char) == "Cc" for char in uri):
        raise MediaError("media_uri_invalid", "the URI has control characters")
    try:
        os.fsencode(uri)
    except UnicodeEncodeError as error:
        raise MediaError("media_uri_invalid", "the URI has characters that cannot be encoded") from error
    folded = uri if plain else unicodedata.normalize("NFKC", uri)
    if any(folded.count(separator) != uri.count(separator) for separator in "/\\"):
        raise MediaError("media_uri_invalid", "the URI has look-alikes of a path separator")
    parent_steps = uri.split("/").count("..")
    if folded.replace("\\", "/").split("/").count("..") != parent_steps:
        raise MediaError("media_uri_invalid", "the URI has `..` in disguise")


def _is_inside(path: str, root: str) -> bool:
    real_root = os.path.realpath(root)
    return path.startswith(real_root.rstrip(os.sep) + os.sep)


def _is_regular_file(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise MediaError("media_missing", "the file may not be read") from error
    except OSError as error:
        raise MediaError("media_uri_invalid", f"no possible path ({type(error).__name__})") from error
    if not stat.S_ISREG(mode):
        raise MediaError("media_uri_invalid", "not a regular file")
    return True


def _remote_path(path: str, root: str) -> str | None:
    """The path under a root of another file system, as text; None when it leads out of it."""
    scheme, _, base = root.partition("://")
    base = "/" + base.strip("/")
    own_scheme, separator, own_path = path.partition("://")
    if separator:
        if own_scheme.lower() != scheme.lower():
            return None
        joined = posixpath.normpath("/" + own_path.lstrip("/"))
    else:
        joined = posixpath.normpath(posixpath.join(base, path))
    return f"{scheme}://{joined.lstrip('/')}" if joined.startswith(base + "/") else None

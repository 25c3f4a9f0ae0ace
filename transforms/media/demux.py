"""Opening media with PyAV (FFmpeg) packet by packet: a broken packet does not end the file."""

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import av

from transforms.media.file_signatures import FORMATS, sniff
from transforms.media.media_files import MediaError

av.logging.set_level(None)

# Exceptions of PyAV for broken files; beside its own: metadata that is no text, absurd sizes, missing decoders.
BROKEN = (av.FFmpegError, ValueError, MemoryError, UnicodeError, IndexError, AttributeError, OverflowError, EOFError)
# Pictures that may move.
_MOVING = frozenset(("gif", "avif", "webp", "png"))
_MAX_PACKETS = 1_000_000
# An encrypted track says so in its first sample entry (ISO/IEC 14496-12, 8.12). Decoders make noise of it, not errors.
_ENCRYPTED = {
    "video": re.compile(rb"stsd.{12}encv", re.DOTALL),
    "audio": re.compile(rb"stsd.{12}enca", re.DOTALL),
}


# Only self-contained formats. Others that FFmpeg knows name further files or hosts to be read (hls,
# concat, dash, asx), or listen on the network (sdp).
_FORMATS = (
    "aac,ac3,aiff,amr,ape,apng,asf,au,avi,caf,eac3,flac,flv,gif,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,"
    "mpeg,mpegts,mpegvideo,mxf,ogg,png_pipe,qcp,rm,tta,w64,wav,webp_pipe,wv,heif,avif"
)


def open_container(data: bytes, formats: str = _FORMATS) -> Any:
    """The container in the bytes, of one of the allowed formats; opens no other file and no connection.

    Raises:
      Any of BROKEN.
    """
    options = {"format_whitelist": formats, "protocol_whitelist": "none"}
    return av.open(io.BytesIO(data), options=options, metadata_errors="replace")


def check_kind(data: bytes, kind: str) -> None:
    """Refuses bytes that are not of `kind` (video or audio) by their signature.

    Raises:
      MediaError: media_wrong_kind, media_encrypted or media_empty.
    """
    if not data:
        raise MediaError("media_empty", "the file has no bytes")
    found = sniff(data)
    is_picture = FORMATS[found] == "image" and not (kind == "video" and found in _MOVING)
    if is_picture or found in ("html", "pdf", "zip", "gzip"):
        raise MediaError("media_wrong_kind", f"expected {kind}, found {found}")
    if found == "mp4" and _ENCRYPTED[kind].search(data):
        raise MediaError("media_encrypted", f"the {kind} is encrypted")


@contextlib.contextmanager
def opened(data: bytes, kind: str) -> Iterator[Any]:
    """The container.

    Raises:
      MediaError: video_undecodable or audio_undecodable.
      MemoryError: it asks for more memory than there is.
    """
    try:
        container = open_container(data)
    except MemoryError:
        raise
    except BROKEN as error:
        raise MediaError(f"{kind}_undecodable", f"the file cannot be opened ({type(error).__name__})") from error
    with container:
        yield container


def each_stream(data: bytes, kind: str, chosen: Callable[[Any], bool] = lambda stream: True) -> Iterator[Any]:
    """Each chosen stream of a kind (video or audio), in a container that is opened for it alone.

    Opened again for each, never seeked: seeking a file with a cover picture can end the process.

    Raises:
      MediaError, MemoryError: as of `opened`.
    """
    left: list[int] | None = None
    while left is None or left:
        with opened(data, kind) as container:
            if left is None:
                left = [stream.index for stream in getattr(container.streams, kind) if chosen(stream)]
            if left:
                yield container.streams[left.pop(0)]


def is_cover(stream: Any) -> bool:
    """True if a video stream is a picture that belongs to a sound file. Seeking one can end the process (FFmpeg)."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def decoded_frames(stream: Any, max_pixels: int) -> Iterator[Any]:
    """The frames that can be decoded, in order. A broken packet costs only itself: the next ones are tried as well.

    Decodes with one thread: workers are processes already, and which frames of a broken file come out must not depend
    on timing.

    Raises:
      MemoryError: there was no memory for any of them.
    """
    context = stream.codec_context
    if context is None:
        return
    context.thread_count = 1
    if stream.type == "video":
        context.options = {"max_pixels": str(max_pixels)}
    packets = stream.container.demux(stream)
    no_memory: BaseException | None = None
    for _ in range(_MAX_PACKETS):
        try:
            packet = next(packets, None)
        except BROKEN:
            packet = None
        if packet is None:
            break
        try:
            frames = packet.decode()
        except MemoryError as error:
            no_memory = no_memory or error
            continue
        except BROKEN:
            continue
        no_memory = None if frames else no_memory
        yield from frames
    if no_memory is not None:
        raise no_memory

"""One media entry of a post -> its bytes -> arrays of the modalities it gives, or one typed error.

The bytes are read in the worker and decoded in a process of its own (`transforms.media.sandbox`).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from transforms.media import audio_decode, image_decode, video
from transforms.media.http_fetch import fetch, is_http
from transforms.media.image_descriptors import image_features
from transforms.media.media_files import MediaError, MediaLimits, read_media, resolve_uri

MEDIA_KINDS = ("image", "video", "audio")
NO_MEMORY = "decoding takes more memory than --max_decode_mib"
_LONGEST_SIDE = 2048


class Medium(NamedTuple):
    """Bytes of a media file and its declared kind (image, video or audio)."""

    kind: str
    data: bytes


def read_uri(uri: str, roots: Sequence[str], hosts: Sequence[str], limits: MediaLimits) -> bytes:
    """The bytes behind a URI: by http(s) from one of `hosts`, else of a file inside one of `roots`.

    Raises:
      MediaError: of `fetch`, `resolve_uri` or `read_media`.
    """
    if hosts and is_http(uri):
        return fetch(uri, hosts, limits)
    return read_media(resolve_uri(uri, roots), limits)


def decode_medium(kind: str, data: bytes, limits: MediaLimits, wanted: Mapping[str, bool]) -> dict[str, np.ndarray]:
    """Arrays of the wanted modalities of a file; a clip's sound is one too.

    Args:
      kind: image, video or audio.
      data: the bytes of the file.
      limits: of one file.
      wanted: modality -> whether its description is wanted ([width] float32) and not the decoded sample: a picture
        ([h, w, 3] uint8 BGR) or a sound ([num_samples] float32). Of a clip there is only the description.

    Raises:
      MediaError: it gives none of them.
    """
    try:
        if kind == "image":
            return {"image": _picture(image_decode.decode_image(data, limits), wanted["image"])}
        if kind == "audio":
            return {"audio": audio_decode.read_audio(data, limits)}
        return _decode_clip(data, limits, wanted)
    except MediaError:
        raise
    except MemoryError as error:
        raise MediaError("decoder_memory", NO_MEMORY) from error
    except Exception as error:
        if is_no_memory(error):
            raise MediaError("decoder_memory", NO_MEMORY) from error
        # Decoders raise exceptions of any type. Their texts may hold content: only the type is reported.
        raise MediaError("media_failed", f"a decoder raised {type(error).__name__}") from error


def is_no_memory(error: Exception) -> bool:
    """True if an OpenCV error is an out-of-memory error: its own, or one of C++ that it passes on."""
    return isinstance(error, cv2.error) and (error.code == cv2.Error.StsNoMem or "std::bad_alloc" in str(error))


def _picture(picture: np.ndarray, described: bool) -> np.ndarray:
    """Its description, or itself, no side longer than 2048 pixels (a strip of one pixel may have millions)."""
    if described:
        return image_features(picture)
    height, width = (min(side, _LONGEST_SIDE) for side in picture.shape[:2])
    return picture if picture.shape[:2] == (height, width) else cv2.resize(picture, (width, height))


def _decode_clip(data: bytes, limits: MediaLimits, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """A clip's frames and its sound track; one of them is enough."""
    found: dict[str, np.ndarray] = {}
    failure: MediaError | None = None
    if "video" in wanted:
        try:
            found["video"] = video.video_features(video.read_video(data, limits))
        except MediaError as error:
            failure = error
    if "audio" in wanted:
        try:
            found["audio"] = audio_decode.read_audio(data, limits)
        except MediaError as error:
            failure = failure or error
    if not found and failure is not None:
        raise failure
    return found

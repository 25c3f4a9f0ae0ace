"""Decoding of pictures: bytes -> a small BGR picture."""

import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    PsdImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from transforms.media.demux import BROKEN, decoded_frames, open_container
from transforms.media.file_signatures import FORMATS, sniff
from transforms.media.media_files import MediaError, MediaLimits, check_memory

# Workers are processes already; threads of the decoders would only multiply with them. OpenCV also logs oddities.
cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
# Pillow's own limit on pixels: MediaLimits.max_pixels is checked instead, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

_MIN_SIDE = 256  # Pictures are not scaled down below this shorter side: networks want some 224, the descriptors 128.
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}

# The plugins are called by name and not found by `Image.open`, so that no other plugin ever sees the bytes.
_PLUGINS: Mapping[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "avif": AvifImagePlugin.AvifImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "jp2": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "jpeg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "pnm": PpmImagePlugin.PpmImageFile,
    "psd": PsdImagePlugin.PsdImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
}
_JPEG_END = b"\xff\xd9"
# Deflate packs at most 1032 bytes into one: 8256 pixels of one bit. No lossless format here is denser.
_MAX_PIXELS_PER_BYTE = 8256
_LOSSLESS = frozenset(("bmp", "gif", "pfm", "png", "pnm"))
_PFM = re.compile(rb"P([Ff])\s+(\d{1,9})\s+(\d{1,9})\s+(-?)[\d.e+]+\s")


def decode_image(data: bytes, limits: MediaLimits) -> np.ndarray:
    """The picture as a viewer shows it, [h, w, 3] uint8 BGR.

    It is scaled down by 1, 2, 4 or 8, to a shorter side of 256 pixels or more. The size is checked by the header before
    anything is decoded. Orientation (EXIF, TIFF, AVIF/HEIC) is applied, transparency laid on white, 16 bits cut to 8;
    of an animation it is the first frame.

    Raises:
      MediaError: media_empty, media_wrong_kind, image_unsupported, image_too_large, image_truncated or
        image_undecodable.
      MemoryError: there is not enough for it.
    """
    name = _image_format(data)
    if name == "jpeg":
        return _decode_jpeg(data, limits)
    if name == "heic":
        picture = _decode_heic(data, limits)
    elif name == "pfm":
        picture = _decode_pfm(data, limits)
    else:
        picture = _decode_with_pillow(name, data, limits)
    height, width = picture.shape[:2]
    if (scale := _scale(width, height)) > 1:
        picture = cv2.resize(picture, (-(-width // scale), -(-height // scale)), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(picture)


def _image_format(data: bytes) -> str:
    """The format by the first bytes, one of those that are decoded."""
    if not data:
        raise MediaError("media_empty", "the file has no bytes")
    name = sniff(data)
    if name == "unknown":
        raise MediaError("image_undecodable", "no known picture format")
    if FORMATS[name] != "image":
        raise MediaError("media_wrong_kind", f"expected an image, found {name}")
    if name not in (*_PLUGINS, "heic", "pfm"):
        raise MediaError("image_unsupported", f"{name} is not decoded here")
    return name


def _check_size(name: str, width: int, height: int, data: bytes, limits: MediaLimits) -> None:
    if not width or not height:
        raise MediaError("image_undecodable", f"the {name} header claims no pixels")
    if width * height > limits.max_pixels:
        size = f"{width}x{height}"
        raise MediaError("image_too_large", f"the header claims {size}, the limit is {limits.max_pixels} pixels")
    if name in _LOSSLESS and width * height > _MAX_PIXELS_PER_BYTE * len(data):
        raise MediaError("image_truncated", f"the {name} has too few bytes for its size")


def _scale(width: int, height: int) -> int:
    return next((scale for scale in (8, 4, 2) if min(width, height) >= scale * _MIN_SIDE), 1)


def _decode_jpeg(data: bytes, limits: MediaLimits) -> np.ndarray:
    """The picture scaled down while it is decoded, and oriented: OpenCV gives the pixels of Pillow in less time.

    libjpeg fills in gray what is missing; only a stricter decoder (FFmpeg's) distinguishes that from a gray border.
    """
    header = _open("jpeg", data, limits)
    assert header.fp is not None
    if not data.endswith(_JPEG_END) and data.find(_JPEG_END, header.fp.tell()) < 0:
        raise MediaError("image_truncated", "the JPEG has no end")
    flags = _REDUCED.get(_scale(*header.size), cv2.IMREAD_COLOR)
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        picture = None
    if picture is None:
        check_memory(*header.size)
        raise MediaError("image_undecodable", "OpenCV cannot decode this JPEG")
    edges = picture[0], picture[-1], picture[:, 0], picture[:, -1]
    if any((edge == 128).all() for edge in edges) and not _is_whole_jpeg(data):
        raise MediaError("image_truncated", "the JPEG's data end before its picture does")
    return picture


def _is_whole_jpeg(data: bytes) -> bool:
    try:
        with open_container(data, "jpeg_pipe") as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            stream.codec_context.thread_count = 1
            return any(packet.decode() for packet in container.demux(stream))
    except BROKEN:
        return False


def _open(name: str, data: bytes, limits: MediaLimits) -> ImageFile.ImageFile:
    """The picture with its header read and its size checked, not decoded."""
    if name == "webp":
        _check_webp(data, limits)
    try:
        image = _PLUGINS[name](io.BytesIO(data))
    except MemoryError:
        raise
    except Exception as error:  # Plugins raise what they like for broken files.
        raise _pillow_failure(name, error) from error
    _check_size(name, *image.size, data, limits)
    return image


def _check_webp(data: bytes, limits: MediaLimits) -> None:
    """Refuses a WebP by its header: Pillow gets two canvases to read it into, and does not say why it could not.

    Layout: https://developers.google.com/speed/webp/docs/riff_container
    """
    if data[12:16] == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    _check_size("webp", width, height, data, limits)
    if int.from_bytes(data[4:8], "little") + 8 > len(data) + 1:
        raise MediaError("image_truncated", "the webp is cut off")
    check_memory(width, height)


def _decode_with_pillow(name: str, data: bytes, limits: MediaLimits) -> np.ndarray:
    image = _open(name, data, limits)
    try:
        image.load()
        if name == "png" and _is_short_png(image, data):
            raise OSError("the data end before the picture does")
        ImageOps.exif_transpose(image, in_place=True)
        return _to_bgr(image)
    except MemoryError:
        raise
    except Exception as error:
        check_memory(*image.size)
        picture = _decode_tiff_with_ffmpeg(data, limits) if name == "tiff" else None
        if picture is None:
            raise _pillow_failure(name, error) from error
        return picture


def _is_short_png(image: Image.Image, data: bytes) -> bool:
    """True if a PNG's rows end early: Pillow leaves the rest 0, OpenCV refuses (and may crash on broken animations)."""
    last_row = image.crop((0, image.height - 1, *image.size)).tobytes()
    return not any(last_row) and b"acTL" not in data and cv2.imdecode(np.frombuffer(data, np.uint8), 0) is None


def _pillow_failure(name: str, error: Exception) -> MediaError:
    """The reject for what Pillow raised; the text of its errors is the only sign of the reason."""
    if isinstance(error, OSError) and "truncated" in str(error).lower():
        return MediaError("image_truncated", f"the {name} is cut off")
    if "unknown pixel mode" in str(error):
        return MediaError("image_unsupported", f"{name} of a variant that is not decoded here")
    return MediaError("image_undecodable", f"Pillow cannot decode this {name} ({type(error).__name__})")


def _to_bgr(image: Image.Image) -> np.ndarray:
    """[h, w, 3] uint8 of a loaded picture of any mode."""
    if image.mode.startswith("I"):
        return cv2.cvtColor(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    if image.mode == "F":
        return _floats_to_bgr(np.asarray(image)[..., None])
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return cv2.cvtColor(np.asarray(image if image.mode == "RGB" else image.convert("RGB")), cv2.COLOR_RGB2BGR)


def _floats_to_bgr(rgb: np.ndarray) -> np.ndarray:
    """[h, w, 3] uint8 of [h, w, 1 or 3] floats from 0 to 1, or to 255 where one is above 1."""
    finite = np.nan_to_num(rgb, nan=0.0, posinf=0.0, neginf=0.0)
    unit = 255.0 if finite.max(initial=0.0) <= 1.0 else 1.0
    levels = np.clip(finite * unit, 0, 255).astype(np.uint8)
    return np.repeat(levels, 3, axis=2) if levels.shape[2] == 1 else levels[..., ::-1]


def _decode_pfm(data: bytes, limits: MediaLimits) -> np.ndarray:
    """A portable float map (rows from the bottom up); Pillow reads only gray ones."""
    found = _PFM.match(data[:1024])
    if not found:
        raise MediaError("image_undecodable", "no PFM header")
    width, height, channels = int(found[2]), int(found[3]), 3 if found[1] == b"F" else 1
    _check_size("pfm", width, height, data, limits)
    if 4 * width * height * channels > len(data) - found.end():
        raise MediaError("image_truncated", "the pfm is cut off")
    floats = np.frombuffer(data, "<f4" if found[4] else ">f4", width * height * channels, found.end())
    return _floats_to_bgr(floats.reshape(height, width, channels)[::-1])


def _decode_heic(data: bytes, limits: MediaLimits) -> np.ndarray:
    """The main picture of a HEIC file by FFmpeg, which does not put together those that are made of tiles."""
    try:
        with open_container(data) as container:
            streams = container.streams.video
            main = next((stream for stream in streams if stream.disposition & Disposition.default), None)
            if main is None and len(streams):
                raise MediaError("image_unsupported", "heic made of tiles is not decoded here")
            if main is None or main.codec_context is None:
                raise MediaError("image_undecodable", "the heic has no picture")
            width, height = main.codec_context.width, main.codec_context.height
            _check_size("heic", width, height, data, limits)
            for frame in decoded_frames(main, limits.max_pixels):
                return _upright(frame.to_ndarray(format="bgr24"), frame)
            check_memory(width, height)
    except MemoryError:
        raise
    except BROKEN as error:
        raise MediaError("image_undecodable", f"the heic cannot be decoded ({type(error).__name__})") from error
    raise MediaError("image_unsupported", "heic of a variant that is not decoded here")


def _decode_tiff_with_ffmpeg(data: bytes, limits: MediaLimits) -> np.ndarray | None:
    """The picture of a TIFF whose size has been checked; None if FFmpeg cannot decode it either."""
    try:
        with open_container(data, "tiff_pipe") as container:
            frame = next(decoded_frames(container.streams.video[0], limits.max_pixels), None)
            return None if frame is None else frame.to_ndarray(format="bgr24")
    except MemoryError:
        raise
    except BROKEN:
        return None


def _upright(picture: np.ndarray, frame: Any) -> np.ndarray:
    """The picture turned and mirrored as the frame's display matrix says, in HEIC by multiples of 90 degrees."""
    try:
        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    except ValueError:
        # PyAV lists no side data where it does not know all kinds of them; the rotation it reads even so.
        return np.rot90(picture, round(frame.rotation / 90))
    if matrix is None:
        return picture
    right, down_of_x, _, right_of_y, down = np.frombuffer(matrix, np.int32, 5)
    if right == 0:
        picture, right, down = picture.swapaxes(0, 1), right_of_y, down_of_x
    return picture[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]

"""Pictures of posts: bytes -> a small BGR picture -> a vector."""

from collections.abc import Sequence

import cv2
import numpy as np

from transforms.media.demux import BROKEN, open_container
from transforms.media.file_signatures import FORMATS
from transforms.media.image_descriptors import WIDTH, image_features
from transforms.media.image_header import ImageHeader, read_header, still_png
from transforms.media.media_files import MediaError, MediaLimits, check_memory
from transforms.media.orientation import orient

__all__ = ["OpenCvImageEncoder", "decode_image", "image_features"]

# Workers are processes already; OpenCV's threads would only multiply with them. It also logs file contents' oddities.
cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_ENOUGH = 256  # The shorter side, in pixels, that is kept: networks want some 224, the descriptors 128.
_BY_OPENCV = frozenset(("jpeg", "png", "gif", "webp", "bmp", "tiff", "avif", "pnm", "pfm", "jp2"))
_BY_PYAV = frozenset(("tiff", "heic", "psd"))
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


class OpenCvImageEncoder:
    """Describes pictures with `image_features`: needs no trained network and nothing to download."""

    name = "opencv"
    width = WIDTH
    in_decoder = True

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """[n, width] float32, one row a picture ([h, w, 3] uint8 BGR)."""
        rows = [image_features(image) for image in images]
        return np.stack(rows) if rows else np.zeros((0, self.width), np.float32)


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
    header = _checked_header(data, limits)
    scale = next((scale for scale in (8, 4, 2) if min(header.width, header.height) >= scale * _ENOUGH), 1)
    if header.format == "png":
        data = still_png(data)
    picture = _decode_with_opencv(data, header, scale) if header.format in _BY_OPENCV else None
    if picture is not None:
        # libtiff turns the picture itself.
        orientation = 1 if header.format == "tiff" else header.orientation
    elif header.format in _BY_PYAV:
        picture, orientation = _decode_with_pyav(data, header, limits), header.orientation
    if picture is None:
        check_memory(header.width, header.height)
        raise _undecoded(header)
    if header.format == "jpeg" and _ends_in_filler(picture) and not _is_whole_jpeg(data):
        raise MediaError("image_truncated", "the JPEG's data end before its picture does")
    picture = _cropped(picture, header)
    if header.format != "jpeg" and scale > 1:
        size = -(-picture.shape[1] // scale), -(-picture.shape[0] // scale)
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(orient(picture, orientation))


def _checked_header(data: bytes, limits: MediaLimits) -> ImageHeader:
    if not data:
        raise MediaError("media_empty", "the file has no bytes")
    header = read_header(data)
    if FORMATS[header.format] != "image" and header.format != "unknown":
        raise MediaError("media_wrong_kind", f"expected an image, found {header.format}")
    if header.format == "unknown":
        raise MediaError("image_undecodable", "no known picture format")
    is_mosaic = header.format == "heic" and header.is_rare
    if header.format not in _BY_OPENCV | _BY_PYAV or is_mosaic:
        raise MediaError("image_unsupported", f"{header.format}{' made of tiles' * is_mosaic} is not decoded here")
    if not header.width or not header.height:
        code = "image_truncated" if header.is_cut else "image_undecodable"
        raise MediaError(code, f"the {header.format} header tells no size")
    if header.width * header.height > limits.max_pixels:
        size = f"{header.width}x{header.height}"
        raise MediaError("image_too_large", f"the header claims {size}, the limit is {limits.max_pixels} pixels")
    if header.is_cut:
        raise MediaError("image_truncated", f"the {header.format} is cut off")
    return header


def _decode_with_opencv(data: bytes, header: ImageHeader, scale: int) -> np.ndarray | None:
    """The coded picture in BGR (a JPEG scaled down, others whole), None when OpenCV cannot."""
    if header.format == "jpeg":
        flags = _REDUCED.get(scale, cv2.IMREAD_COLOR)
    else:
        # PFM as color would be rounded to whole numbers: its floats may lie between 0 and 1.
        flags = cv2.IMREAD_UNCHANGED if header.has_alpha or header.format == "pfm" else cv2.IMREAD_COLOR
    picture = None
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
        if picture is not None and picture.dtype == np.uint16 and header.format == "avif":
            # Ten bits in sixteen: let OpenCV scale them, without the alpha.
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return None if picture is None else _to_bgr(picture)


def _decode_with_pyav(data: bytes, header: ImageHeader, limits: MediaLimits) -> np.ndarray | None:
    """The coded picture in BGR, None when PyAV cannot: HEIC, PSD, and some TIFF that OpenCV refuses."""
    try:
        with open_container(data) as container:
            for stream in container.streams.video:
                context = stream.codec_context
                if context is None or (header.format == "heic" and context.width not in (0, header.width)):
                    continue
                context.options = {"max_pixels": str(limits.max_pixels)}
                context.thread_count = 1
                for packet in container.demux(stream):
                    for frame in packet.decode():
                        has_alpha = any(part.is_alpha for part in frame.format.components) or frame.format.has_palette
                        return _to_bgr(frame.to_ndarray(format="bgra" if has_alpha else "bgr24"))
    except BROKEN:
        return None
    return None


def _to_bgr(picture: np.ndarray) -> np.ndarray:
    """[h, w, 3] uint8 of whatever a decoder gave: gray, 16 bits, floats, or with alpha (laid on white)."""
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)
    elif picture.dtype != np.uint8:
        finite = np.nan_to_num(picture, nan=0.0, posinf=0.0, neginf=0.0)
        unit = 255.0 if finite.max(initial=0.0) <= 1.0 else 1.0
        picture = np.clip(finite * unit, 0, 255).astype(np.uint8)
    if picture.ndim == 2 or picture.shape[2] == 1:
        return cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    if picture.shape[2] == 4:
        alpha = picture[..., 3:].astype(np.uint16)
        return ((picture[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return picture[..., :3]


def _cropped(picture: np.ndarray, header: ImageHeader) -> np.ndarray:
    """The middle part that the file wants shown (AVIF and HEIC's clean aperture)."""
    if header.crop is None or not (0 < header.crop[0] <= picture.shape[1] and 0 < header.crop[1] <= picture.shape[0]):
        return picture
    width, height = header.crop
    left, top = (picture.shape[1] - width) // 2, (picture.shape[0] - height) // 2
    return picture[top : top + height, left : left + width]


def _ends_in_filler(picture: np.ndarray) -> bool:
    """True if the last row is nothing but the gray 128 that libjpeg puts where data are missing."""
    return bool((picture[-1] == 128).all())


def _is_whole_jpeg(data: bytes) -> bool:
    """A strict second decoder's word on a JPEG that ends in gray: a gray border is real, missing data are an error."""
    try:
        with open_container(data, "jpeg_pipe") as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            stream.codec_context.thread_count = 1
            return any(packet.decode() for packet in container.demux(stream))
    except BROKEN:
        return False


def _undecoded(header: ImageHeader) -> MediaError:
    """Why neither decoder made a picture: a rare variant of a format that is otherwise decoded, or broken data."""
    if header.is_rare or header.format == "heic":
        return MediaError("image_unsupported", f"{header.format} of a variant that is not decoded here")
    return MediaError("image_undecodable", f"no decoder makes a picture of this {header.format}")

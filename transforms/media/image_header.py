"""Image header fields, read without decoding: size, orientation, alpha, and whether it is cut off."""

import dataclasses
import re
import struct
from collections.abc import Callable, Iterator, Mapping

from transforms.media.file_signatures import sniff
from transforms.media.isobmff import read_picture_box
from transforms.media.tiff_tags import exif_orientation, tiff_tags, valid_orientation


@dataclasses.dataclass(frozen=True)
class ImageHeader:
    """A picture by its header.

    Attributes:
      format: as `media_formats.sniff` names it.
      width, height: pixels as coded, before orientation; 0 where the header does not say.
      orientation: EXIF's 1 to 8, what has to be done to the coded picture.
      has_alpha: whether some pixel may be transparent.
      is_cut: whether the end of the picture is missing.
      is_rare: whether it is of a variant that few decoders know: a TIFF of floats or with an unusual compression, a
        HEIC that is a mosaic of tiles.
      crop: width and height of the middle part that is to be shown, or None.
    """

    format: str
    width: int = 0
    height: int = 0
    orientation: int = 1
    has_alpha: bool = False
    is_cut: bool = False
    is_rare: bool = False
    crop: tuple[int, int] | None = None


def read_header(data: bytes) -> ImageHeader:
    """The header of a picture; `width` and `height` are 0 when the format is not known or the header is broken."""
    name = sniff(data)
    reader = _READERS.get(name)
    try:
        return reader(data) if reader else ImageHeader(name)
    except (struct.error, IndexError, ValueError):
        return ImageHeader(name)


_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
# A search for an expression takes half of the time of bytes.find.
_JPEG_END = re.compile(rb"\xff\xd9")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, begin, end of its payload) up to the end of the picture; ends without D9 when the picture is cut off."""
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        marker, begin = found.group(1)[0], found.end()
        if marker in (0xD8, 0x01):
            at = begin
            continue
        if marker == 0xD9:
            yield marker, begin, begin
            return
        end = begin + int.from_bytes(data[begin : begin + 2], "big")
        yield marker, begin + 2, end
        if marker == 0xDA:
            # Inside the coded data FF D9 cannot be anything but the end: FF is followed by 00 or a restart marker.
            if last := _JPEG_END.search(data, end):
                yield 0xD9, last.start(), last.start()
            return
        at = max(end, begin)


def _read_jpeg(data: bytes) -> ImageHeader:
    width = height = blocks = scan_begin = 0
    orientation, last, is_sequential = 1, 0, True
    for marker, begin, end in _jpeg_segments(data):
        last = marker
        if marker in _JPEG_SIZE_MARKERS and not width:
            height, width, components = struct.unpack_from(">HHB", data, begin + 1)
            is_sequential = marker in (0xC0, 0xC1)
            blocks = -(-width // 8) * -(-height // 8) if components else 0
        elif marker == 0xE1 and data[begin : begin + 6] == b"Exif\0\0" and orientation == 1:
            orientation = exif_orientation(data[begin + 6 : end])
        elif marker == 0xDA:
            scan_begin = scan_begin or end
        elif marker == 0xD9 and is_sequential and (begin - scan_begin) * 8 < 2 * blocks:
            # Each block takes at least two bits (a DC and an end-of-block code): here some are missing.
            last = 0
    return ImageHeader("jpeg", width, height, orientation, is_cut=last != 0xD9)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, begin, end) of a PNG's chunks, each with its length and checksum, as far as they are there."""
    at = 8
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + size > len(data):
            return
        yield kind, at, at + 12 + size
        at += 12 + size


_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_SHOWN = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))


def still_png(data: bytes) -> bytes:
    """The PNG with nothing in it but its still picture.

    OpenCV 5.0 crashes on damaged animations and refuses some whole ones; texts, profiles and EXIF are not needed.
    """
    return data[:8] + b"".join(data[begin:end] for kind, begin, end in png_chunks(data) if kind in _PNG_SHOWN)


def _read_png(data: bytes) -> ImageHeader:
    if data[12:16] != b"IHDR":
        raise ValueError("a PNG begins with IHDR")
    width, height, depth, color = struct.unpack_from(">IIBB", data, 16)
    kinds = {kind: (begin, end) for kind, begin, end in png_chunks(data)}
    # Deflate packs 1032 bytes into one at best: a header that claims more is a trap.
    row = 1 + (width * depth * _PNG_CHANNELS.get(color, 4) + 7) // 8
    is_cut = b"IEND" not in kinds or row * height > 1032 * len(data)
    begin, end = kinds.get(b"eXIf", (0, 0))
    orientation = exif_orientation(data[begin + 8 : end])
    return ImageHeader("png", width, height, orientation, color in (4, 6) or b"tRNS" in kinds, is_cut)


def _read_gif(data: bytes) -> ImageHeader:
    width, height = struct.unpack_from("<HH", data, 6)
    # LZW's longest code stands for 4096 pixels.
    is_cut = _is_cut_gif(data) or width * height > 4096 * len(data)
    return ImageHeader("gif", width, height, has_alpha=True, is_cut=is_cut)


def _is_cut_gif(data: bytes) -> bool:
    """True if the data end inside the first picture: OpenCV would show what is there, the rest black."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while at < len(data):
        block = data[at]
        if block == 0x2C:
            if at + 10 >= len(data):
                return True
            at += 11 + (3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0)
        elif block == 0x21:
            at += 2
        else:
            return False
        while at < len(data) and data[at]:
            at += 1 + data[at]
        if block == 0x2C:
            return at >= len(data)
        at += 1
    return True


def _read_webp(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 4)
    is_cut, kind = size + 8 > len(data) + 1, data[12:16]
    if kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
        return ImageHeader("webp", width, height, is_cut=is_cut)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return ImageHeader("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 1, bool(bits >> 28 & 1), is_cut)
    if kind != b"VP8X":
        raise ValueError("no WebP picture chunk")
    flags, width, height = data[20], int.from_bytes(data[24:27], "little"), int.from_bytes(data[27:30], "little")
    exif_at = data.rfind(b"EXIF") if flags & 0x08 else -1
    orientation = exif_orientation(data[exif_at + 8 :].removeprefix(b"Exif\0\0")) if exif_at > 0 else 1
    return ImageHeader("webp", width + 1, height + 1, orientation, bool(flags & 0x12), is_cut)


def _read_bmp(data: bytes) -> ImageHeader:
    offset, header_size = struct.unpack_from("<II", data, 10)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)
    if compression in (1, 2):
        # Run lengths: two bytes stand for at most 255 pixels.
        is_cut = width * height > 128 * max(len(data) - offset, 0)
    else:
        is_cut = compression in (0, 3, 6) and offset + (width * bits + 31) // 32 * 4 * height > len(data) + 4
    return ImageHeader("bmp", max(width, 0), height, is_cut=is_cut)


_PNM = re.compile(rb"P[1-7Ff](?:\s|#[^\n]*\n)+(?:WIDTH\s+)?(\d{1,9})\s(?:\s|#[^\n]*\n)*(?:HEIGHT\s+)?(\d{1,9})\s")


def _read_pnm(data: bytes) -> ImageHeader:
    found = _PNM.match(data[:1024])
    if not found:
        raise ValueError("no PNM header")
    width, height = int(found.group(1)), int(found.group(2))
    # Binary samples: at least a bit each (P4), a byte (P5), three (P6), four or twelve (floats).
    bits = {b"P4": 1, b"P5": 8, b"P6": 24, b"Pf": 32, b"PF": 96}.get(data[:2], 0)
    is_cut = found.end() + width * height * bits // 8 > len(data)
    return ImageHeader("pfm" if data[1:2] in b"Ff" else "pnm", width, height, is_cut=is_cut)


# None, CCITT, LZW, JPEG, Deflate, PackBits.
_TIFF_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946))


def _read_tiff(data: bytes) -> ImageHeader:
    all_tags = tiff_tags(data)
    tags = {tag: values[0] for tag, values in all_tags.items()}
    is_rare = tags.get(259, 1) not in _TIFF_COMPRESSIONS or tags.get(339, 1) == 3
    # Strips (273, 279) or tiles (324, 325): where they are and how long.
    places = [(all_tags.get(at, ()), all_tags.get(size, ())) for at, size in ((273, 279), (324, 325))]
    is_cut = any(at + size > len(data) for ats, sizes in places for at, size in zip(ats, sizes, strict=False))
    orientation = valid_orientation(tags.get(274, 1))
    return ImageHeader("tiff", tags.get(256, 0), tags.get(257, 0), orientation, is_cut=is_cut, is_rare=is_rare)


def _read_jp2(data: bytes) -> ImageHeader:
    box = data.find(b"ihdr", 0, 4096)
    if box > 0:
        height, width = struct.unpack_from(">II", data, box + 4)
    else:
        at = data.index(b"\xff\x51")
        right, bottom, left, top = struct.unpack_from(">IIII", data, at + 6)
        width, height = right - left, bottom - top
    return ImageHeader("jp2", max(width, 0), max(height, 0))


def _read_psd(data: bytes) -> ImageHeader:
    height, width = struct.unpack_from(">II", data, 14)
    return ImageHeader("psd", width, height)


def _read_isobmff(data: bytes) -> ImageHeader:
    box = read_picture_box(data)
    return ImageHeader(
        sniff(data), box.width, box.height, box.orientation, box.has_alpha, is_rare=box.is_tiled, crop=box.crop
    )


_READERS: Mapping[str, Callable[[bytes], ImageHeader]] = {
    "jpeg": _read_jpeg,
    "png": _read_png,
    "gif": _read_gif,
    "webp": _read_webp,
    "bmp": _read_bmp,
    "pnm": _read_pnm,
    "pfm": _read_pnm,
    "tiff": _read_tiff,
    "jp2": _read_jp2,
    "psd": _read_psd,
    "avif": _read_isobmff,
    "heic": _read_isobmff,
}

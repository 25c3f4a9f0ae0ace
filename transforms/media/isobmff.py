"""Properties of the main picture of an AVIF or HEIC file: boxes of ISO/IEC 14496-12 and 23008-12."""

import dataclasses
import struct
from collections.abc import Iterator

import numpy as np

from transforms.media.orientation import CORNER, orientation_of


@dataclasses.dataclass(frozen=True)
class PictureBox:
    """Size as coded, EXIF-like orientation, alpha, whether it is a mosaic of tiles, and the part to be shown."""

    width: int = 0
    height: int = 0
    orientation: int = 1
    has_alpha: bool = False
    is_tiled: bool = False
    crop: tuple[int, int] | None = None


def read_picture_box(data: bytes) -> PictureBox:
    """The main picture of an AVIF or HEIC file.

    Raises:
      ValueError, struct.error: the boxes are broken or there is no picture.
    """
    meta = next((data[begin:end] for kind, begin, end in _boxes(data, 0, len(data)) if kind == b"meta"), None)
    if meta is None:
        raise ValueError("no meta box")
    boxes = {kind: meta[begin:end] for kind, begin, end in _boxes(meta, 4, len(meta))}
    primary = _number(boxes[b"pitm"], 4, 2 if boxes[b"pitm"][0] == 0 else 4) if b"pitm" in boxes else 1
    width = height = 0
    crop = None
    shown = CORNER
    for kind, value in _properties(boxes.get(b"iprp", b""), primary):
        if kind == b"ispe":
            width, height = struct.unpack_from(">II", value, 4)
        elif kind == b"clap":
            crop = _clean_aperture(value)
        elif kind == b"irot":
            shown = np.rot90(shown, value[0] & 3)
        elif kind == b"imir":
            # libavif: 0 exchanges top and bottom, 1 left and right.
            shown = shown[:, ::-1] if value[0] & 1 else shown[::-1]
    has_alpha = b"systems:auxiliary:alpha" in boxes.get(b"iprp", b"") or b"auxid:1" in boxes.get(b"iprp", b"")
    is_tiled = _item_type(boxes.get(b"iinf", b""), primary) == b"grid"
    return PictureBox(width, height, orientation_of(shown), has_alpha, is_tiled, crop)


def _boxes(data: bytes, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, begin, end of the content) of the boxes side by side in data[begin:end]."""
    while begin + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, begin)
        head = 8
        if size == 1:
            size, head = _number(data, begin + 8, 8), 16
        elif size == 0:
            size = end - begin
        if size < head:
            return
        yield kind, begin + head, min(begin + size, end)
        begin += size


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _properties(iprp: bytes, item: int) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of the item's properties, in the order in which they are to be applied."""
    parts = {kind: iprp[begin:end] for kind, begin, end in _boxes(iprp, 0, len(iprp))}
    values = parts.get(b"ipco", b"")
    properties = [(kind, values[begin:end]) for kind, begin, end in _boxes(values, 0, len(values))]
    for index in _associations(parts.get(b"ipma", b""), item):
        if 1 <= index <= len(properties):
            yield properties[index - 1]


def _associations(ipma: bytes, item: int) -> list[int]:
    """Numbers (from 1) of the properties that the item has."""
    if len(ipma) < 8:
        return []
    version, is_wide = ipma[0], ipma[3] & 1
    at, id_size, step = 8, 4 if version else 2, 2 if is_wide else 1
    for _ in range(_number(ipma, 4, 4)):
        if at >= len(ipma):
            break
        found, count = _number(ipma, at, id_size), _number(ipma, at + id_size, 1)
        at += id_size + 1
        if found == item:
            mask = 0x7FFF if is_wide else 0x7F
            return [_number(ipma, at + index * step, step) & mask for index in range(count)]
        at += count * step
    return []


def _item_type(iinf: bytes, item: int) -> bytes:
    """The four letters of the item's type (`grid` is a mosaic), empty where it is not given."""
    if len(iinf) < 6:
        return b""
    for kind, begin, end in _boxes(iinf, 6 if iinf[0] == 0 else 8, len(iinf)):
        version = iinf[begin]
        if kind == b"infe" and version >= 2:
            id_size = 2 if version == 2 else 4
            if _number(iinf, begin + 4, id_size) == item:
                return iinf[begin + 6 + id_size : min(begin + 10 + id_size, end)]
    return b""


def _clean_aperture(value: bytes) -> tuple[int, int] | None:
    """Width and height of the part to be shown. Its offset is taken as 0 (the middle), as cameras write it."""
    width_n, width_d, height_n, height_d = struct.unpack_from(">IIII", value, 0)
    if not width_d or not height_d:
        return None
    return width_n // width_d, height_n // height_d

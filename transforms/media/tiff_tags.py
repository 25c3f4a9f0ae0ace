"""The numbers in a TIFF's first directory; EXIF is a TIFF as well."""

import struct

# Size, bits, compression, strips and tiles, palette, JPEG tables.
_ESSENTIAL = frozenset((256, 257, 258, 259, 262, 273, 279, 320, 324, 325, 347))


def exif_orientation(exif: bytes) -> int:
    """EXIF's orientation, 1 to 8; 1 where it is missing or makes no sense."""
    try:
        return valid_orientation(tiff_tags(exif).get(274, (1,))[0])
    except (struct.error, IndexError, ValueError):
        return 1


def valid_orientation(value: int) -> int:
    """`value` where it is one of EXIF's orientations, else 1."""
    return value if 1 <= value <= 8 else 1


def tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """The values of the short and long tags in a TIFF's first directory (EXIF is a TIFF).

    Raises:
      ValueError, struct.error: no TIFF, or its directory is cut off.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError("no TIFF")
    is_big = struct.unpack_from(order + "H", data, 2)[0] == 43
    word = "Q" if is_big else "I"
    (at,) = struct.unpack_from(order + word, data, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, at)
    entry_format, begin = order + ("HHQ" if is_big else "HHI"), at + (8 if is_big else 2)
    head, room = struct.calcsize(entry_format), 8 if is_big else 4
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(begin, begin + min(count, 512) * (head + room), head + room):
        tag, kind, length = struct.unpack_from(entry_format, data, entry)
        letter, value_at = {3: "H", 4: "I", 7: "B", 16: "Q"}.get(kind), entry + head
        if letter is None or not 1 <= length <= 1 << 20:
            continue
        try:
            if length * struct.calcsize(order + letter) > room:
                (value_at,) = struct.unpack_from(order + word, data, value_at)
            tags[tag] = struct.unpack_from(f"{order}{length}{letter}", data, value_at)
        except struct.error:
            # A stray tag of EXIF does no harm; without one of these there is no picture.
            if tag in _ESSENTIAL:
                raise
    return tags

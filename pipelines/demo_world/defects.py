"""Deliberate defects of the demo world, with the code that each such row or file must be rejected with."""

import dataclasses
import struct
import zlib

import numpy as np

from pipelines.demo_world.clips import clip_file
from pipelines.demo_world.pictures import encode, paint

BAD_POST_LINES = (
    (b'{"post_id": "bad-cut", "text": "cut off in the mid', "row_malformed"),
    (b"this line is no JSON", "row_malformed"),
    (b'["post_id", "bad-list"]', "row_not_object"),
    (b"42", "row_not_object"),
    (b'{"author_id": "u0001", "text": "a post without an id"}', "id_missing"),
    (b'{"post_id": null, "text": "a post with a null for an id"}', "id_missing"),
    (b'{"post_id": "bad-time-1", "created_at": "last tuesday", "text": "when?"}', "time_invalid"),
    (b'{"post_id": "bad-time-2", "created_at": "2026-13-45T99:00:00Z", "text": "when?"}', "time_invalid"),
    (b'{"post_id": "bad-text", "text": {"en": "an object for a text"}}', "field_invalid"),
    (b'{"post_id": "bad-media", "text": "not a list", "media": 7}', "field_invalid"),
    (b'{"post_id": "bad-utf8", "text": "caf\xe9 latin"}', "encoding_invalid"),
)
BAD_USER_LINES = (
    (b'{"user_id": "bad-cut", "interests": ["jazz"', "row_malformed"),
    (b'"u0001"', "row_not_object"),
    (b'{"interests": ["a user", "without an id"]}', "id_missing"),
    (b'{"user_id": "bad-interests", "interests": 7}', "field_invalid"),
)
BAD_INTERACTION_LINES = (
    (b'{"user_id": "u0003", "post_id"', "row_malformed"),
    (b"[]", "row_not_object"),
    (b'{"post_id": "p00001", "kind": "like"}', "id_missing"),
    (b'{"user_id": "u0003", "kind": "like"}', "id_missing"),
    (b'{"user_id": "u0003", "post_id": "p00001", "kind": "like", "created_at": "soon"}', "time_invalid"),
    (b'{"user_id": "u0003", "post_id": "p00001", "kind": "like", "value": "many"}', "field_invalid"),
    (b'{"user_id": "u\xff", "post_id": "p00001", "kind": "like"}', "encoding_invalid"),
)
# Columns: user_id, post_id, kind, created_at, value.
BAD_INTERACTION_CSV_LINES = (
    (b"u0004,,like,2026-01-20T10:00:00Z,", "id_missing"),
    (b"u0004,p00002,like,the day after,", "time_invalid"),
    (b"u0004,p00002,view,2026-01-20T10:00:00Z,lots", "field_invalid"),
    (b"u0004,p00002,like,2026-01-20T10:00:00Z,,one,too,many", "row_malformed"),
)


@dataclasses.dataclass(frozen=True)
class BrokenMedia:
    """A media entry that must be rejected with `code`; `data` is its file, None where there is none."""

    kind: str
    uri: str
    code: str
    data: bytes | None


def broken_media(seed: int) -> list[BrokenMedia]:
    """One entry for everything that is wrong with media in this world."""
    rng = np.random.default_rng([seed, 7])
    picture = encode(".jpg", paint(rng, "gardening", 200, 160))
    noise = rng.bytes(3_000)
    return [
        BrokenMedia("image", "images/broken-truncated.jpg", "image_truncated", picture[: len(picture) // 3]),
        BrokenMedia("image", "images/broken-empty.jpg", "media_empty", b""),
        BrokenMedia("image", "images/broken-text.png", "image_undecodable", b"no picture, only words\n" * 9),
        BrokenMedia("image", "images/broken-missing.jpg", "media_missing", None),
        BrokenMedia("image", "images/broken-huge.png", "image_too_large", huge_png()),
        BrokenMedia("image", "images/broken-clip.jpg", "media_wrong_kind", clip_file(rng, "jazz")[1]),
        BrokenMedia("image", "../../etc/passwd", "media_outside_root", None),
        BrokenMedia("image", "http://example.org/cat.jpg", "media_scheme_not_allowed", None),
        BrokenMedia("hologram", "images/broken-hologram.holo", "media_kind_unknown", picture),
        BrokenMedia("video", "clips/broken-noise.mp4", "video_undecodable", noise),
        BrokenMedia("audio", "tones/broken-noise.ogg", "audio_undecodable", noise[::-1]),
    ]


def huge_png() -> bytes:
    """A PNG of some 70 bytes whose header announces 60,000 x 60,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body

"""Broken rows and media files made of real ones: bits flipped, cut off, spliced, and what is known to break parsers."""

import copy
import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# What stands in for a part of a line: extremes of numbers, nesting, escapes, characters that are none.
_TOKENS = (
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-0",
        b"9" * 400,
        b"18446744073709551616",
        b"0.1e-400",
        b"null",
        b"true",
        b"1.5",
    ),
    *(
        b'"',
        b"\\",
        b'\\"' * 2000,
        b'"\\ud800"',
        b'"\\u0000"',
        b"\0",
        b"\r",
        b"\n",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xc0\x80",
    ),
    *(b"[" * 70, b'{"a":' * 70, b"[" * 5000, b"{}", b"[]", b'[[{"a":[null]}]]', b'{"":""}', b",", b":", b"}", b"]"),
    *(
        "\u202e\u2066".encode(),
        "e\u0301".encode() * 50,
        "👩‍👩‍👧".encode() * 20,
        b"'; DROP TABLE posts; --",
    ),
    *(b'"../../etc/passwd"', b'"file:///etc/passwd"', b'"http://169.254.169.254/"', b'"1969-12-31T23:59:60Z"', b"-1"),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**31, 2**53 + 1, 2**63, -(2**63), 2**70, 1e308, 1e-320, -0.0, float("nan"), float("inf")),
    *("", " ", "x" * 100_000, "\0", "\ud800", "\u202e", "p1", "2026-01-01", "2026-13-40", "0000-00-00", "true", "1e3"),
    *([], {}, [[]], [None], [1, "a", None], ["a"] * 5_000, {"a": {"b": {"c": []}}}, [{"kind": 5}], [[1.0], [2.0]]),
    *({str(number): number for number in range(400)}, {"clip": "no"}, {"clip": [1, "a"]}, {"": [1.0]}),
)
_SIZES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xff", b"\0\x01")


def mutate_line(chosen: random.Random, lines: Sequence[bytes]) -> bytes:
    """One of the lines, broken; it may have become several. Half of them stay JSON, of values that nobody expects."""
    line = chosen.choice(lines)
    if chosen.random() < 0.5:
        return _mutate_values(chosen, line)
    data = bytearray(line)
    for _ in range(chosen.choice((1, 1, 1, 2, 5))):
        _mutate(chosen, data, lines, _TOKENS)
    return bytes(data)


def mutate_file(chosen: random.Random, files: Sequence[bytes]) -> bytes:
    """One of the files, broken."""
    data = bytearray(chosen.choice(files))
    for _ in range(chosen.choice((1, 1, 2, 5, 20))):
        _mutate(chosen, data, files, _SIZES)
    return bytes(data)


def _mutate_values(chosen: random.Random, line: bytes) -> bytes:
    """The JSON object with some values, or values in values, changed for others."""
    row = json.loads(line)
    for _ in range(chosen.choice((1, 1, 2, 4))):
        place: Any = row
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = chosen.choice(keys)
            if not (isinstance(place[key], dict | list) and place[key]) or chosen.random() < 0.3:
                break
            place = place[key]
        if chosen.random() < 0.1:
            del place[key]
        else:
            place[key] = copy.deepcopy(chosen.choice(_VALUES))
        if not place:
            break
    return json.dumps(row).encode()


def _mutate(chosen: random.Random, data: bytearray, others: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    """Breaks the data in place, in one of a few ways."""
    if not data:
        return
    # Half of the time near the beginning, where headers are.
    reach = len(data) if chosen.random() < 0.5 else min(len(data), 512)
    at = chosen.randrange(reach)
    way = chosen.randrange(6)
    if way == 0:
        for _ in range(chosen.choice((1, 2, 8, 64))):
            data[chosen.randrange(reach)] ^= 1 << chosen.randrange(8)
    elif way == 1:
        del data[chosen.randrange(len(data)) :]
    elif way == 2:
        del data[at : at + chosen.randrange(1, 200)]
    elif way == 3:
        other = chosen.choice(others)
        start = chosen.randrange(len(other) + 1)
        data[at:] = other[start:] if chosen.random() < 0.5 else other[start : start + chosen.randrange(1, 4000)]
    elif way == 4:
        data[at:at] = data[at : at + chosen.randrange(1, 200)] * chosen.choice((1, 2, 50))
    else:
        token = chosen.choice(tokens)
        data[at : at + chosen.choice((0, len(token)))] = token


def real_rows(table: str, number: int) -> list[bytes]:
    """Lines as an honest export has them: number of posts, interactions or users."""
    return [json.dumps(_ROWS[table](index), ensure_ascii=index % 2 == 0).encode() for index in range(number)]


def _post(index: int) -> dict[str, Any]:
    return {
        "post_id": f"p{index}",
        "author_id": f"a{index % 7}",
        "created_at": 1_700_000_000 + index if index % 3 else "2026-01-05T10:00:00+01:00",
        "text": f"post {index} ünd {'日本語' * (index % 4)} #tag @someone https://example.org/x",
        "lang": "en",
        "hashtags": ["tag", f"t{index % 5}"],
        "media": [{"kind": "image", "uri": f"{index}.jpg", "alt": "a picture"}] * (index % 3),
        "labels": ["x"],
        "sensitive": index % 5 == 0,
        "vectors": {"clip": [0.5, -1.25, index / 7]} if index % 2 else None,
        "extra": {"nested": [1, {"a": None}]},
    }


_ROWS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "posts": _post,
    "interactions": lambda index: {
        "user_id": f"u{index % 11}",
        "post_id": f"p{index % 13}",
        "kind": ("like", "view", "rating")[index % 3],
        "created_at": 1_700_000_000_000 + index,
        "value": index / 3,
    },
    "users": lambda index: {
        "user_id": f"u{index}",
        "interests": ["music", "日本"],
        "bio": 'likes "quotes" \\ and ünicode',
        "lang": "de",
        "blocked_authors": [f"a{index % 7}"],
    },
}


def made_media() -> dict[str, list[bytes]]:
    """Small real pictures, clips and sounds by kind, made in code."""
    import av
    import cv2
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    picture = cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC)
    alpha = np.dstack([picture, picture[..., 0]])
    images = [
        cv2.imencode(f".{ending}", picture)[1].tobytes()
        for ending in ("jpg", "webp", "bmp", "tiff", "avif", "jp2", "gif")
    ]
    images += [cv2.imencode(".png", each)[1].tobytes() for each in (picture, alpha, picture.astype(np.uint16) * 257)]

    def movie(container: str, video: str | None, audio: str | None) -> bytes:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=container) as output:
            streams: list[Any] = []
            if video:
                streams.append(output.add_stream(video, rate=25, width=160, height=120, pix_fmt="yuv420p"))
            if audio:
                streams.append(output.add_stream(audio, rate=48_000, layout="mono"))
            for index in range(12):
                for stream in streams:
                    if stream.type == "video":
                        frame: Any = av.VideoFrame.from_ndarray(np.roll(picture, 4 * index, 1), format="bgr24")
                    else:
                        wave = np.sin(np.arange(960) * (0.05 + index / 100)).astype(np.float32)[None]
                        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                        frame.sample_rate, frame.pts = 48_000, 960 * index
                    output.mux(stream.encode(frame))
            for stream in streams:
                output.mux(stream.encode(None))
        return buffer.getvalue()

    clips = [movie("mp4", "mpeg4", "aac"), movie("webm", "libvpx", "libopus"), movie("matroska", "mpeg4", "flac")]
    clips += [movie("avi", "mpeg4", "libmp3lame"), movie("mpegts", "mpeg2video", "mp2")]
    sounds = [movie("mp3", None, "libmp3lame"), movie("ogg", None, "libopus"), movie("flac", None, "flac")]
    sounds += [movie("wav", None, "pcm_s16le"), movie("adts", None, "aac")]
    return {"image": images, "video": clips, "audio": sounds}

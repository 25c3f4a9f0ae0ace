"""Tiny real media, made in code: pictures, clips and sounds, whole and broken."""

import fractions
import io
import struct
from collections.abc import Mapping, Sequence

import av
import cv2
import numpy as np

RED, GREEN, BLUE, WHITE = (0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255)


def corners(width: int = 64, height: int = 48) -> np.ndarray:
    """[height, width, 3] BGR: red, green, blue and white quarters, clockwise from the top left."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = RED
    picture[: height // 2, width // 2 :] = GREEN
    picture[height // 2 :, width // 2 :] = BLUE
    picture[height // 2 :, : width // 2] = WHITE
    return picture


def clouds(width: int = 320, height: int = 240, seed: int = 0) -> np.ndarray:
    """[height, width, 3] BGR: soft colors, nowhere the same, so that missing parts show."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(picture: np.ndarray, ending: str, *parameters: int) -> bytes:
    return cv2.imencode(ending, picture, list(parameters))[1].tobytes()


def exif(orientation: int) -> bytes:
    """An EXIF block (a little-endian TIFF) that holds an orientation."""
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 274, 3, 1, orientation, 0, 0)


def jpeg_with_exif(jpeg: bytes, orientation: int) -> bytes:
    block = b"Exif\0\0" + exif(orientation)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    import zlib

    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_chunks(png: bytes) -> dict[bytes, bytes]:
    """The contents of a whole PNG's chunks by their kind, those of one kind joined."""
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        chunks[kind] = chunks.get(kind, b"") + png[at + 8 : at + 8 + size]
        at += 12 + size
    return chunks


def png_with_exif(png: bytes, orientation: int) -> bytes:
    return png[:33] + png_chunk(b"eXIf", exif(orientation)) + png[33:]


def tiff(picture: np.ndarray, orientation: int = 1) -> bytes:
    """An uncompressed RGB TIFF whose directory stands before its one strip."""
    height, width = picture.shape[:2]
    pixels = picture[..., ::-1].tobytes()
    fields = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 0), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 0)]
    fields += [(274, 3, 1, orientation), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(pixels))]
    end = 8 + 2 + 12 * len(fields) + 4
    places = {258: end, 273: end + 6}
    directory = b"".join(struct.pack("<HHII", tag, kind, n, places.get(tag, value)) for tag, kind, n, value in fields)
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + directory + b"\0\0\0\0"
    return head + struct.pack("<HHH", 8, 8, 8) + pixels


def bmp_header(width: int, height: int, bits: int = 24, compression: int = 0) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def tone(hertz: float = 440.0, seconds: float = 1.0, rate: int = 16_000, level: float = 0.5) -> np.ndarray:
    """[num_samples] float32 sine."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = 16_000) -> bytes:
    """A WAV file of [num_samples] or [num_samples, channels]: int16, int32, int64, uint8, float32 or float64."""
    samples = samples[:, None] if samples.ndim == 1 else samples
    size, channels = samples.dtype.itemsize, samples.shape[1]
    format_code = 3 if samples.dtype.kind == "f" else 1
    head = struct.pack("<HHIIHH", format_code, channels, rate, rate * channels * size, channels * size, 8 * size)
    data = samples.tobytes()
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def movie(
    pictures: Sequence[np.ndarray],
    sound: np.ndarray | None = None,
    container: str = "mp4",
    codec: str = "mpeg4",
    rate: int = 25,
) -> bytes:
    """A clip of the pictures (all of one size, none for sound only), with a mono sound of 16 kHz."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        video = audio = None
        if len(pictures):
            video = output.add_stream(codec, rate=rate)
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt = "yuv420p"
            video.bit_rate = 4_000_000
        if sound is not None:
            audio = output.add_stream(_SOUND_CODECS.get(container, "aac"), rate=_SOUND_RATES.get(container, 16_000))
            audio.layout = "mono"
        for picture in pictures:
            output.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        if video is not None:
            output.mux(video.encode(None))
        if audio is not None:
            for frame in _sound_frames(sound, audio):
                output.mux(audio.encode(frame))
            output.mux(audio.encode(None))
    return buffer.getvalue()


def box(kind: bytes, *content: bytes) -> bytes:
    """A box of the ISO base media format."""
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def full_box(kind: bytes, *content: bytes, version: int = 0) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]), *content)


def heic(picture: np.ndarray, properties: Mapping[bytes, int] | None = None, is_grid: bool = False) -> bytes:
    """A HEIC file of one picture, with properties of one byte (irot, imir), or of two tiles side by side."""
    height, width = picture.shape[:2]
    config, sample = _hevc(picture)
    sizes = [full_box(b"ispe", struct.pack(">II", size, height)) for size in (width, 2 * width)]
    shown = [box(kind, bytes([value])) for kind, value in (properties or {}).items()]
    all_properties = [config, sizes[0], *shown, sizes[1]]
    types = {1: b"hvc1", 2: b"hvc1", 3: b"grid"} if is_grid else {1: b"hvc1"}
    infos = [full_box(b"infe", struct.pack(">HH4s", item, 0, kind), b"\0", version=2) for item, kind in types.items()]
    of_picture, of_grid = bytes(range(1, len(all_properties))), bytes([len(all_properties)])
    associations = [
        struct.pack(">HB", item, len(numbers)) + numbers
        for item, kind in types.items()
        for numbers in [of_grid if kind == b"grid" else of_picture]
    ]
    grid = b"\0\0\0\1" + struct.pack(">HH", 2 * width, height)

    def meta(sample_at: int) -> bytes:
        places = [
            struct.pack(">HHHHII", item, 1, 0, 1, 0, len(grid))  # In the idat box.
            if kind == b"grid"
            else struct.pack(">HHHHII", item, 0, 0, 1, sample_at, len(sample))
            for item, kind in types.items()
        ]
        ipma = full_box(b"ipma", struct.pack(">I", len(types)), *associations)
        return full_box(
            b"meta",
            full_box(b"hdlr", b"\0\0\0\0pict" + bytes(13)),
            full_box(b"pitm", struct.pack(">H", len(types))),
            full_box(b"iinf", struct.pack(">H", len(types)), *infos),
            box(b"iprp", box(b"ipco", *all_properties), ipma),
            full_box(b"iloc", struct.pack(">BBH", 0x44, 0, len(types)), *places, version=1),
            *([full_box(b"iref", box(b"dimg", struct.pack(">HHHH", 3, 2, 1, 2))), box(b"idat", grid)] * is_grid),
        )

    head = box(b"ftyp", b"heic\0\0\0\0mif1heic")
    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", sample)


def _hevc(picture: np.ndarray) -> tuple[bytes, bytes]:
    """(hvcC box, coded picture) of a picture in H.265."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        options = {"x265-params": "log-level=none:info=0:bframes=0", "preset": "ultrafast", "crf": "4"}
        stream = output.add_stream("libx265", rate=25, options=options)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt, stream.codec_tag = "yuv420p", "hvc1"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        output.mux(stream.encode(None))
    data = buffer.getvalue()
    boxes = []
    for kind in (b"hvcC", b"mdat"):
        at = data.index(kind) - 4
        boxes.append(data[at : at + int.from_bytes(data[at : at + 4], "big")])
    return boxes[0], boxes[1][8:]


_SOUND_CODECS = {"webm": "libopus", "ogg": "libopus", "mp3": "libmp3lame", "flac": "flac", "matroska": "flac"}
_SOUND_RATES = {"webm": 48_000, "ogg": 48_000}


def _sound_frames(sound: np.ndarray, stream: av.AudioStream) -> list[av.AudioFrame]:
    frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate = 16_000
    frame.time_base = fractions.Fraction(1, 16_000)
    frame.pts = 0
    context = stream.codec_context
    if not context.is_open:
        context.open()
    resampler = av.AudioResampler(stream.format.name, "mono", stream.rate, frame_size=context.frame_size or 1024)
    return [*resampler.resample(frame), *resampler.resample(None)]


def turned_mp4(mp4: bytes, matrix: Sequence[int]) -> bytes:
    """The MP4 with another display matrix (9 numbers, 16.16 fixed point, the last column 2.30) in its first track."""
    at = mp4.index(b"tkhd") + 4 + 4 + 5 * 4 + 8 + 8
    return mp4[:at] + struct.pack(">9i", *matrix) + mp4[at + 36 :]


def moving_box(num_frames: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    """A white box that goes from left to right over black."""
    pictures = []
    for index in range(num_frames):
        picture = np.zeros((height, width, 3), np.uint8)
        left = index * (width - 16) // max(1, num_frames - 1)
        picture[24:40, left : left + 16] = 255
        pictures.append(picture)
    return pictures

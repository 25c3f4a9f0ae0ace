"""Pictures, clips and sounds made in code, the same every time, with as much detail as real ones."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.process import Unavailable

FULL_HD = (1920, 1080)


def picture(width: int, height: int, seed: int) -> np.ndarray:
    """[height, width, 3] uint8 BGR: clouds of several sizes and grain, some 2 bits a pixel as a JPEG."""
    import cv2

    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(2, 8):
        size = max(1, min(width, 1 << octave)), max(1, min(height, 1 << octave))
        coarse = random.standard_normal((size[1], size[0], 3)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * (110 / octave)
    total += random.standard_normal((height, width, 1)).astype(np.float32) * 4
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def write_jpegs(directory: Path, number: int, width: int, height: int, num_scenes: int = 16) -> list[str]:
    """JPEGs in a folder, all different: shifted views of some scenes. Gives their names."""
    import cv2

    directory.mkdir(parents=True, exist_ok=True)
    scenes = [picture(width, height, seed) for seed in range(min(number, num_scenes))]
    names = []
    for index in range(number):
        view = np.roll(scenes[index % len(scenes)], 37 * (index // len(scenes)), axis=1)
        names.append(f"{width}x{height}-{index:05d}.jpg")
        cv2.imwrite(str(directory / names[-1]), view, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return names


def write_clip(path: Path, seconds: float, seed: int, width: int = 640, height: int = 360, rate: int = 25) -> None:
    """An MP4 (H.264, AAC) in which a large picture passes by, with a tone that changes."""
    import av

    scene = picture(2 * width, 2 * height, seed)
    with av.open(str(path), "w", format="mp4") as output:
        try:
            video = output.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        except Exception as error:
            raise Unavailable(f"no H.264 encoder to make clips with ({type(error).__name__})") from error
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = output.add_stream("aac", rate=44_100, layout="mono")
        for number in range(int(seconds * rate)):
            at = number * 3 % width
            view = np.ascontiguousarray(scene[at * height // width :][:height, at : at + width])
            output.mux(video.encode(av.VideoFrame.from_ndarray(view, format="bgr24")))
        output.mux(video.encode(None))
        _write_sound(output, audio, seconds, seed)


def write_sound(path: Path, seconds: float, seed: int) -> None:
    """An MP3 of a tone that changes."""
    import av

    with av.open(str(path), "w", format="mp3") as output:
        _write_sound(output, output.add_stream("libmp3lame", rate=44_100, layout="mono"), seconds, seed)


def _write_sound(output: "av.container.OutputContainer", stream: "av.AudioStream", seconds: float, seed: int) -> None:  # type: ignore[name-defined]  # noqa: F821
    import av

    rate = 44_100
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.4 * np.sin(2 * np.pi * (200 + 40 * seed + 150 * np.sin(time)) * time)
    wave += np.random.default_rng(seed).standard_normal(len(time)) * 0.02
    frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
    if not stream.codec_context.is_open:
        stream.codec_context.open()
    resampler = av.AudioResampler(stream.format.name, "mono", rate, frame_size=stream.codec_context.frame_size or 1152)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        output.mux(stream.encode(part))
    output.mux(stream.encode(None))


def posts_of(names: list[str]) -> pa.RecordBatch:
    """A block of posts with one medium each and no text."""
    from transforms.tables import schemas

    rows = [
        {"post_id": f"p{number:07d}", "media": [{"uri": name}], "sensitive": False} for number, name in enumerate(names)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=schemas.POSTS)

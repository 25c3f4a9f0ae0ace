"""Clips of the demo world: a picture of the topic, seen by a camera that moves as goes with the topic."""

import io

import av
import cv2
import numpy as np

from pipelines.demo_world.pictures import paint
from pipelines.demo_world.tones import RATE, add_samples, sound

FRAMES_PER_SECOND = 12


def clip_file(rng: np.random.Generator, topic: str) -> tuple[str, bytes]:
    """A clip of a topic as a file: its ending (mp4) and its bytes; two to three seconds, every third one with sound."""
    frames = film(rng, topic, int(rng.integers(24, 37)))
    samples = sound(rng, topic, len(frames) / FRAMES_PER_SECOND) if rng.random() < 0.35 else None
    return "mp4", _mp4(frames, samples)


def film(rng: np.random.Generator, topic: str, count: int) -> np.ndarray:
    """The frames of a clip: [count, 96, 128, 3] uint8, BGR."""
    scene = paint(rng, topic, 256, 192)
    frames = []
    for step in np.linspace(0, 1, count):
        if topic == "football" and abs(step - 0.5) < 0.5 / count:  # a cut to another camera
            scene = paint(rng, topic, 256, 192)
        x, y, zoom, light = _camera(topic, float(step))
        window = cv2.getRectSubPix(scene, (int(128 * zoom), int(96 * zoom)), (x, y))
        frame = cv2.resize(window, (128, 96), interpolation=cv2.INTER_AREA)
        frames.append(np.clip(frame * light, 0, 255).astype(np.uint8))
    return np.stack(frames)


def _camera(topic: str, step: float) -> tuple[float, float, float, float]:
    """Where the camera looks (x, y in the scene), how wide and how bright, at a step from 0 to 1 through the clip."""
    turn = 2 * np.pi * step
    if topic == "cooking":  # stirs
        return 128 + 30 * np.cos(3 * turn), 96 + 30 * np.sin(3 * turn), 1.0, 1.0
    if topic == "cycling":  # rides along, fast
        return 64 + 128 * ((2 * step) % 1.0), 96 + 3 * np.sin(9 * turn), 1.0, 1.0
    if topic == "astronomy":  # drifts with the sky
        return 120 + 12 * step, 90 + 6 * step, 1.0, 1.0
    if topic == "gardening":  # steps closer
        return 128, 96, 1.7 - 0.9 * step, 1.0
    if topic == "jazz":  # stage lights
        return 128, 96, 1.2, 0.75 + 0.35 * np.sin(5 * turn)
    return 128 + 50 * np.sin(2 * turn), 96 + 12 * np.sin(6 * turn), 1.3, 1.0


def _mp4(frames: np.ndarray, samples: np.ndarray | None) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        h264 = "libx264" in av.codecs_available
        video = container.add_stream("libx264" if h264 else "mpeg4", rate=FRAMES_PER_SECOND)
        video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        video.options = {"crf": "27", "preset": "veryfast"} if h264 else {"qscale": "6"}
        video.codec_context.thread_count = 1  # the number of threads is written into the file
        audio = None if samples is None else container.add_stream("aac", rate=RATE, layout="mono")
        for pixels in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="bgr24")))
        container.mux(video.encode(None))
        if audio is not None and samples is not None:
            add_samples(container, audio, samples)
    return out.getvalue()

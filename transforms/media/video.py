"""Clips of posts: bytes -> a few frames spread over what really decodes, and how much moves -> a vector."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from transforms.media import image_descriptors
from transforms.media.demux import BROKEN, check_kind, decoded_frames, each_stream, is_cover
from transforms.media.image_descriptors import image_features
from transforms.media.media_files import MediaError, MediaLimits, check_memory

_SHORT_SIDE = 256  # Sampled frames are scaled down to this.
_GLANCE = 32  # Motion is measured on every frame at so many points a side.
_CUT = 0.15  # Mean change of brightness between two frames (of 1) from which it may be a cut.
_SHARE_HELD = 8  # The sampled frames as they are decoded may take an eighth of the memory.
_MOTION_WIDTH = 16
WIDTH = 2 * image_descriptors.WIDTH + _MOTION_WIDTH


@dataclasses.dataclass(frozen=True)
class VideoSample:
    """Sampled frames and statistics of a clip.

    Attributes:
      frames: at most `max_frames_sampled` pictures, [h, w, 3] uint8 BGR, as shown, in order, evenly spread.
      num_frames: frames that were decoded.
      seconds: their duration, by their own times (25 frames a second where those are invalid).
      changes: [num_frames - 1] float32, mean change of brightness (0 to 1) from each frame to the next.
      brightness: [num_frames] float32, mean brightness (0 to 1).
    """

    frames: list[np.ndarray]
    num_frames: int
    seconds: float
    changes: np.ndarray
    brightness: np.ndarray


def read_video(data: bytes, limits: MediaLimits) -> VideoSample:
    """A sample of the first real video stream of a file.

    The header's duration and frame count are not believed and nothing is seeked: frames are decoded in order until
    the end or a limit, and every 2^k-th is retained, k growing as more come.

    Raises:
      MediaError: media_wrong_kind, media_encrypted, video_undecodable, video_no_frames (a file of sound only, say),
        video_too_large, video_too_many_frames or media_too_long.
    """
    check_kind(data, "video")
    for stream in each_stream(data, "video", lambda stream: not is_cover(stream)):
        sampler = _Sampler(limits)
        _check_size(stream, limits)
        for frame in decoded_frames(stream, limits.max_pixels):
            if not sampler.add(frame):
                break
        sampler.check()
        sample = sampler.sample()
        if sample.frames:
            return sample
        if stream.codec_context is not None:
            check_memory(stream.codec_context.width, stream.codec_context.height)
    raise MediaError("video_no_frames", "no video frame can be decoded")


def _check_size(stream: Any, limits: MediaLimits) -> None:
    """Refuses frames that are too large by the header; where that lies, the decoder refuses them."""
    context = stream.codec_context
    if context is not None and context.width * context.height > limits.max_pixels:
        size = f"{context.width}x{context.height}"
        raise MediaError("video_too_large", f"the header claims {size}, the limit is {limits.max_pixels} pixels")


class _Sampler:
    """Samples frames 0, s, 2s, ...; s doubles whenever there are too many.

    Most of them are dropped later, so that only the last ones are converted to pictures, and those too large to hold.
    """

    def __init__(self, limits: MediaLimits) -> None:
        self._sampled: list[Any] = []
        self._limits = limits
        self._max_frame_bytes = limits.max_decode_mib * (1 << 20) // _SHARE_HELD // limits.max_frames_sampled
        self._num_frames = self._pixels = 0
        self._step = 1
        self._elapsed, self._last_time = 0.0, 0.0
        self._glance: np.ndarray | None = None
        self._changes: list[float] = []
        self._brightness: list[float] = []

    def add(self, frame: Any) -> bool:
        """Takes the next frame; False if a limit has been reached."""
        try:
            glance = _glance(frame)
            sampled = self._sample_of(frame) if self._num_frames % self._step == 0 else None
        except BROKEN:
            return True
        self._pixels += frame.width * frame.height
        self._tick(frame)
        if self._glance is not None:
            self._changes.append(float(np.abs(glance - self._glance).mean()))
        self._glance = glance
        self._brightness.append(float(glance.mean()))
        if sampled is not None:
            self._add_sample(sampled)
        self._num_frames += 1
        limits = self._limits
        return (
            self._num_frames <= limits.max_frames
            and self._pixels < limits.max_decoded_pixels
            and self._elapsed < limits.max_seconds
        )

    def check(self) -> None:
        """Refuses a clip of more frames, or, with `reject_long`, of more seconds than are allowed."""
        limits = self._limits
        if self._num_frames > limits.max_frames:
            raise MediaError("video_too_many_frames", f"more than {limits.max_frames} frames")
        if limits.reject_long and self._elapsed >= limits.max_seconds:
            raise MediaError("media_too_long", f"longer than {limits.max_seconds:g} seconds")

    def sample(self) -> VideoSample:
        seconds = self._elapsed * self._num_frames / max(self._num_frames - 1, 1) or 1 / 25
        changes, brightness = (np.array(values, np.float32) for values in (self._changes, self._brightness))
        return VideoSample(list(_pictures(self._sampled)), self._num_frames, seconds, changes, brightness)

    def _sample_of(self, frame: Any) -> Any:
        size = sum(plane.buffer_size for plane in frame.planes)
        return frame if size <= self._max_frame_bytes else _to_picture(frame)

    def _add_sample(self, sampled: Any) -> None:
        if len(self._sampled) >= self._limits.max_frames_sampled:
            self._sampled = self._sampled[::2]
            self._step *= 2
        if len(self._sampled) < self._limits.max_frames_sampled and self._num_frames % self._step == 0:
            self._sampled.append(sampled)

    def _tick(self, frame: Any) -> None:
        """Adds the time since the last frame: 1/25 s where the times make no sense, 10 s at most."""
        time = frame.time
        if self._num_frames:
            delta = time - self._last_time if time is not None else 0.0
            self._elapsed += min(delta, 10.0) if delta > 0 else 1 / 25
        self._last_time = time if time is not None else self._last_time


def _glance(frame: Any) -> np.ndarray:
    """[32, 32] float32 brightness (0 to 1) at points of a regular grid; a frame of YUV is not even converted."""
    layout, plane = frame.format, frame.planes[0]
    bits = layout.components[0].bits
    step = 1 if bits == 8 else 2
    is_luma = layout.name.startswith(("yuv", "nv", "gray")) and not layout.is_big_endian and 8 <= bits <= 16
    if not is_luma or plane.line_size <= 0:
        return frame.to_ndarray(width=_GLANCE, height=_GLANCE, format="gray").astype(np.float32) / 255
    rows = np.frombuffer(plane, np.uint8)[: plane.line_size * frame.height].reshape(frame.height, plane.line_size)
    luma = rows[:, : frame.width * step].view(np.uint16 if step == 2 else np.uint8)
    down, right = ((np.arange(_GLANCE) * 2 + 1) * size // (2 * _GLANCE) for size in (frame.height, frame.width))
    return luma[down[:, None], right].astype(np.float32) / ((1 << bits) - 1)


def _pictures(sampled: Sequence[Any]) -> Iterator[np.ndarray]:
    """Pictures of frames, of those that are not pictures yet; none of a frame that cannot be converted."""
    for frame in sampled:
        try:
            yield frame if isinstance(frame, np.ndarray) else _to_picture(frame)
        except MemoryError:
            raise
        except BROKEN:
            continue


def _to_picture(frame: Any) -> np.ndarray:
    """[h, w, 3] uint8 BGR, scaled down, turned as the display matrix says where that makes sense."""
    shorter, longer = sorted((frame.width, frame.height))
    scale = min(1.0, _SHORT_SIDE / shorter, 4 * _SHORT_SIDE / longer)
    width, height = (max(1, round(size * scale)) for size in (frame.width, frame.height))
    picture = frame.to_ndarray(width=width, height=height, format="bgr24", interpolation="AREA")
    rotation = frame.rotation
    turns = rotation // 90 % 4 if rotation % 90 == 0 and abs(rotation) <= 360 else 0
    return np.ascontiguousarray(np.rot90(picture, turns))


def video_features(sample: VideoSample) -> np.ndarray:
    """Mean and spread of the frames' image features, then motion, cuts and light: [WIDTH] float32, always finite."""
    looks = np.stack([image_features(frame) for frame in sample.frames]).astype(np.float64)
    return np.concatenate([looks.mean(axis=0), looks.std(axis=0), _motion(sample, looks)]).astype(np.float32)


def _motion(sample: VideoSample, looks: np.ndarray) -> np.ndarray:
    """[16]: six measures of change, cuts a second, four of light, three of length, two of variety."""
    changes = sample.changes.astype(np.float64) if len(sample.changes) else np.zeros(1)
    light = sample.brightness.astype(np.float64)
    cuts = int((changes > max(_CUT, 4 * float(np.median(changes)))).sum())
    third = max(1, len(light) // 3)
    steps = np.linalg.norm(np.diff(looks, axis=0), axis=1) if len(looks) > 1 else np.zeros(1)
    rate = min(sample.num_frames / max(sample.seconds, 1e-3), 120.0)
    return np.array(
        [
            *(10 * np.array([changes.mean(), changes.std(), np.median(changes), np.quantile(changes, 0.9)])),
            changes.max(),
            (changes < 0.002).mean(),
            np.log1p(cuts / max(sample.seconds, 1.0)),
            light.mean(),
            light.std(),
            light[-third:].mean() - light[:third].mean(),
            10 * np.abs(np.diff(light, 2)).mean() if len(light) > 2 else 0.0,
            np.log1p(sample.seconds) / 5,
            np.log1p(sample.num_frames) / 10,
            rate / 120,
            steps.mean(),
            steps.max(),
        ]
    )

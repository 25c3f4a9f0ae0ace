"""Decoding sound with PyAV: whatever the file holds, mono samples at 16 kHz."""

from collections.abc import Sequence
from typing import Any

import av
import numpy as np

from transforms.media.demux import check_kind, decoded_frames, each_stream
from transforms.media.media_files import MediaError, MediaLimits

RATE = 16_000
_MAX_SOURCE_RATE = 384_000
_AT_ONCE = 1 << 16  # Samples of a channel.
# PyAV's names of sample formats (without the p of planar ones) -> how the samples lie in memory.
_SAMPLES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}


def read_audio(data: bytes, limits: MediaLimits) -> np.ndarray:
    """The sound of a file (a video's own track too): [num_samples] float32, mono, 16 kHz, within -1 and 1.

    At most the first `limits.max_seconds`. The first audio stream that gives samples is taken; broken packets are
    skipped. Single samples that are no numbers become silence.

    Raises:
      MediaError: media_empty, media_wrong_kind, media_encrypted, audio_undecodable, audio_no_samples, audio_not_finite,
        audio_too_many_samples or media_too_long.
    """
    check_kind(data, "audio")
    is_finite, has_sound = True, False
    for stream in each_stream(data, "audio"):
        has_sound = True
        listener = _Listener(limits)
        for frame in decoded_frames(stream, limits.max_pixels):
            if not listener.add(frame):
                break
        listener.check()
        is_finite &= listener.is_finite or not listener.num_samples
        if listener.num_samples and listener.is_finite:
            return listener.wave()
    if not is_finite:
        raise MediaError("audio_not_finite", "no sample is a finite number")
    raise MediaError("audio_no_samples", "no sound can be decoded" if has_sound else "the file has no sound")


class _Listener:
    """Turns frames of any layout, format and rate into one mono wave, many frames at a time."""

    def __init__(self, limits: MediaLimits) -> None:
        self.num_samples = 0
        self.is_finite = False
        self._limits = limits
        self._num_read = 0  # Of all channels.
        self._seconds_left = limits.max_seconds
        self._max_samples = int(limits.max_seconds * RATE)
        self._is_over = False
        self._waiting: list[list[np.ndarray]] = []  # The planes of frames of one layout, format and rate.
        self._layout: tuple[str, int, int] = ("", 0, 0)
        self._num_waiting = 0
        self._rate = 0
        self._resampler: Any = None
        self._pieces: list[np.ndarray] = []
        self._first = np.zeros(0, np.float32)
        self._first_size = 0

    def add(self, frame: Any) -> bool:
        """Takes the next frame; False when that was enough."""
        rate, channels = frame.sample_rate, frame.layout.nb_channels
        if not 0 < rate <= _MAX_SOURCE_RATE or not frame.samples:
            return True
        self._num_read += frame.samples * channels
        if self._num_read > self._limits.max_audio_samples:
            return False
        name = frame.format.name
        num_samples = min(frame.samples, int(self._seconds_left * rate) + 1)
        planes = _planes(frame, name, channels, num_samples)
        if not planes:
            return True
        if (name, channels, rate) != self._layout or self._num_waiting >= _AT_ONCE:
            self._take_waiting()
            self._layout = name, channels, rate
        self._waiting.append(planes)
        self._num_waiting += num_samples
        self._seconds_left -= num_samples / rate
        self.num_samples += num_samples
        self._first_size = self._first_size or num_samples
        # One sample more than fits shows that there is more.
        self._is_over = self._seconds_left < -0.5 / rate
        return not self._is_over

    def check(self) -> None:
        """Refuses a sound of more samples, or, with `reject_long`, of more seconds than are allowed."""
        limits = self._limits
        self._take_waiting()
        if self._num_read > limits.max_audio_samples:
            raise MediaError("audio_too_many_samples", f"more than {limits.max_audio_samples} samples")
        if limits.reject_long and self._is_over:
            raise MediaError("media_too_long", f"longer than {limits.max_seconds:g} seconds")

    def wave(self) -> np.ndarray:
        self._flush()
        wave = np.concatenate([np.zeros(0, np.float32), *self._pieces])
        size = len(self._first) * RATE // self._rate
        if len(wave) < size // 2 or not len(wave):
            # A few samples vanish in the resampler's filter; a sound is never without any.
            at = np.linspace(0, len(self._first) - 1, max(size, 1))
            wave = np.interp(at, np.arange(len(self._first)), self._first).astype(np.float32)
        return np.clip(wave[: self._max_samples], -1.0, 1.0)

    def _take_waiting(self) -> None:
        """Makes the frames that wait mono, all at once: one by one they cost more than their decoding."""
        if not self._waiting:
            return
        name, channels, rate = self._layout
        samples, is_finite = _mono(self._waiting, name, channels)
        self._waiting, self._num_waiting = [], 0
        self.is_finite |= is_finite
        if not self._first.size:
            self._first = samples[: self._first_size]
        self._resample(samples, rate)

    def _resample(self, samples: np.ndarray, rate: int) -> None:
        if rate != self._rate:
            self._flush()
            self._rate, self._resampler = rate, av.AudioResampler("fltp", "mono", RATE)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
        frame.sample_rate = rate
        self._take(frame)

    def _flush(self) -> None:
        if self._resampler is not None:
            self._take(None)
            self._resampler = None

    def _take(self, frame: Any) -> None:
        self._pieces += [part.to_ndarray()[0].copy() for part in self._resampler.resample(frame) if part.samples]


def _planes(frame: Any, name: str, channels: int, num_samples: int) -> list[np.ndarray]:
    """The frame's first samples as they lie in memory: an array a channel, or one of all; none where some are missing.

    Read from the planes themselves: PyAV has no array of 64-bit integers, and FFmpeg's resampler carries one NaN on.
    """
    kind = np.dtype(_SAMPLES[name.removesuffix("p")])
    length = num_samples if frame.format.is_planar else num_samples * channels
    planes = frame.planes if frame.format.is_planar else frame.planes[:1]
    if any(plane.buffer_size < length * kind.itemsize for plane in planes):
        return []
    return [np.frombuffer(plane, kind, length) for plane in planes]


def _mono(frames: Sequence[Sequence[np.ndarray]], name: str, channels: int) -> tuple[np.ndarray, bool]:
    """([num_samples] float32 mean of the channels within -1 and 1, whether any sample is a finite number).

    Args:
      frames: what `_planes` gives of each.
      name: of the samples' format.
      channels: their number.
    """
    if name.endswith("p"):
        sound = np.stack([np.concatenate(planes) for planes in zip(*frames, strict=True)])
    else:
        sound = np.concatenate([planes[0] for planes in frames]).reshape(-1, channels).T
    kind = sound.dtype
    if kind.kind == "f":
        finite = np.isfinite(sound)
        sound = np.clip(np.where(finite, sound, 0), -1.0, 1.0)
        return sound.mean(axis=0).astype(np.float32), bool(finite.any())
    half = float(2 ** (8 * kind.itemsize - 1))
    middle = half if kind.kind == "u" else 0.0
    return ((sound.mean(axis=0) - middle) / half).astype(np.float32), True

"""Decoding sound with PyAV: whatever the file holds, mono samples at 16 kHz."""

from typing import Any

import av
import numpy as np

from transforms.demux import BROKEN, decoded_frames, load, opened
from transforms.media import MediaError, MediaLimits

RATE = 16_000
_MAX_SOURCE_RATE = 384_000
# PyAV's names of sample formats (without the p of planar ones) -> how the samples lie in memory.
_SAMPLES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}


def read_audio(source: str | bytes, limits: MediaLimits) -> np.ndarray:
    """The sound of a file (a video's own track too): [num_samples] float32, mono, 16 kHz, within -1 and 1.

    At most the first `limits.max_seconds`. The first audio stream that gives samples is taken; broken packets are
    skipped. Single samples that are no numbers become silence.

    Args:
      source: a path, or the bytes themselves.

    Raises:
      MediaError: media_wrong_kind, media_encrypted, audio_undecodable, audio_no_samples, audio_not_finite,
        audio_too_many_samples, media_too_long, and what `read_media` raises.
    """
    data = load(source, "audio", limits)
    with opened(data, "audio") as container:
        streams = [stream.index for stream in container.streams.audio]
    is_finite = True
    for index in streams:
        with opened(data, "audio") as container:
            listener = _Listener(limits)
            for frame in decoded_frames(container, container.streams[index], limits.max_pixels):
                if not listener.add(frame):
                    break
        listener.check()
        is_finite &= listener.is_finite or not listener.num_samples
        if listener.num_samples and listener.is_finite:
            return listener.wave()
    if not is_finite:
        raise MediaError("audio_not_finite", "no sample is a finite number")
    raise MediaError("audio_no_samples", "no sound can be decoded" if streams else "the file has no sound")


class _Listener:
    """Turns frames of any layout, format and rate into one mono wave."""

    def __init__(self, limits: MediaLimits) -> None:
        self.num_samples = 0
        self.is_finite = False
        self._limits = limits
        self._num_read = 0  # Of all channels.
        self._seconds_left = limits.max_seconds
        self._max_samples = int(limits.max_seconds * RATE)
        self._is_over = False
        self._rate = 0
        self._resampler: Any = None
        self._pieces: list[np.ndarray] = []
        self._first = np.zeros(0, np.float32)

    def add(self, frame: Any) -> bool:
        """Takes the next frame; False when that was enough."""
        rate = frame.sample_rate
        if not 0 < rate <= _MAX_SOURCE_RATE or not frame.samples:
            return True
        self._num_read += frame.samples * frame.layout.nb_channels
        if self._num_read > self._limits.max_audio_samples:
            return False
        try:
            samples, is_finite = _mono(frame)
        except BROKEN:
            return True
        samples = samples[: int(self._seconds_left * rate) + 1]
        self._seconds_left -= len(samples) / rate
        self.num_samples += len(samples)
        self.is_finite |= is_finite
        if not self._first.size:
            self._first = samples
        self._resample(samples, rate)
        # One sample more than fits tells that there is more.
        self._is_over = self._seconds_left < -0.5 / rate
        return not self._is_over

    def check(self) -> None:
        """Refuses a sound of more samples, or, where that is asked for, of more seconds than are allowed."""
        limits = self._limits
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


def _mono(frame: Any) -> tuple[np.ndarray, bool]:
    """([num_samples] float32 mean of the channels within -1 and 1, whether any sample is a finite number).

    Read from the planes themselves: PyAV has no array of 64-bit integers, and FFmpeg's resampler carries one NaN on.
    """
    name, channels = frame.format.name, frame.layout.nb_channels
    kind = np.dtype(_SAMPLES[name.removesuffix("p")])
    if frame.format.is_planar:
        sound = np.stack([np.frombuffer(plane, kind)[: frame.samples] for plane in frame.planes])
    else:
        sound = np.frombuffer(frame.planes[0], kind)[: frame.samples * channels].reshape(-1, channels).T
    if kind.kind == "f":
        finite = np.isfinite(sound)
        sound = np.clip(np.where(finite, sound, 0), -1.0, 1.0)
        return sound.mean(axis=0).astype(np.float32), bool(finite.any())
    half = float(2 ** (8 * kind.itemsize - 1))
    middle = half if kind.kind == "u" else 0.0
    return ((sound.mean(axis=0) - middle) / half).astype(np.float32), True

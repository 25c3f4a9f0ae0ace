"""A sound's spectrogram in a fixed number of measures: what it sounds like on the whole, how it changes, its beat."""

import numpy as np

BANDS = 64
NUM_MEASURES = 16
_RATE_OF_FRAMES = 100
_SILENCE = -60.0  # dB of full scale below which a frame counts as silent.


def pooled_statistics(log_mel: np.ndarray, wave: np.ndarray) -> np.ndarray:
    """Mean, spread, 90th percentile and mean change of every band, then 16 measures: [4 * 64 + 16] float32.

    Args:
      log_mel: [num_frames, 64] natural logarithm of power, 100 frames a second.
      wave: [num_samples] float32 the sound itself, 16 kHz.
    """
    mels = log_mel.astype(np.float64)
    changes = np.diff(mels, axis=0) if len(mels) > 1 else np.zeros((1, mels.shape[1]))
    bands = [mels.mean(axis=0), mels.std(axis=0), np.quantile(mels, 0.9, axis=0), np.abs(changes).mean(axis=0)]
    measures = [*_loudness(wave), *_timbre(mels), *_rhythm(changes), np.log1p(len(wave) / 16_000) / 5]
    return np.concatenate([*bands, measures]).astype(np.float32)


def _loudness(wave: np.ndarray) -> list[float]:
    """Mean and spread of the frames' level, peak (all over 60 dB), share of silence, crest, zero crossings."""
    samples = wave.astype(np.float64)
    num_blocks = max(1, len(samples) // 160)
    blocks = [block for block in np.array_split(samples, num_blocks) if len(block)] or [np.zeros(1)]
    squares = np.array([np.dot(block, block) / len(block) for block in blocks])
    level = 10 * np.log10(squares + 1e-7)
    peak = float(np.abs(samples).max(initial=0.0))
    rms = float(np.sqrt(squares.mean()))
    crossings = float((np.diff(np.signbit(samples)) != 0).mean()) if len(samples) > 1 else 0.0
    crest = np.log1p(peak / rms) if rms > 1e-6 else 0.0
    return [level.mean() / 60, level.std() / 60, peak, (level < _SILENCE).mean(), crest, crossings]


def _timbre(mels: np.ndarray) -> list[float]:
    """Mean and spread of the center of the spectrum and of its flatness (0 a tone, 1 noise)."""
    power = np.exp(mels)
    center = (power @ np.linspace(0, 1, mels.shape[1])) / power.sum(axis=1)
    flatness = np.exp(mels.mean(axis=1)) / power.mean(axis=1)
    return [center.mean(), center.std(), flatness.mean(), flatness.std()]


def _rhythm(changes: np.ndarray) -> list[float]:
    """Mean and spread of the onsets, their number a second, strength of the beat and its period in seconds, harshness.

    The beat is the highest peak of the onsets' autocorrelation between 0.3 and 1.5 s (40 to 200 a minute).
    """
    onset = np.maximum(changes, 0).mean(axis=1)
    threshold = onset.mean() + 1.5 * onset.std()
    hits = int(((onset[1:] > threshold) & (onset[:-1] <= threshold)).sum())
    beat = period = 0.0
    centered = onset - onset.mean()
    energy = float(centered @ centered)
    if len(onset) > 60 and energy > 1e-9:
        size = 1 << (2 * len(centered) - 1).bit_length()
        correlation = np.fft.irfft(np.abs(np.fft.rfft(centered, size)) ** 2, size)[
            30 : min(150, len(centered) // 2) + 1
        ]
        at = int(correlation.argmax())
        beat, period = float(correlation[at]) / energy, (30 + at) / _RATE_OF_FRAMES
    return [onset.mean(), onset.std(), np.log1p(hits * _RATE_OF_FRAMES / len(onset)), beat, period]

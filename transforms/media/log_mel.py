"""Description of sounds: mono at 16 kHz -> log-mel spectrogram (tf.signal) -> a vector."""

from collections.abc import Sequence

import numpy as np

from transforms.media.audio_decode import RATE
from transforms.media.audio_descriptors import BANDS, NUM_MEASURES, pooled_statistics

FRAME, HOP, FFT = 400, 160, 512  # 25 ms, 10 ms, samples of the Fourier transform
_WINDOW_FRAMES = 100
_WINDOW = (_WINDOW_FRAMES - 1) * HOP + FRAME
_BATCH = 16
_FLOOR = 1e-7  # Power below which there is only silence (-70 dB), so that silence has a logarithm.
WIDTH = 4 * BANDS + NUM_MEASURES

_log_mel_function = None


def audio_features(waves: Sequence[np.ndarray]) -> np.ndarray:
    """Pooled log-mel statistics: [n, WIDTH] float32, always finite.

    A row depends on its own sound only: windows are of one size and go through the network's graph in batches of one
    size.
    """
    rows = [pooled_statistics(log_mel, wave) for log_mel, wave in zip(log_mels(waves), waves, strict=True)]
    return np.stack(rows) if rows else np.zeros((0, WIDTH), np.float32)


def log_mels(waves: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Log-mel spectrograms: for each sound [num_frames, 64] float32, natural logarithm of power; 100 frames a second.

    A sound shorter than one frame (25 ms) is filled up with silence.
    """
    pieces = [_windows(wave) for wave in waves]
    windows = np.concatenate([np.zeros((0, _WINDOW), np.float32), *pieces])
    parts = [_run(windows[at : at + _BATCH]) for at in range(0, len(windows), _BATCH)]
    mels = np.concatenate(parts) if parts else np.zeros((0, _WINDOW_FRAMES, BANDS), np.float32)
    ends = np.cumsum([len(piece) for piece in pieces])
    return [
        mels[end - len(piece) : end].reshape(-1, BANDS)[: _num_frames(wave)]
        for wave, piece, end in zip(waves, pieces, ends, strict=True)
    ]


def _num_frames(wave: np.ndarray) -> int:
    return 1 + max(0, len(wave) - FRAME) // HOP


def _windows(wave: np.ndarray) -> np.ndarray:
    """[num_windows, 16240] float32: a second each and what the last frame needs beyond, silence after the end."""
    num_windows = -(-_num_frames(wave) // _WINDOW_FRAMES)
    padded = np.zeros(num_windows * _WINDOW_FRAMES * HOP + FRAME, np.float32)
    padded[: len(wave)] = wave[: len(padded)]
    return np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[:: _WINDOW_FRAMES * HOP][:num_windows]


def _run(windows: np.ndarray) -> np.ndarray:
    batch = np.zeros((_BATCH, _WINDOW), np.float32)
    batch[: len(windows)] = windows
    return np.asarray(_graph()(batch))[: len(windows)]


def _graph():  # type: ignore[no-untyped-def]
    """The function [16, 16240] -> [16, 100, 64], built once a process (TensorFlow takes seconds to import)."""
    global _log_mel_function
    if _log_mel_function is None:
        import tensorflow as tf

        mel = tf.signal.linear_to_mel_weight_matrix(BANDS, FFT // 2 + 1, RATE, 40.0, 7600.0)

        @tf.function(input_signature=[tf.TensorSpec((_BATCH, _WINDOW), tf.float32)])
        def log_mel(batch):  # type: ignore[no-untyped-def]
            spectrum = tf.signal.stft(batch, FRAME, HOP, FFT)
            # The sum of a Hann window is half its length: a full-scale sine has a power of about 1/4.
            power = tf.square(tf.abs(spectrum) / (FRAME / 2))
            return tf.math.log(tf.tensordot(power, mel, 1) + _FLOOR)

        _log_mel_function = log_mel
    return _log_mel_function

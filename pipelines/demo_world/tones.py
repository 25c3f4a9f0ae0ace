"""Sounds of the demo world: chord, timbre and rhythm go with the topic."""

import io
import wave

import av
import numpy as np

RATE = 16_000  # samples a second


def sound(rng: np.random.Generator, topic: str, seconds: float) -> np.ndarray:
    """A sound of a topic: [seconds * RATE] float64 in [-1, 1]."""
    time = np.arange(int(seconds * RATE)) / RATE
    samples = _VOICES[topic](rng, time) + rng.normal(0, 0.01, time.size)
    return rng.uniform(0.4, 0.9) * samples / np.abs(samples).max()


def _chord(time: np.ndarray, base: float, steps: tuple[int, ...], overtones: int) -> np.ndarray:
    pitches = base * 2.0 ** (np.array(steps) / 12)
    return sum(
        (np.sin(2 * np.pi * pitch * n * time) / n**1.3 for pitch in pitches for n in range(1, overtones + 1)),
        start=np.zeros_like(time),
    )


def _band(rng: np.random.Generator, size: int, low: float, high: float) -> np.ndarray:
    """Noise between two frequencies (Hz)."""
    spectrum = np.fft.rfft(rng.normal(size=size))
    pitch = np.fft.rfftfreq(size, 1 / RATE)
    spectrum[(pitch < low) | (pitch > high)] = 0
    noise = np.fft.irfft(spectrum, size)
    return noise / np.abs(noise).max()


def _pulses(time: np.ndarray, beats: float, decay: float) -> np.ndarray:
    """An envelope that jumps to 1 `beats` times a second and decays."""
    return np.exp(-decay * ((time * beats) % 1.0))


def _sizzle(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    return _band(rng, time.size, 3500, 7500) * (0.5 + 0.5 * _pulses(time, rng.uniform(7, 13), 6))


def _freewheel(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    return _band(rng, time.size, 900, 3500) * _pulses(time, rng.uniform(18, 26), 12)


def _pad(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    tremolo = 0.7 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.8, 1.6) * time)
    return _chord(time, rng.uniform(70, 110), (0, 7, 12), 3) * tremolo


def _birds(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    sweep = rng.uniform(2600, 3600) + 700 * np.sin(2 * np.pi * rng.uniform(5, 9) * time)
    return np.sin(2 * np.pi * np.cumsum(sweep) / RATE) * _pulses(time, rng.uniform(3, 5), 4)


def _swing(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    beat = rng.uniform(1.8, 2.6)
    rhythm = _pulses(time, beat, 4) + 0.6 * _pulses(time + 1 / (3 * beat), beat, 6)
    return _chord(time, rng.uniform(180, 260), (0, 4, 7, 11, 14), 6) * rhythm


def _crowd(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    roar = _band(rng, time.size, 250, 1100) * (0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.3, 0.8) * time))
    start = rng.uniform(0.1, 0.4) * time[-1]
    whistle = np.sin(2 * np.pi * rng.uniform(2000, 2400) * time + 6 * np.sin(2 * np.pi * 28 * time))
    return roar + 0.5 * whistle * ((time > start) & (time < start + 0.35))


_VOICES = {
    "cooking": _sizzle,
    "cycling": _freewheel,
    "astronomy": _pad,
    "gardening": _birds,
    "jazz": _swing,
    "football": _crowd,
}


def tone_file(rng: np.random.Generator, topic: str) -> tuple[str, bytes]:
    """A sound of a topic as a file: its ending (wav or ogg) and its bytes; 1 to 2 seconds."""
    samples = sound(rng, topic, rng.uniform(1.0, 2.0))
    if rng.random() < 0.03:
        samples[:] = 0  # silence is a sound too
    return ("ogg", _ogg(samples)) if rng.random() < 0.6 else ("wav", _wav(samples))


def pcm(samples: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] as 16-bit integers."""
    return np.round(samples * 32_767).astype("<i2")


def _wav(samples: np.ndarray) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm(samples).tobytes())
    return out.getvalue()


def _ogg(samples: np.ndarray) -> bytes:
    out = io.BytesIO()
    # bitexact: no random stream number, no version of the library in the file.
    with av.open(out, "w", format="ogg", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libopus", rate=RATE, layout="mono")
        stream.bit_rate = 32_000
        add_samples(container, stream, samples)
    return out.getvalue()


def add_samples(container: av.container.OutputContainer, stream: av.AudioStream, samples: np.ndarray) -> None:
    """Encodes and muxes mono samples at RATE, to the end of the stream."""
    frame = av.AudioFrame.from_ndarray(pcm(samples)[None, :], format="s16", layout="mono")
    frame.sample_rate = RATE
    frame.pts = 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))

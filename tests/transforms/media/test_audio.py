import numpy as np
import pytest

from tests.transforms.media import media_fixtures as made
from transforms.media.audio_decode import read_audio
from transforms.media.log_mel import FRAME, HOP, WIDTH, audio_features, log_mels
from transforms.media.media_files import MediaError, MediaLimits

LIMITS = MediaLimits()


def pitch(wave: np.ndarray) -> float:
    """The strongest frequency, in Hz."""
    return float(np.abs(np.fft.rfft(wave * np.hanning(len(wave)))).argmax()) * 16_000 / len(wave)


@pytest.mark.parametrize("container", ["mp4", "webm", "ogg", "mp3", "flac", "matroska"])
def test_sound_of_every_container(container: str) -> None:
    pictures = made.moving_box(10) if container in ("mp4", "matroska") else []
    wave = read_audio(made.movie(pictures, made.tone(1000.0), container), LIMITS)
    assert wave.dtype == np.float32 and wave.ndim == 1
    assert len(wave) == pytest.approx(16_000, rel=0.15)
    assert pitch(wave) == pytest.approx(1000, abs=5)
    assert np.sqrt((wave[2000:12_000] ** 2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize(
    "kind", [np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_sample_formats_and_rates_sound_alike(kind: type, rate: int) -> None:
    sound = made.tone(500.0, rate=rate).astype(np.float64)
    if np.issubdtype(kind, np.integer):
        half = 2.0 ** (8 * np.dtype(kind).itemsize - 1)
        sound = np.round(sound * (half - 1) + (half if kind is np.uint8 else 0))
    wave = read_audio(made.wav(sound.astype(kind), rate), LIMITS)
    assert len(wave) == pytest.approx(16_000, abs=20)
    assert np.abs(wave[1000:15_000] - made.tone(500.0)[1000:15_000]).max() < 0.03


def test_channels_are_averaged() -> None:
    stereo = np.stack([made.tone(500.0), -made.tone(500.0)], axis=1)
    assert np.abs(read_audio(made.wav(stereo), LIMITS)).max() < 1e-4
    five = np.repeat(made.tone(500.0)[:, None], 5, axis=1)
    assert np.abs(read_audio(made.wav(five), LIMITS) - made.tone(500.0)).max() < 1e-3


def test_numbers_that_are_none_are_silence() -> None:
    sound = made.tone()
    sound[100:200] = np.nan
    sound[300:310] = np.inf
    sound[400:410] = 3e38
    wave = read_audio(made.wav(sound), LIMITS)
    assert np.isfinite(wave).all() and np.abs(wave).max() <= 1.0
    assert np.array_equal(wave[100:200], np.zeros(100, np.float32))
    assert np.abs(wave[1000:] - sound[1000:]).max() < 1e-3
    with pytest.raises(MediaError, match="audio_not_finite"):
        read_audio(made.wav(np.full(1000, np.nan, np.float32)), LIMITS)


def test_only_the_first_seconds_are_heard() -> None:
    data = made.wav(made.tone(seconds=3.0))
    assert len(read_audio(data, MediaLimits(max_seconds=1.5))) == 24_000
    with pytest.raises(MediaError, match="media_too_long"):
        read_audio(data, MediaLimits(max_seconds=1.5, reject_long=True))


@pytest.mark.parametrize("num_samples", [1, 4, 100, 399, 400, 401])
@pytest.mark.parametrize("rate", [8000, 44_100])
def test_very_short_sounds(num_samples: int, rate: int) -> None:
    wave = read_audio(made.wav(made.tone(rate=rate)[:num_samples] + np.float32(0.1), rate), LIMITS)
    assert len(wave) >= 1 and len(wave) == pytest.approx(num_samples * 16_000 / rate, abs=2)
    assert np.isfinite(audio_features([wave])).all()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "media_empty"),
        (b"no sound at all", "audio_undecodable"),
        (made.encoded(made.corners(), ".png"), "media_wrong_kind"),
        (made.movie(made.moving_box(3)), "audio_no_samples"),
        (made.wav(np.zeros(0, np.int16)), "audio_no_samples"),
        (made.wav(made.tone())[:20], "audio_undecodable"),
    ],
)
def test_what_is_no_sound_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(MediaError) as caught:
        read_audio(data, LIMITS)
    assert caught.value.code == code


def test_broken_packets_cost_only_themselves() -> None:
    data = bytearray(made.movie([], made.tone(seconds=4.0), "mp3"))
    middle = len(data) // 2
    data[middle : middle + 500] = bytes(range(250)) * 2
    wave = read_audio(bytes(data), LIMITS)
    assert len(wave) > 3.5 * 16_000
    assert pitch(wave[-16_000:]) == pytest.approx(440, abs=5)


def test_log_mel_against_numpy() -> None:
    rng = np.random.default_rng(0)
    wave = rng.uniform(-0.5, 0.5, 40_000).astype(np.float32)
    (mels,) = log_mels([wave])
    assert mels.shape == (1 + (40_000 - FRAME) // HOP, 64)
    # Frame 150 lies in the second window of a second: windows must not leave gaps.
    at = 150 * HOP
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
    power = (np.abs(np.fft.rfft(wave[at : at + FRAME] * hann, 512)) / (FRAME / 2)) ** 2
    mel = lambda hertz: 1127.0 * np.log1p(hertz / 700.0)  # noqa: E731
    edges = np.linspace(mel(40.0), mel(7600.0), 66)
    bins = mel(np.arange(257) * 16_000 / 512)
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    expected = np.log(power @ np.maximum(0, np.minimum(rise, fall)) + 1e-7)
    assert np.allclose(mels[150], expected, atol=1e-2)


def test_features_do_not_depend_on_what_else_is_in_the_batch() -> None:
    rng = np.random.default_rng(0)
    waves = [rng.uniform(-0.3, 0.3, size).astype(np.float32) for size in (4, 16_000, 70_001, 5000, 300_000, 16_239)]
    together = audio_features(waves)
    assert together.shape == (6, WIDTH) and together.dtype == np.float32
    for index, wave in enumerate(waves):
        assert np.array_equal(audio_features([wave])[0], together[index])
    assert np.array_equal(audio_features(waves[::-1])[::-1], together)
    assert audio_features([]).shape == (0, WIDTH)


def test_silence_is_finite_and_unlike_sound() -> None:
    silence, nothing, noise = np.zeros(16_000, np.float32), np.zeros(1, np.float32), made.tone()
    vectors = audio_features([silence, nothing, noise])
    assert np.isfinite(vectors).all()
    share_of_silence = vectors[:, 4 * 64 + 3]
    assert share_of_silence.tolist() == [1.0, 1.0, 0.0]
    assert np.abs(vectors[0, :64] - vectors[0, 0]).max() == 0


def test_features_tell_pitch_and_beat() -> None:
    low, high, other_high = made.tone(200.0), made.tone(3000.0), made.tone(3050.0, level=0.45)
    vectors = audio_features([low, high, other_high])
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    assert distances[1, 2] < 0.5 * distances[0, 1]
    # Clicks every half second: a beat of 120 a minute.
    clicks = np.zeros(8 * 16_000, np.float32)
    rng = np.random.default_rng(0)
    for at in range(0, len(clicks), 8000):
        clicks[at : at + 400] = rng.uniform(-0.8, 0.8, 400)
    strength, period = audio_features([clicks])[0, 4 * 64 + 13 : 4 * 64 + 15]
    assert strength > 0.5
    assert period == pytest.approx(0.5, abs=0.02)

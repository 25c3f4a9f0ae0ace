import os

import numpy as np
import pytest

from tests.transforms.media import media_fixtures as made
from transforms.media import image_descriptors
from transforms.media.media_files import MediaError, MediaLimits
from transforms.media.video import WIDTH, VideoSample, read_video, video_features

LIMITS = MediaLimits()
ONE = 1 << 16


def box_position(frame: np.ndarray) -> float:
    """Where the white box stands, 0 (left) to 1 (right)."""
    bright = np.flatnonzero(frame.mean(axis=(0, 2)) > 20)
    return float(bright.mean()) / frame.shape[1]


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "mpeg4"), ("mp4", "libx264"), ("webm", "libvpx"), ("webm", "libvpx-vp9"), ("matroska", "mpeg4"),
     ("avi", "mpeg4"), ("mpegts", "mpeg2video"), ("gif", "gif")],
)  # fmt: skip
def test_clip_is_sampled_over_its_whole_length(container: str, codec: str) -> None:
    if codec == "gif":
        data = gif(made.moving_box(40))
    else:
        data = made.movie(made.moving_box(40), container=container, codec=codec)
    sample = read_video(data, LIMITS)
    assert sample.num_frames == 40
    assert 8 <= len(sample.frames) <= 16
    assert sample.frames[0].shape == (64, 96, 3)
    positions = [box_position(frame) for frame in sample.frames]
    assert np.all(np.diff(positions) > 0)
    assert positions[0] < 0.15 and positions[-1] > 0.8
    assert len(sample.changes) == 39 and len(sample.brightness) == 40


def gif(pictures: list[np.ndarray]) -> bytes:
    import cv2

    animation = cv2.Animation()
    animation.frames, animation.durations = pictures, np.full(len(pictures), 40)
    return cv2.imencodeanimation(".gif", animation)[1].tobytes()


def test_length_is_what_decodes() -> None:
    assert read_video(made.movie(made.moving_box(50), rate=25), LIMITS).seconds == pytest.approx(2.0, rel=0.05)
    one = read_video(made.movie(made.moving_box(1)), LIMITS)
    assert (one.num_frames, len(one.frames), len(one.changes)) == (1, 1, 0)
    assert one.seconds == pytest.approx(0.04)


def test_limits_bound_the_work() -> None:
    data = made.movie(made.moving_box(100), rate=10)
    assert read_video(data, MediaLimits(max_decoded_pixels=64 * 96 * 20)).num_frames == 20
    assert 28 <= read_video(data, MediaLimits(max_seconds=3.0)).num_frames <= 33
    assert read_video(data, MediaLimits(max_frames=100)).num_frames == 100
    with pytest.raises(MediaError, match="video_too_many_frames"):
        read_video(data, MediaLimits(max_frames=99))
    assert read_video(data, MediaLimits(max_seconds=10.0, reject_long=True)).num_frames == 100
    with pytest.raises(MediaError, match="media_too_long"):
        read_video(data, MediaLimits(max_seconds=9.0, reject_long=True))
    for count in (1, 2, 3, 7):
        assert 1 <= len(read_video(data, MediaLimits(max_frames_sampled=count)).frames) <= count
    with pytest.raises(MediaError, match="video_too_large"):
        read_video(data, MediaLimits(max_pixels=64 * 96 - 1))


def test_large_frames_are_scaled_down() -> None:
    pictures = [made.clouds(1280, 720, seed) for seed in range(3)]
    assert read_video(made.movie(pictures), LIMITS).frames[0].shape == (256, 455, 3)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30), [0, 1, 0, 0]),
        ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), [0, 0, 1, 0]),
        ((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), [0, 0, 0, 1]),
        # Nonsense is not applied.
        ((-(1 << 31),) * 9, [1, 0, 0, 0]),
    ],
)
def test_display_matrix_turns_frames(matrix: tuple[int, ...], expected: list[int]) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = made.WHITE
    frame = read_video(made.turned_mp4(made.movie([picture] * 3), matrix), LIMITS).frames[0]
    height, width = frame.shape[:2]
    assert (height > width) == (expected[1] or expected[3])
    corners = [frame[4, 4], frame[4, -4], frame[-4, -4], frame[-4, 4]]
    assert [int(corner.mean() > 128) for corner in corners] == expected


def test_damaged_clip_gives_what_is_left() -> None:
    data = bytearray(made.movie(made.moving_box(60), container="mpegts", codec="mpeg2video"))
    middle = len(data) // 2
    data[middle : middle + 2000] = os.urandom(2000)
    sample = read_video(bytes(data), LIMITS)
    assert 30 <= sample.num_frames <= 60
    assert box_position(sample.frames[-1]) > 0.7
    cut = read_video(bytes(data[: len(data) // 3]), LIMITS)
    assert 5 <= cut.num_frames < 30


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "media_empty"),
        (b"not a video at all", "video_undecodable"),
        (b"<html></html>", "media_wrong_kind"),
        (made.encoded(made.corners(), ".jpg"), "media_wrong_kind"),
        (made.movie([], made.tone()), "video_no_frames"),
        (made.wav(made.tone()), "video_no_frames"),
        (made.movie(made.moving_box(10))[:40], "video_undecodable"),
        (made.movie(made.moving_box(10)).replace(b"mp4v", b"encv"), "media_encrypted"),
    ],
)
def test_what_is_no_video_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(MediaError) as caught:
        read_video(data, LIMITS)
    assert caught.value.code == code


def test_cover_picture_is_no_video() -> None:
    cover = made.encoded(made.corners(), ".jpg")
    frame = b"\0image/jpeg\0\x03\0" + cover
    size = len(frame)
    tag = b"APIC" + size.to_bytes(4, "big") + b"\0\0" + frame
    total = len(tag)
    head = b"ID3\x03\0\0" + bytes(total >> shift & 0x7F for shift in (21, 14, 7, 0))
    with pytest.raises(MediaError, match="video_no_frames"):
        read_video(head + tag + made.movie([], made.tone(), "mp3"), LIMITS)


def test_features_tell_motion_and_cuts() -> None:
    still = [made.clouds(128, 96, 1)] * 30
    moving = made.moving_box(30, 128, 96)
    cuts = [np.full((96, 128, 3), 255 * (index // 10 % 2), np.uint8) for index in range(30)]
    samples = [read_video(made.movie(pictures), LIMITS) for pictures in (still, moving, cuts)]
    vectors = np.stack([video_features(sample) for sample in samples])
    assert vectors.shape == (3, WIDTH) and vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    looks = 2 * image_descriptors.WIDTH
    change, stillness, cut_rate = vectors[:, looks], vectors[:, looks + 5], vectors[:, looks + 6]
    assert change[0] < change[1] < change[2]
    assert stillness[0] > 0.9 > 0.5 > stillness[1]
    assert cut_rate[0] == cut_rate[1] == 0 and cut_rate[2] == pytest.approx(np.log1p(2 / 1.2), rel=0.1)


def test_features_of_one_frame_are_finite() -> None:
    sample = VideoSample([np.zeros((2, 2, 3), np.uint8)], 1, 0.04, np.zeros(0, np.float32), np.zeros(1, np.float32))
    assert np.isfinite(video_features(sample)).all()


def test_same_bytes_same_sample() -> None:
    data = made.movie([made.clouds(160, 120, seed) for seed in range(24)], codec="libx264")
    first, second = (video_features(read_video(data, LIMITS)) for _ in range(2))
    assert np.array_equal(first, second)

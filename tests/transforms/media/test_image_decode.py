import struct
import time
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest

from tests.transforms.media import media_fixtures as made
from transforms.media.image_decode import decode_image
from transforms.media.image_descriptors import WIDTH, image_features
from transforms.media.media_files import MediaError, MediaLimits

LIMITS = MediaLimits()
CODE_OF_CUT = {".tiff": "image_undecodable", ".avif": "image_undecodable", ".jp2": "image_undecodable"}


def seen_corners(picture: np.ndarray) -> list[str]:
    """Colors of the quarters, clockwise from the top left."""
    height, width = picture.shape[:2]
    names = {made.RED: "red", made.GREEN: "green", made.BLUE: "blue", made.WHITE: "white"}
    points = [(1, 1), (1, 3), (3, 3), (3, 1)]
    pixels = [picture[height * down // 4, width * right // 4].astype(int) for down, right in points]
    return [min(names.items(), key=lambda item: np.abs(pixel - item[0]).sum())[1] for pixel in pixels]


# What a viewer shows of red, green, blue, white (clockwise) under each of EXIF's orientations.
SHOWN = {
    1: ["red", "green", "blue", "white"],
    2: ["green", "red", "white", "blue"],
    3: ["blue", "white", "red", "green"],
    4: ["white", "blue", "green", "red"],
    5: ["red", "white", "blue", "green"],
    6: ["white", "red", "green", "blue"],
    7: ["blue", "green", "red", "white"],
    8: ["green", "blue", "white", "red"],
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_in_every_format(orientation: int) -> None:
    picture = made.corners(64, 48)
    files = {
        "jpeg": made.jpeg_with_exif(made.encoded(picture, ".jpg"), orientation),
        "png": made.png_with_exif(made.encoded(picture, ".png"), orientation),
        "tiff": made.tiff(picture, orientation),
    }
    for name, data in files.items():
        shown = decode_image(data, LIMITS)
        assert seen_corners(shown) == SHOWN[orientation], name
        assert shown.shape == ((48, 64, 3) if orientation < 5 else (64, 48, 3)), name


def test_large_jpeg_is_turned_and_decoded_small() -> None:
    jpeg = made.jpeg_with_exif(made.encoded(made.corners(2200, 1100), ".jpg"), 6)
    shown = decode_image(jpeg, LIMITS)
    assert shown.shape == (550, 275, 3)
    assert seen_corners(shown) == SHOWN[6]
    # The same rule for the formats that are decoded whole.
    assert decode_image(made.encoded(made.corners(2200, 1100), ".png"), LIMITS).shape == (275, 550, 3)


def test_transparency_lies_on_white() -> None:
    bgra = np.zeros((8, 12, 4), np.uint8)
    bgra[:, :4] = (10, 20, 30, 255)
    bgra[:, 4:8] = (0, 0, 0, 0)
    bgra[:, 8:] = (0, 0, 0, 128)
    lossless = {".png": (), ".tiff": (), ".webp": (cv2.IMWRITE_WEBP_QUALITY, 101)}
    for ending, parameters in lossless.items():
        shown = decode_image(made.encoded(bgra, ending, *parameters), LIMITS)
        assert shown[4, 1].tolist() == [10, 20, 30], ending
        assert shown[4, 5].tolist() == [255, 255, 255], ending
        assert shown[4, 9].tolist() == [127, 127, 127], ending
    sixteen = decode_image(made.encoded(bgra.astype(np.uint16) * 257, ".png"), LIMITS)
    assert np.abs(sixteen.astype(int) - decode_image(made.encoded(bgra, ".png"), LIMITS)).max() <= 1


def test_depths_and_palettes_look_alike() -> None:
    gray = cv2.cvtColor(made.clouds(), cv2.COLOR_BGR2GRAY)
    expected = np.repeat(gray[..., None], 3, axis=2)
    for data in (
        made.encoded(gray, ".png"),
        made.encoded(gray.astype(np.uint16) * 257, ".png"),
        made.encoded((gray / 255).astype(np.float32), ".pfm"),
        made.encoded(gray, ".pgm"),
        made.encoded(gray, ".tiff"),
    ):
        assert np.abs(decode_image(data, LIMITS).astype(int) - expected).max() <= 1
    bilevel = made.encoded(np.where(gray > 127, 255, 0).astype(np.uint8), ".png", cv2.IMWRITE_PNG_BILEVEL, 1)
    assert set(np.unique(decode_image(bilevel, LIMITS))) == {0, 255}
    # GIF has a palette of 256 colors, so this is only near.
    assert np.abs(decode_image(made.encoded(made.clouds(), ".gif"), LIMITS).astype(int) - made.clouds()).mean() < 25


def test_animation_shows_its_first_frame() -> None:
    frames = [np.full((20, 30, 3), color, np.uint8) for color in (made.RED, made.GREEN, made.BLUE)]
    for ending in (".gif", ".webp", ".png", ".avif"):
        animation = cv2.Animation()
        animation.frames, animation.durations = frames, np.array([100, 100, 100])
        data = cv2.imencodeanimation(ending, animation)[1].tobytes()
        blue, green, red = decode_image(data, LIMITS).reshape(-1, 3).mean(axis=0)
        assert red > 200 > 60 > max(blue, green), ending


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8, 0.98])
@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".avif", ".jp2", ".ppm", ".pfm"])
def test_cut_picture_is_refused(ending: str, share: float) -> None:
    picture = made.clouds() / np.float32(255) if ending == ".pfm" else made.clouds()
    data = made.encoded(picture, ending)
    with pytest.raises(MediaError) as caught:
        decode_image(data[: int(len(data) * share)], LIMITS)
    assert caught.value.code == CODE_OF_CUT.get(ending, "image_truncated")


def test_tiff_that_is_cut_after_its_directory_is_refused() -> None:
    data = made.tiff(made.clouds())
    with pytest.raises(MediaError, match="image_truncated"):
        decode_image(data[: len(data) // 2], LIMITS)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("size", [(320, 240), (1600, 1200)])
def test_jpeg_whose_data_end_early_is_refused_even_with_an_end_marker(share: float, size: tuple[int, int]) -> None:
    data = made.encoded(made.clouds(*size), ".jpg")
    with pytest.raises(MediaError, match="image_truncated"):
        decode_image(data[: int(len(data) * share)] + b"\xff\xd9", LIMITS)


def test_progressive_jpeg_cut_or_whole() -> None:
    data = made.encoded(made.clouds(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert np.abs(decode_image(data, LIMITS).astype(int) - made.clouds()).mean() < 4
    with pytest.raises(MediaError, match="image_truncated"):
        decode_image(data[: len(data) // 2], LIMITS)


def test_jpeg_with_a_gray_border_or_something_behind_it_is_whole() -> None:
    picture = made.clouds()
    picture[120:] = 128
    data = made.encoded(picture, ".jpg")
    shown = decode_image(data, LIMITS)
    assert (shown[-1] == 128).all()
    assert decode_image(made.encoded(np.full((300, 300, 3), 128, np.uint8), ".jpg"), LIMITS).shape == (300, 300, 3)
    # A motion photo, or a stereo pair: another file follows the picture.
    for tail in (b"\0" * 100, made.movie(made.moving_box(3)), made.encoded(made.corners(), ".jpg")):
        assert np.array_equal(decode_image(data + tail, LIMITS), shown)


def test_earlier_pictures_never_show_through() -> None:
    whole = made.encoded(made.clouds(seed=1), ".jpg")
    before = decode_image(whole, LIMITS)
    for _ in range(3):
        with pytest.raises(MediaError, match="image_truncated"):
            decode_image(made.encoded(made.clouds(seed=2), ".jpg")[:5000], LIMITS)
    assert np.array_equal(decode_image(whole, LIMITS), before)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "media_empty"),
        (b"hello, no picture", "image_undecodable"),
        (b"<html>404</html>", "media_wrong_kind"),
        (made.wav(made.tone()), "media_wrong_kind"),
        (made.movie(made.moving_box(2)), "media_wrong_kind"),
        (b"\xff\x0a" + b"\0" * 50, "image_unsupported"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_unsupported"),
        (made.bmp_header(2554, 18803, 8, 1) + b"\0" * 200, "image_truncated"),
        (made.bmp_header(8000, 8000) + b"\0" * 200, "image_truncated"),
        (made.bmp_header(6, 2**31 - 1), "image_too_large"),
        (made.png_header(60_000, 60_000) + made.png_chunk(b"IEND", b""), "image_too_large"),
        (made.png_header(9000, 9000) + made.png_chunk(b"IEND", b""), "image_truncated"),
        (b"GIF89a" + b"\x10\x27\x10\x27\0\0\0,\0\0\0\0\1\0\1\0\0\2\1\0\0;", "image_truncated"),
        (b"GIF89a\0\0\x10\0\0\0\0;", "image_undecodable"),
        (b"P6\n-5 10\n255\n", "image_undecodable"),
        (b"\xff\xd8\xff\xd9", "image_undecodable"),
    ],
)
def test_hostile_bytes_are_refused_at_once(data: bytes, code: str) -> None:
    tracemalloc.start()
    begin = time.perf_counter()
    with pytest.raises(MediaError) as caught:
        decode_image(data, LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code == code
    assert time.perf_counter() - begin < 2
    assert peak < 20_000_000


def test_png_whose_data_are_short_or_damaged_is_refused() -> None:
    png = made.encoded(made.clouds(), ".png")
    chunks = made.png_chunks(png)
    rows = zlib.decompress(chunks[b"IDAT"])
    half = len(rows) // 2
    for damaged in (zlib.compress(rows[:half]), zlib.compress(rows[:half] + b"\t" * (len(rows) - half))):
        data = png[:8] + made.png_chunk(b"IHDR", chunks[b"IHDR"]) + made.png_chunk(b"IDAT", damaged)
        with pytest.raises(MediaError, match="image_undecodable"):
            decode_image(data + made.png_chunk(b"IEND", b""), LIMITS)


def test_damaged_animation_does_not_end_the_process() -> None:
    # OpenCV 5.0 crashes on animated PNGs whose later frames are damaged.
    png = made.encoded(made.corners(), ".png")
    animation = made.png_chunk(b"acTL", struct.pack(">II", 2, 0))
    control = struct.pack(">IIIIIHHBB", 0, 64, 48, 0, 0, 1, 10, 0, 0)
    frame = made.png_chunk(b"fcTL", control[:3] + b"\1" + control[4:])
    data = made.png_chunk(b"fdAT", b"\0\0\0\2" + zlib.compress(b"\t" * (48 * 193)))
    end = made.png_chunk(b"IEND", b"")
    animated = png[:33] + animation + made.png_chunk(b"fcTL", control) + png[33 : -len(end)] + frame + data + end
    assert np.array_equal(decode_image(animated, LIMITS), made.corners())


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".avif", ".jp2", ".ppm", ".pfm"])
def test_pixel_limit_is_by_the_header(ending: str) -> None:
    picture = made.clouds(100, 50)
    data = made.encoded(picture.astype(np.float32) if ending == ".pfm" else picture, ending)
    assert decode_image(data, MediaLimits(max_pixels=5000)).shape == (50, 100, 3)
    with pytest.raises(MediaError, match=r"image_too_large: .*100x50.*4999"):
        decode_image(data, MediaLimits(max_pixels=4999))


def test_random_damage_raises_nothing_but_media_errors() -> None:
    rng = np.random.default_rng(0)
    for ending in (".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".avif", ".jp2", ".ppm"):
        whole = np.frombuffer(made.encoded(made.clouds(64, 48), ending), np.uint8)
        for _ in range(40):
            data = whole.copy()
            at = rng.integers(0, min(len(data), 400), 6)
            data[at] = rng.integers(0, 256, 6)
            try:
                shown = decode_image(data.tobytes(), MediaLimits(max_pixels=1_000_000))
            except MediaError:
                continue
            assert shown.ndim == 3 and shown.dtype == np.uint8 and np.isfinite(image_features(shown)).all()


# irot counts quarter turns anticlockwise; imir exchanges top and bottom (0) or left and right (1).
@pytest.mark.parametrize(
    ("properties", "orientation"),
    [
        ({}, 1),
        ({b"irot": 1}, 8),
        ({b"irot": 2}, 3),
        ({b"irot": 3}, 6),
        ({b"imir": 0}, 4),
        ({b"imir": 1}, 2),
        ({b"irot": 1, b"imir": 1}, 7),
        ({b"irot": 1, b"imir": 0}, 5),
    ],
)
def test_heic_is_shown_upright(properties: dict[bytes, int], orientation: int) -> None:
    assert seen_corners(decode_image(made.heic(made.corners(128, 96), properties), LIMITS)) == SHOWN[orientation]


def test_heic_is_refused_by_its_size_and_when_made_of_tiles_or_cut() -> None:
    data = made.heic(made.corners(128, 96))
    with pytest.raises(MediaError, match=r"image_too_large: .*128x96.*12287"):
        decode_image(data, MediaLimits(max_pixels=12_287))
    with pytest.raises(MediaError, match="image_unsupported: heic made of tiles"):
        decode_image(made.heic(made.corners(128, 96), is_grid=True), LIMITS)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(MediaError, match="image_un"):
            decode_image(data[: int(len(data) * share)], LIMITS)


def test_features_are_one_finite_vector_for_any_picture() -> None:
    pictures = [
        np.zeros((1, 1, 3), np.uint8),
        np.full((3, 2000, 3), 255, np.uint8),
        np.full((900, 2, 3), 128, np.uint8),
        made.clouds(),
        np.random.default_rng(0).integers(0, 256, (301, 207, 3), np.uint8),
    ]
    vectors = np.stack([image_features(picture) for picture in pictures])
    assert vectors.shape == (5, WIDTH) and vectors.dtype == np.float32
    assert 200 <= WIDTH <= 320
    assert np.isfinite(vectors).all() and np.abs(vectors).max() < 10


def test_alike_pictures_are_near_and_others_far() -> None:
    scene, other = made.clouds(seed=1), made.clouds(seed=2)
    stripes = np.zeros((240, 320, 3), np.uint8)
    stripes[:, ::20], stripes[:, 1::20] = 255, 255
    recoded = decode_image(made.encoded(cv2.resize(scene, (200, 150)), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 60), LIMITS)
    pictures = [scene, recoded, other, stripes, stripes.swapaxes(0, 1).copy()]
    vectors = np.stack([image_features(picture) for picture in pictures])
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    assert distances[0, 1] < 0.5 * distances[0, 2]
    assert distances[0, 2] < distances[0, 3]
    # Colors alone would not tell stripes from turned stripes.
    assert distances[3, 4] > 0.5

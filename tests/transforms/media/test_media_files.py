import csv
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from apache_beam.io.localfilesystem import LocalFileSystem

from tests.transforms.media.media_fixtures import corners, encoded, movie, moving_box, tone, wav
from transforms.media.audio_decode import read_audio
from transforms.media.decode import decode_medium
from transforms.media.encoders import make_encoder
from transforms.media.file_signatures import sniff
from transforms.media.image_decode import decode_image
from transforms.media.log_mel import audio_features
from transforms.media.media_files import MediaError, MediaLimits, kind_of, read_media, resolve_uri
from transforms.media.video import read_video
from transforms.tables.rejects import CODES


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A media root with a picture, a folder, names that look like escapes, and a secret beside it."""
    folder = tmp_path / "media"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b c.jpg", "%2e%2e%2fsecret.txt", "a:b.jpg", "wait….jpg", "back\\slash.jpg"):
        (folder / name).write_bytes(b"x")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (folder / "link.jpg").symlink_to(tmp_path / "secret.txt")
    (folder / "inner.jpg").symlink_to(folder / "a.jpg")
    (tmp_path / "media2").mkdir()
    (tmp_path / "media2" / "c.jpg").write_bytes(b"y")
    os.mkfifo(folder / "pipe.jpg")
    return folder


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("a.jpg", "a.jpg"),
        ("./sub/../a.jpg", "a.jpg"),
        ("sub/b c.jpg", "sub/b c.jpg"),
        ("%2e%2e%2fsecret.txt", "%2e%2e%2fsecret.txt"),
        ("a:b.jpg", "a:b.jpg"),
        ("wait….jpg", "wait….jpg"),
        ("back\\slash.jpg", "back\\slash.jpg"),
        ("inner.jpg", "a.jpg"),
        ("file://{root}/sub/b%20c.jpg", "sub/b c.jpg"),
        ("file://localhost{root}/a.jpg", "a.jpg"),
        ("{root}/a.jpg", "a.jpg"),
    ],
)
def test_uri_inside_a_root_resolves(root: Path, uri: str, name: str) -> None:
    assert resolve_uri(uri.format(root=root), [str(root)]) == str(root / name)


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("", "media_uri_invalid"),
        ("  ", "media_uri_invalid"),
        ("a\0.jpg", "media_uri_invalid"),
        ("a\n.jpg", "media_uri_invalid"),
        ("x" * 5000, "media_uri_invalid"),
        ("x" * 300, "media_uri_invalid"),
        ("\ud800.jpg", "media_uri_invalid"),
        ("..\\secret.txt", "media_uri_invalid"),
        ("C:\\secret.txt", "media_uri_invalid"),
        ("．．/secret.txt", "media_uri_invalid"),
        ("‥/secret.txt", "media_uri_invalid"),
        ("..／secret.txt", "media_uri_invalid"),
        ("sub", "media_uri_invalid"),
        (".", "media_outside_root"),
        ("pipe.jpg", "media_uri_invalid"),
        ("../secret.txt", "media_outside_root"),
        ("sub/../../secret.txt", "media_outside_root"),
        ("link.jpg", "media_outside_root"),
        ("/etc/passwd", "media_outside_root"),
        ("//etc/passwd", "media_outside_root"),
        ("../media2/c.jpg", "media_outside_root"),
        ("file:///etc/passwd", "media_outside_root"),
        ("file://{root}/%2e%2e/secret.txt", "media_outside_root"),
        ("file:///a%00b", "media_uri_invalid"),
        ("file://evil.example/a.jpg", "media_scheme_not_allowed"),
        ("http://169.254.169.254/latest", "media_scheme_not_allowed"),
        ("HTTPS://example.org/a.jpg", "media_scheme_not_allowed"),
        ("data:image/png;base64,AAAA", "media_scheme_not_allowed"),
        ("gs://bucket/a.jpg", "media_scheme_not_allowed"),
        ("none.jpg", "media_missing"),
        ("a.jpg/b", "media_missing"),
    ],
)
def test_uri_that_is_refused(root: Path, uri: str, code: str) -> None:
    with pytest.raises(MediaError) as caught:
        resolve_uri(uri.format(root=root), [str(root)])
    assert caught.value.code == code
    assert "secret" not in caught.value.message


def test_roots_are_tried_in_order_and_none_means_missing(root: Path) -> None:
    other = root.parent / "media2"
    assert resolve_uri("c.jpg", [str(root), str(other)]) == str(other / "c.jpg")
    (other / "a.jpg").write_bytes(b"z")
    assert resolve_uri("a.jpg", [str(root), str(other)]) == str(root / "a.jpg")
    with pytest.raises(MediaError, match="media_missing"):
        resolve_uri("a.jpg", [])
    # A root whose name only begins like the other does not count as inside.
    with pytest.raises(MediaError, match="media_outside_root"):
        resolve_uri(f"{other}/c.jpg", [str(root)])


def test_read_media_is_bounded(root: Path, tmp_path: Path) -> None:
    limits = MediaLimits(max_bytes=10)
    (tmp_path / "ten").write_bytes(b"0123456789")
    (tmp_path / "eleven").write_bytes(b"01234567890")
    (tmp_path / "none").write_bytes(b"")
    assert read_media(str(tmp_path / "ten"), limits) == b"0123456789"
    for name, code in [("eleven", "media_too_large"), ("none", "media_empty"), ("gone", "media_missing")]:
        with pytest.raises(MediaError, match=code):
            read_media(str(tmp_path / name), limits)
    with pytest.raises(MediaError, match="media_uri_invalid"):
        read_media(str(root / "pipe.jpg"), limits)


@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_a_link_that_takes_a_files_place_after_the_look_leads_nowhere(tmp_path: Path, swapped: str) -> None:
    root, secrets = tmp_path / "media", tmp_path / "secrets"
    for folder, content in ((root / "sub", b"picture"), (secrets, b"secret")):
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(content)
    found = resolve_uri("sub/a.jpg", [str(root)])
    assert read_media(found, MediaLimits()) == b"picture"
    if swapped == "file":
        (root / "sub" / "a.jpg").unlink()
        (root / "sub" / "a.jpg").symlink_to(secrets / "a.jpg")
    else:
        (root / "sub").rename(root / "old")
        (root / "sub").symlink_to(secrets)
    with pytest.raises(MediaError, match="media_outside_root"):
        read_media(found, MediaLimits())


def test_sniff_tells_what_bytes_are() -> None:
    picture = corners()
    for ending in ("jpeg", "png", "gif", "webp", "bmp", "tiff", "avif", "jp2"):
        assert sniff(encoded(picture, f".{ending}")) == ending
    for container, name in [("mp4", "mp4"), ("webm", "matroska"), ("mpegts", "mpegts"), ("avi", "avi")]:
        codec = "libvpx" if container == "webm" else "mpeg4"
        assert sniff(movie(moving_box(3), container=container, codec=codec)) == name
    for container in ("ogg", "mp3", "flac"):
        assert sniff(movie([], tone(), container)) == container
    assert sniff(wav(tone())) == "wav"
    assert sniff(b"<!DOCTYPE html><p>404") == "html"
    assert sniff(b"") == sniff(b"hello") == "unknown"


@pytest.mark.parametrize(
    ("kind", "uri", "expected"),
    [
        ("image", "x.mp4", "image"),
        (" Video ", "x", "video"),
        ("audio/ogg", "x", "audio"),
        (None, "a/b.JPEG", "image"),
        ("", "c.webm", "video"),
        ("clip", "c.mov", "video"),
        (None, "file:///d.mp3?x=1", "audio"),
    ],
)
def test_kind_of(kind: str | None, uri: str, expected: str) -> None:
    assert kind_of(kind, uri) == expected


def test_kind_that_nothing_tells() -> None:
    with pytest.raises(MediaError, match="media_kind_unknown"):
        kind_of(None, "no_ending")


# Whole files of formats that neither decoder reads: JPEG XL, TIFF of floats, TIFF with LZMA.
UNSUPPORTED = {
    "image/ft_fixture.jxl",
    "image/jx_alpha_triangles.jxl",
    "image/iio_multipage_rgb.tif",
    "image/pil_hopper_lzma.tif",
}


def _features(kind: str, path: Path) -> list[np.ndarray]:
    """Features of a file as a post would have it: a video's picture and sound each count."""
    limits = MediaLimits()
    wanted = {"image": True, "video": True, "audio": False}
    found = decode_medium(kind, read_media(str(path), limits), limits, wanted)
    return [audio_features([values])[0] if name == "audio" else values for name, values in found.items()]


def test_every_awkward_file_has_features_or_a_fitting_reject(shared_data: Path) -> None:
    folder = shared_data / "media"
    with open(folder / "expected.tsv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 149
    wrong = []
    for row in rows:
        path, decodable = row["path"], row["decodable"]
        try:
            vectors = _features(row["kind"], folder / path)
        except MediaError as error:
            if error.code not in CODES or (decodable == "yes" and path not in UNSUPPORTED):
                wrong.append((path, decodable, str(error)))
            if path in UNSUPPORTED and error.code != "image_unsupported":
                wrong.append((path, decodable, str(error)))
            continue
        if decodable == "no" or not all(np.isfinite(vector).all() for vector in vectors):
            wrong.append((path, decodable, "features"))
        if row["kind"] == "video" and decodable == "yes":
            tracks = (row["has_video"] == "yes") + (row["has_audio"] == "yes")
            if len(vectors) != tracks:
                wrong.append((path, decodable, f"{len(vectors)} of {tracks} tracks"))
    assert not wrong


def test_whole_pictures_and_clips_have_the_shape_a_viewer_shows(shared_data: Path) -> None:
    folder, limits = shared_data / "media", MediaLimits()
    with open(folder / "expected.tsv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["decodable"] == "yes" and row["width"]]
    wrong = []
    for row in rows:
        if row["path"] in UNSUPPORTED:
            continue
        data = (folder / row["path"]).read_bytes()
        frame = decode_image(data, limits) if row["kind"] == "image" else read_video(data, limits).frames[0]
        aspect = int(row["width"]) / int(row["height"])
        if abs(np.log(frame.shape[1] / frame.shape[0] / aspect)) > 0.03:
            wrong.append((row["path"], frame.shape))
    assert len(rows) > 60
    assert not wrong


def test_sounds_last_as_long_as_they_truly_do(shared_data: Path) -> None:
    folder, limits = shared_data / "media", MediaLimits()
    with open(folder / "expected.tsv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["kind"] == "audio"]
    for row in rows:
        if row["decodable"] == "yes":
            wave = read_audio((folder / row["path"]).read_bytes(), limits)
            assert len(wave) / 16_000 == pytest.approx(float(row["duration_s"]), rel=0.01, abs=0.001), row["path"]
            assert (np.abs(wave).max() < 1e-4) == (row["silent"] == "yes"), row["path"]


def test_encoders_have_the_width_they_say() -> None:
    audio = make_encoder("audio", "logmel")
    assert audio is not None and audio.encode is not None and audio.encode([tone()]).shape == (1, audio.width)
    assert cv2.getNumThreads() == 1


@pytest.mark.parametrize(
    "uri", ["../x.jpg", "/etc/passwd", "gs://other/x.jpg", "gs://bucket/dir/../x.jpg", "gs://bucket/dir"]
)
def test_uri_outside_a_remote_root_is_refused_without_asking_it(uri: str) -> None:
    with pytest.raises(MediaError, match="media_outside_root"):
        resolve_uri(uri, ["gs://bucket/dir"])


class DiskFileSystem(LocalFileSystem):
    """A Beam file system of its own scheme, disk://PATH; Beam finds it because it is a subclass."""

    @classmethod
    def scheme(cls) -> str:
        return "disk"

    def exists(self, path: str) -> bool:
        return super().exists(path.removeprefix("disk:/"))

    def open(self, path: str, *arguments: Any, **options: Any) -> Any:
        return super().open(path.removeprefix("disk:/"), *arguments, **options)


def test_remote_file_is_read_through_beam(tmp_path: Path) -> None:
    (tmp_path / "a b.gz").write_bytes(b"0123456789")
    root = f"disk:/{tmp_path}"
    found = resolve_uri("sub/../a b.gz", ["/nowhere", root])
    assert found == f"{root}/a b.gz" == resolve_uri(found, [root])
    assert read_media(found, MediaLimits(max_bytes=10)) == b"0123456789"
    with pytest.raises(MediaError, match="media_too_large"):
        read_media(found, MediaLimits(max_bytes=9))
    with pytest.raises(MediaError, match="media_missing"):
        resolve_uri("none.jpg", [root])


def test_root_may_be_a_file_uri(root: Path) -> None:
    assert resolve_uri("a.jpg", [f"file://{root}"]) == str(root / "a.jpg")

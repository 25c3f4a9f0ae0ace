"""Hostile input as a whole: names that lead elsewhere, files that name others, bombs, and noise."""

import gzip
import http.server
import io
import os
import random
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from faults import mutate
from tests.transforms.ingest.ingest_fixtures import places, read_file
from tests.transforms.media import media_fixtures as made
from transforms.extract.extract_features import Extractor
from transforms.extract.reuse import MediaKeys
from transforms.ingest import json_line_reader
from transforms.ingest.line_reader import LineLimits
from transforms.ingest.row_errors import RowError
from transforms.media.decode import Medium, decode_medium
from transforms.media.media_files import MediaError, MediaLimits, read_media, resolve_uri
from transforms.media.sandbox import IsolatedDecoder
from transforms.tables import schemas
from transforms.tables.rejects import CODES

WANTED = {"image": True, "video": True, "audio": False}
LIMITS = MediaLimits()


@pytest.mark.parametrize(
    "uri",
    [
        "..%2fsecret",
        "..%252fsecret",
        "%2e%2e/secret",
        "..%c0%afsecret",
        "sub/%2e%2e/%2e%2e/secret",
        "....//secret",
        "..;/secret",
        "\u2024\u2024/secret",
        "\uff0e\uff0e\uff0fsecret",
        "\u2025/secret",
        "..\u2044secret",
        "..\u2215secret",
        "..\uff0fsecret",
        "..\uff3csecret",
        "..\\secret",
        "../secret\0.jpg",
        "../secret",
        "sub/../../secret",
        "{root}/../secret",
        "/{root}/../secret",
        "file://{root}/../secret",
        "file://{root}/%2e%2e/secret",
        "file://{root}/%252e%252e/secret",
        "file://{root}/..%2fsecret",
        "FILE:{root}/../secret",
        "file:..//secret",
        "file://evil/{root}/../secret",
        "link",
        "folder_link/secret",
        "loop",
        "device",
        "zero",
        "pipe",
        "socket",
        "sub",
        "~/secret",
        "$HOME/secret",
        "smb://host/secret",
        "concat:../secret|../secret",
        "subfile,,start,0,end,9,,:../secret",
    ],
)
def test_no_name_leads_out_of_the_root(tmp_path: Path, uri: str) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder_link").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    (root / "device").symlink_to("/dev/stdin")
    (root / "zero").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
        with pytest.raises(MediaError) as caught:
            read_media(resolve_uri(uri.replace("{root}", str(root)), [str(root)]), LIMITS)
    assert caught.value.code in (
        *("media_outside_root", "media_uri_invalid", "media_missing", "media_scheme_not_allowed"),
    )


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """Which host and port are asked for something: `asked[0]` is its address, what follows are the requests."""
    log: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            log.append(self.path)
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        log.append(f"http://127.0.0.1:{server.server_port}")
        yield log
        server.shutdown()


def _pointers(other: Path, url: str) -> dict[str, bytes]:
    """Files that name another file, or a host, and nothing else."""
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:8,\n{}\n#EXT-X-ENDLIST\n"
    mpd = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" profiles="'
        'urn:mpeg:dash:profile:isoff-on-demand:2011" mediaPresentationDuration="PT5S"><Period><AdaptationSet '
        'mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL><SegmentBase indexRange="0-99">'
        '<Initialization range="0-99"/></SegmentBase></Representation></AdaptationSet></Period></MPD>'
    )
    svg = (
        '<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file://{0}">]><svg xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink"><image xlink:href="{0}"/><text>&x;</text></svg>'
    )
    texts = {
        "hls.m3u8": hls.format(other),
        "hls_url.m3u8": hls.format(f"{url}/a.ts"),
        "hls_file.m3u8": hls.format(f"file://{other}"),
        "hls_concat.m3u8": hls.format(f"concat:{other}|{other}"),
        "list.ffconcat": f"ffconcat version 1.0\nfile '{other}'\n",
        "list.concat": f"ffconcat version 1.0\nfile '{url}/a.ts'\n",
        "dash.mpd": mpd.format(f"{url}/a.mp4"),
        "x.svg": svg.format(url),
        "x.asx": f'<ASX version="3"><ENTRY><REF HREF="{url}/x"/></ENTRY></ASX>',
        "x.ram": f"{url}/x.rm\n",
        "x.pls": f"[playlist]\nFile1={url}/x.mp3\n",
        "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "notes.mp4": "just some words\n" * 100,
        "x.ffmeta": ";FFMETADATA1\ntitle=x\n",
    }
    return {name: text.encode() for name, text in texts.items()}


def test_files_that_name_others_open_none_of_them(tmp_path: Path, asked: list[str]) -> None:
    other = tmp_path / "other.ts"
    other.write_bytes(made.movie(made.moving_box(12), container="mpegts"))
    assert decode_medium("video", other.read_bytes(), LIMITS, WANTED)
    # In this very process, which could open them: the formats are refused, not only the opening.
    began = time.monotonic()
    for name, data in _pointers(other, asked[0]).items():
        for kind in ("image", "video", "audio"):
            with pytest.raises(MediaError) as caught:
                decode_medium(kind, data, LIMITS, WANTED)
            assert caught.value.code in (
                *("video_undecodable", "audio_undecodable", "image_undecodable", "image_unsupported"),
                "media_wrong_kind",
            ), (name, kind)
    assert len(asked) == 1
    assert time.monotonic() - began < 60  # A session description would wait for packets, one after the other.


def test_a_bomb_of_lines_is_left_where_it_unpacks_to_too_much(tmp_path: Path) -> None:
    row = b'{"post_id": "p%d", "text": "' + b"x" * 1000 + b'"}\n'
    honest = b"".join(row % number for number in range(2000))
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(honest * 60, 9))
    assert len(honest) * 60 > 100 * path.stat().st_size
    rows, rejects, counts = read_file(path, limits=LineLimits(max_gzip_ratio=50))
    assert [code for _, code in places(rejects)] == ["gzip_ratio_exceeded"]
    assert 0 < len(rows) < 60_000 and counts["posts.read"] == len(rows) + 1
    path.write_bytes(gzip.compress(honest[: 1 << 19], 9))
    assert "gzip_ratio_exceeded" not in dict(
        map(reversed, places(read_file(path, limits=LineLimits(max_gzip_ratio=1))[1]))
    )


def test_a_bomb_of_columns_is_left_too(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"post_id,text\n" + b"p,x\n" * 3_000_000, 9))
    rows, rejects, _ = read_file(path, limits=LineLimits(max_gzip_ratio=20))
    assert [code for _, code in places(rejects)] == ["gzip_ratio_exceeded"] and len(rows) > 1000


@pytest.mark.parametrize("line", [b"[" * 70 + b'"' + b'\\"' * 400_000, b'{"a": NaN, "b": "' + b'\\"' * 400_000])
def test_strings_without_end_are_looked_at_once(line: bytes) -> None:
    began = time.monotonic()
    for data in (line, line + b"\\"):
        with pytest.raises(RowError):
            json_line_reader.parse_line(data, LineLimits(), True)
    # Once each is milliseconds; from every quote anew would be hours.
    assert time.monotonic() - began < 30


def _files() -> dict[str, tuple[str, bytes, str]]:
    """Awkward files: kind, bytes, and the code of the reject or "" for features."""
    picture = made.clouds(64, 48)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "words")
    gif = made.encoded(picture, ".gif")
    wave = made.wav(made.tone())
    sound, clip = made.movie([], made.tone(), "mp3"), made.movie(made.moving_box(12), made.tone())
    screen_only = gif[:13] + gif[13 : 13 + 3 * 2 ** ((gif[10] & 7) + 1)] * (gif[10] >> 7) + b";"
    return {
        "zip.jpg": ("image", archive.getvalue(), "media_wrong_kind"),
        "page.png": ("image", b"<!DOCTYPE html><title>404</title>", "media_wrong_kind"),
        "sixteen.png": ("image", made.encoded(picture.astype(np.uint16) * 257, ".png"), ""),
        "no_frame.gif": ("image", screen_only, "image_undecodable|image_truncated"),
        "huge.png": ("image", made.png_header(60_000, 60_000) + made.png_chunk(b"IEND", b""), "image_too_large"),
        "zero.png": ("image", made.png_header(0, 5), "image_undecodable|image_truncated"),
        "icon.ico": ("image", b"\0\0\1\0" + bytes(60), "image_unsupported"),
        "sound.mp4": ("video", made.movie([], made.tone(), "mp4"), ""),
        "sound_as_picture.jpg": ("image", sound, "media_wrong_kind"),
        "picture.mp3": ("audio", made.encoded(picture, ".jpg"), "media_wrong_kind"),
        "cut.mp4": ("video", clip[: len(clip) // 2], "video_undecodable"),
        "endless.wav": ("audio", wave[:4] + b"\xff" * 4 + wave[8:40] + b"\xff" * 4 + wave[44:], ""),
        "nan.wav": ("audio", made.wav(np.full(1000, np.nan, np.float32)), "audio_not_finite"),
        "header.wav": ("audio", wave[:44], "audio_no_samples|audio_undecodable"),
        "noise.bin": ("video", np.random.default_rng(0).bytes(10_000), "video_undecodable|video_no_frames"),
        "zeros.mp3": ("audio", bytes(10_000), "audio_undecodable"),
        "opus.webm": ("audio", made.movie([], made.tone(), "webm"), ""),
        "clip.webm": ("video", made.movie(made.moving_box(12), container="webm", codec="libvpx"), ""),
        "adts.aac": ("audio", made.movie([], made.tone(), "adts"), ""),
        "song.flac": ("audio", made.movie([], made.tone(), "flac"), ""),
    }


def test_awkward_files_end_as_they_should() -> None:
    files = _files()
    decoder = IsolatedDecoder(WANTED, LIMITS)
    found = dict(decoder.decode((name, Medium(kind, data)) for name, (kind, data, _) in files.items()))
    assert decoder.num_started == 1
    decoder.close()
    codes = {name: result.code if isinstance(result, MediaError) else "" for name, result in found.items()}
    wrong = {name: codes[name] for name, (*_, expected) in files.items() if codes[name] not in expected.split("|")}
    assert not wrong


def test_mutated_media_give_features_or_one_reject_each(tmp_path: Path) -> None:
    chosen = random.Random(0)
    seeds = mutate.made_media()
    names = [(kind, f"{kind}{number}") for number in range(20) for kind in sorted(seeds)]
    for kind, name in names:
        (tmp_path / name).write_bytes(mutate.mutate_file(chosen, seeds[kind]))
    rows = [{"post_id": name, "sensitive": False, "media": [{"kind": kind, "uri": name}]} for kind, name in names]
    encoders = {"image": "opencv", "video": "opencv", "audio": "none"}
    limits = MediaLimits(max_decode_seconds=20.0, max_decode_mib=512)
    extractor = Extractor(encoders, {}, MediaKeys([str(tmp_path)], ""), limits, 4, 16)
    made_of = extractor.extract(pa.RecordBatch.from_pylist(rows, schema=schemas.POSTS))
    extractor.close()
    rejected = made_of.rejects.column("id").to_pylist()
    described = [
        row["post_id"] for row in made_of.features.to_pylist() if row["image"] is not None or row["video"] is not None
    ]
    sounds = [name for kind, name in names if kind == "audio"]
    assert sorted(rejected + described + sounds) == sorted(name for _, name in names)
    assert set(made_of.rejects.column("code").to_pylist()) <= CODES.keys()
    assert rejected and described


@pytest.mark.parametrize("table", ["posts", "interactions", "users"])
def test_mutated_lines_are_rows_or_rejects(tmp_path: Path, table: str) -> None:
    chosen = random.Random(0)
    real = mutate.real_rows(table, 20)
    data = b"\n".join([real[0], *(mutate.mutate_line(chosen, real) for _ in range(150))])
    path = tmp_path / "x.jsonl"
    path.write_bytes(data)
    rows, rejects, counts = read_file(path, table=table)
    filled = sum(bool(line.strip(b" \t\r")) for line in data.split(b"\n"))
    assert counts[f"{table}.read"] == filled == len(rows) + len(rejects)
    assert len(rows) > 1 and len(rejects) > 1

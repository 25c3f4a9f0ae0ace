import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import cv2
import numpy as np
import pyarrow as pa
import pytest

from transforms.extract import extract_features, reuse
from transforms.extract.extract_features import ExtractFeatures, Extractor, ExtractOutputs
from transforms.extract.reuse import MediaKeys
from transforms.media.media_files import MediaLimits
from transforms.tables import blocks, parquet, schemas
from transforms.tables.rejects import WriteRejects

NewPipeline = Callable[[], beam.Pipeline]
ENCODERS = {"image": "opencv", "video": "none", "audio": "none"}
NUM_POSTS = 30


def picture(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(pixels, (240, 160)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "media"
    directory.mkdir()
    for number in range(NUM_POSTS):
        picture(directory / f"{number}.jpg", number)
    (directory / "3.jpg").write_bytes((directory / "3.jpg").read_bytes()[:300])
    return directory


def posts_of(numbers: list[int]) -> pa.RecordBatch:
    rows: list[dict[str, Any]] = []
    for number in numbers:
        entries = [{"kind": "image", "uri": f"{number}.jpg", "alt": None}, {"kind": "image", "uri": "no.jpg"}]
        media = entries[: 1 + (number % 4 == 0)] if number % 5 else None
        rows.append({"post_id": f"p{number:02d}", "text": "words", "sensitive": False, "media": media})
    return pa.RecordBatch.from_pylist(rows, schema=schemas.POSTS)


def describe(posts: pa.RecordBatch, keys: MediaKeys) -> ExtractOutputs:
    return Extractor(ENCODERS, {}, keys, MediaLimits(), 4, 8).extract(posts)


def run(
    new_pipeline: NewPipeline, directory: Path, before: Path, posts: pa.RecordBatch, keys: MediaKeys
) -> tuple[dict[str, pa.Table], dict[str, int]]:
    """What is made of some posts in parts of seven, by what the tables in `before` tell: tables and counts."""
    for part, rows in enumerate(blocks.split_rows(posts, 7)):
        parquet.write_file(parquet.part_path(str(directory / "posts"), part), rows, schemas.POSTS)
    schema = reuse.reusable_schema(parquet.read_schema(str(before / "features")), ["image"])
    with new_pipeline() as root:
        read: dict[str, Any] = {
            name: root | name >> parquet.ReadBlocks(str(before / name)) for name in ("media", "features")
        }
        read["posts"] = root | parquet.ReadParts(str(directory / "posts"), ("post_id", "media"))
        found = read | reuse.FindReusable(keys, schema, 3)
        _ = found | parquet.WriteParts(str(directory / "reusable"), schema)
    with new_pipeline() as root:
        parts = root | parquet.ReadParts(str(directory / "posts"))
        made = parts | ExtractFeatures(ENCODERS, {}, keys, MediaLimits(), str(directory / "reusable"))
        features = extract_features.feature_schema(ENCODERS, {})
        _ = made.parts | "Features" >> parquet.WriteParts(str(directory / "features"), features)
        _ = made.media | "Media" >> parquet.WriteParts(str(directory / "media"), schemas.MEDIA)
        _ = made.rejects | "Rejects" >> WriteRejects(str(directory / "rejects"))
        counted = made.counts | beam.CombinePerKey(sum) | beam.Map(lambda count: f"{count[0]} {count[1]}")
        _ = counted | beam.io.WriteToText(str(directory / "counts"), shard_name_template="")
    lines = (directory / "counts").read_text().split("\n")[:-1]
    counts = {name: int(number) for name, number in (line.rsplit(" ", 1) for line in lines)}
    return {name: whole(directory / name) for name in ("features", "media", "rejects")}, counts


def whole(directory: Path) -> pa.Table:
    table = pa.Table.from_batches(parquet.read_blocks(str(directory), 1000))
    names = [name for name in ("post_id", "id", "record") if name in table.column_names]
    return table.sort_by([(name, "ascending") for name in names]).combine_chunks()


def test_media_that_have_not_changed_are_not_read_again(
    new_pipeline: NewPipeline, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = MediaKeys([str(root)], "1")
    before = describe(posts_of(list(range(NUM_POSTS - 2))), keys)
    for name, block in (("features", before.features), ("media", before.media)):
        for part, rows in enumerate(blocks.split_rows(block, 11)):
            parquet.write_file(parquet.part_path(str(tmp_path / "before" / name), part), rows, block.schema)
    picture(root / "7.jpg", 99)  # another picture under the same name
    now = posts_of(list(range(1, NUM_POSTS)))  # one post is gone, two are new
    afresh = describe(now, keys)

    read: list[str] = []
    read_uri = extract_features.read_uri

    def watched(uri: str, *more: Any) -> bytes:
        read.append(uri)
        return read_uri(uri, *more)

    monkeypatch.setattr(extract_features, "read_uri", watched)
    found, counts = run(new_pipeline, tmp_path / "now", tmp_path / "before", now, keys)
    # p28 is new and has a second one that is not there; p29 is new; of p07 the picture has changed.
    assert sorted(read) == ["28.jpg", "29.jpg", "7.jpg", "no.jpg"]
    for name, block in (("features", afresh.features), ("media", afresh.media), ("rejects", afresh.rejects)):
        expected = whole_of(block)
        assert found[name].equals(expected), name
    reused = counts.pop("media.reused_posts")
    assert reused == sum(number % 5 > 0 for number in range(1, NUM_POSTS - 2)) - 1
    assert counts == afresh.counts
    assert counts["media.image.referenced"] == counts["media.image.features"] + counts["media.image.missing"] + 1


def whole_of(block: pa.RecordBatch) -> pa.Table:
    table = pa.Table.from_batches([block])
    names = [name for name in ("post_id", "id", "record") if name in table.column_names]
    return table.sort_by([(name, "ascending") for name in names]).combine_chunks()


def test_a_key_tells_what_a_medium_was_and_how_it_was_read(root: Path) -> None:
    posts = posts_of([1, 4, 5])
    keys = MediaKeys([str(root)], "1")(posts).to_pylist()
    assert keys[2] is None and len({*keys}) == 3
    assert MediaKeys([str(root)], "1")(posts).to_pylist() == keys
    assert MediaKeys([str(root)], "2")(posts)[0].as_py() != keys[0]
    status = os.stat(root / "1.jpg")
    os.utime(root / "1.jpg", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    (root / "no.jpg").write_bytes(b"x")
    changed = MediaKeys([str(root)], "1")(posts).to_pylist()
    assert [one != two for one, two in zip(keys, changed, strict=True)] == [True, True, False]


def test_flags_limits_and_code_are_in_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    version = reuse.version_of(ENCODERS, MediaLimits(), 16)
    assert reuse.version_of(ENCODERS, MediaLimits(), 16) == version
    others = [
        reuse.version_of(ENCODERS | {"image": "none"}, MediaLimits(), 16),
        reuse.version_of(ENCODERS, MediaLimits(max_bytes=5), 16),
        reuse.version_of(ENCODERS, MediaLimits(), 15),
        reuse.version_of(ENCODERS, MediaLimits(), 16, [("network.keras", 5, 1.0)]),
    ]
    monkeypatch.setattr(reuse, "hash_sources", lambda folders: "other code")
    others.append(reuse.version_of(ENCODERS, MediaLimits(), 16))
    assert len({version, *others}) == 6


def test_what_may_have_passed_is_tried_again() -> None:
    def entry(uri: str | None, code: str | None) -> dict[str, Any]:
        return {"position": 0, "kind": "image", "outcome": "rejected", "uri": uri, "code": code, "message": code}

    entries = {
        "good": [entry(None, None)],
        "cut": [entry("a.jpg", "image_truncated")],
        "slow": [entry(None, None), entry("a.jpg", "decoder_timeout")],
        "down": [entry("https://a.example/x.jpg", "media_http_failed")],
        "gone": [entry("HTTP://a.example/x.jpg", "media_missing")],
        "none": [],
    }
    rows = [{"post_id": name, "key": "1", "entries": found} for name, found in entries.items()]
    media = pa.RecordBatch.from_pylist(rows, schema=schemas.MEDIA)
    assert reuse.lasting(media).column("post_id").to_pylist() == ["good", "cut", "none"]
    assert reuse.lasting(media.slice(5)).num_rows == 1

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import cv2
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that

from transforms.extract import supplied_vectors
from transforms.extract.extract_features import ExtractFeatures, Extractor, feature_schema, media_alts, media_entries
from transforms.extract.pooling import Pool
from transforms.extract.reuse import MediaKeys
from transforms.media.encoders import Encoder
from transforms.media.image_decode import decode_image
from transforms.media.image_descriptors import WIDTH, image_features
from transforms.media.media_files import MediaLimits
from transforms.tables import blocks, schemas

NewPipeline = Callable[[], beam.Pipeline]
ENCODERS = {"image": "opencv", "video": "none", "audio": "none"}


def _posts(*rows: dict[str, Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"sensitive": False} | row for row in rows], schema=schemas.POSTS)


def _picture(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(pixels, (240, 160)))


@pytest.fixture
def media_root(tmp_path: Path) -> Path:
    for seed in range(3):
        _picture(tmp_path / f"{seed}.jpg", seed)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:300])
    (tmp_path / "empty.png").write_bytes(b"")
    return tmp_path


def _entry(uri: str, kind: str | None = "image", alt: str | None = None) -> dict[str, str | None]:
    return {"kind": kind, "uri": uri, "alt": alt}


def _extractor(root: Path, **changes: Any) -> Extractor:
    settings: dict[str, Any] = {
        "encoders": ENCODERS,
        "vector_widths": {},
        "keys": MediaKeys([str(root)], "1"),
        "limits": MediaLimits(),
        "max_media_per_post": 4,
        "block_rows": 2,
    }
    return Extractor(**settings | changes)


def test_several_pictures_of_a_post_are_pooled_and_broken_ones_cost_nothing_else(media_root: Path) -> None:
    posts = _posts(
        {"post_id": "a", "text": "two pictures", "media": [_entry("0.jpg"), _entry("1.jpg", kind=None)]},
        {"post_id": "b", "text": "one is broken", "media": [_entry("cut.jpg"), _entry("2.jpg")]},
        {
            "post_id": "c",
            "text": "all are broken",
            "media": [_entry("gone.jpg"), _entry("empty.png"), _entry("../x.jpg")],
        },
        {"post_id": "d"},
    )
    features, _, rejects, counts = _extractor(media_root).extract(posts)
    assert features.schema.equals(feature_schema(ENCODERS, {}))
    images = [decode_image((media_root / f"{n}.jpg").read_bytes(), MediaLimits()) for n in range(3)]
    vectors = np.stack([image_features(image) for image in images])
    values, present = blocks.optional_to_numpy(features.column("image"), WIDTH)
    assert present.tolist() == [True, True, False, False]
    np.testing.assert_allclose(values[0], vectors[:2].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(values[1], vectors[2], rtol=1e-5)
    assert features.column("text_terms").is_valid().to_pylist() == [True, True, True, False]

    found = [(r["id"], r["source"], r["record"]) for r in rejects.to_pylist()]
    assert found == [
        ("b", "cut.jpg", "media[0]"),
        ("c", "gone.jpg", "media[0]"),
        ("c", "empty.png", "media[1]"),
        ("c", "../x.jpg", "media[2]"),
    ]
    assert rejects.column("code").to_pylist()[1:] == ["media_missing", "media_empty", "media_outside_root"]
    wanted = {"referenced": 7, "features": 3, "missing": 1, "rejected": 3}
    assert {name: counts[f"media.image.{name}"] for name in wanted} == wanted
    assert counts["features.image"] == 2


def test_kinds_without_an_encoder_are_not_even_opened(media_root: Path) -> None:
    posts = _posts({"post_id": "a", "media": [_entry("gone.mp4", "video"), _entry("?", "hologram")]})
    _, _, rejects, counts = _extractor(media_root).extract(posts)
    assert rejects.column("code").to_pylist() == ["media_kind_unknown"]
    assert counts["media.video.ignored"] == 1 and "media.video.referenced" not in counts
    assert counts["media.unknown.referenced"] == counts["media.unknown.rejected"] == 1


def test_entries_beyond_the_limit_are_rejected(media_root: Path) -> None:
    posts = _posts({"post_id": "a", "media": [_entry("0.jpg")] * 6})
    _, _, rejects, counts = _extractor(media_root).extract(posts)
    assert rejects.column("code").to_pylist() == ["media_too_many"] * 2
    assert counts["media.image.features"] == 4


def test_ready_made_vectors_become_modalities(media_root: Path) -> None:
    posts = _posts(
        {"post_id": "a", "vectors": [("clip", [1.0, 2.0]), ("text", [3.0])]},
        {"post_id": "b", "vectors": [("clip", [1.0, 2.0, 3.0])]},
        {"post_id": "c"},
    )
    features, _, rejects, counts = _extractor(media_root, vector_widths={"clip": 2, "text": 1}).extract(posts)
    assert features.column("clip").to_pylist() == [[1, 2], None, None]
    assert features.column("text_vector").to_pylist() == [[3], None, None]
    assert [(r["id"], r["code"]) for r in rejects.to_pylist()] == [("b", "vector_width")]
    assert counts["features.clip"] == 1
    assert schemas.widths_of(features.schema)["clip"] == 2


def test_the_most_frequent_width_is_the_modality_s() -> None:
    widths = {"posts.vectors.a.3": 5, "posts.vectors.a.4": 6, "posts.vectors.b.b.2": 1, "posts.read": 9}
    assert supplied_vectors.choose_widths(widths) == {"a": 4, "b.b": 2}
    with pytest.raises(ValueError, match="at most 16 names, got 17"):
        supplied_vectors.choose_widths({f"posts.vectors.{n}.2": 1 for n in range(17)})


def test_features_do_not_depend_on_blocks(media_root: Path) -> None:
    posts = _posts(*({"post_id": str(n), "text": f"post {n}", "media": [_entry(f"{n % 3}.jpg")]} for n in range(40)))
    one, other = (_extractor(media_root, block_rows=rows).extract(posts) for rows in (1, 40))
    assert one.features.equals(other.features) and one.counts == other.counts
    assert one.media.equals(other.media) and one.media.num_rows == 40


def test_media_columns_with_nulls_and_slices() -> None:
    posts = _posts(
        {"post_id": "a", "media": [_entry("x", alt="one")]},
        {"post_id": "b"},
        {"post_id": "c", "media": [_entry("y", alt="two"), _entry("z")]},
    ).slice(1)
    media = posts.column("media")
    assert media_alts(media).to_pylist() == [[], ["two", None]]
    assert [(row, index, entry["uri"]) for row, index, entry in media_entries(media)] == [(1, 0, "y"), (1, 1, "z")]


def test_a_pool_encodes_some_samples_at_a_time() -> None:
    sizes = []

    def encode(batch: Any) -> np.ndarray:
        sizes.append(len(batch))
        return np.array([[value] for value in batch], np.float32)

    pool = Pool(Encoder(1, encode), 2)
    for number in range(70):
        pool.add(0, number)
    assert pool.column().to_pylist() == [[34.5], None]
    assert sizes == [32, 32, 6]


def test_transform_gives_parts_rejects_and_counts(media_root: Path, new_pipeline: NewPipeline) -> None:
    posts = _posts({"post_id": "a", "text": "hello", "media": [_entry("0.jpg"), _entry("gone.jpg")]})

    def check_parts(parts: list[tuple[int, pa.RecordBatch]]) -> None:
        assert [(part, block.num_rows) for part, block in parts] == [(7, 1)]
        assert parts[0][1].column("image").null_count == 0

    def check_rejects(found: list[pa.RecordBatch]) -> None:
        assert [block.column("code").to_pylist() for block in found] == [["media_missing"]]

    def check_counts(counts: list[tuple[str, int]]) -> None:
        assert dict(counts)["media.image.referenced"] == 2

    with new_pipeline() as pipeline:
        extracted = (
            pipeline
            | beam.Create([(7, posts)])
            | ExtractFeatures(ENCODERS, {}, MediaKeys([str(media_root)], "1"), MediaLimits())
        )
        assert_that(extracted.parts, check_parts, label="Parts")
        assert_that(extracted.rejects, check_rejects, label="Rejects")
        assert_that(extracted.counts, check_counts, label="Counts")


def test_a_wrong_encoder_is_told_when_built() -> None:
    with pytest.raises(ValueError, match="no image encoder is called 'resnet'"):
        ExtractFeatures({"image": "resnet"}, {}, MediaKeys([], "1"), MediaLimits())

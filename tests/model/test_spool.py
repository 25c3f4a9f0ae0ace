import dataclasses
import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model import spool as spool_module
from model.spool import Spool, id_hashes, write_spool


@pytest.fixture
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "MAX_BUCKET_BYTES", 1 << 14)


def _all_rows(spool: Spool) -> np.ndarray:
    return np.concatenate([spool.bucket(i) for i in range(len(spool.bucket_rows))] + [spool.validation()])


def test_id_hashes_are_blake2b_of_the_bytes() -> None:
    ids = pa.array(["skip", "a", "日本"]).slice(1)
    digest = hashlib.blake2b("日本".encode(), digest_size=24, key=b"fusefeed.training").digest()
    expected = [int.from_bytes(digest[i : i + 8], "little") for i in (0, 8, 16)]
    np.testing.assert_array_equal(id_hashes(ids)[1], np.array(expected, np.uint64))
    assert id_hashes(pa.array([], pa.string())).shape == (0, 3)


@pytest.mark.usefixtures("small_buckets")
def test_buckets_do_not_depend_on_shards(
    new_world: Callable[..., Any], write_shard: Callable[..., str], tmp_path: Path
) -> None:
    world = new_world(5000)
    one = write_spool([write_shard("one", world)], world.layout, str(tmp_path / "a"), 0.1)
    cuts = [0, 1, 700, 701, 4000, 5000]
    shards = [write_shard(f"s{i}", world, slice(a, b), 97) for i, (a, b) in enumerate(itertools.pairwise(cuts))]
    many = write_spool(shards[::-1], world.layout, str(tmp_path / "b"), 0.1)
    assert len(one.bucket_rows) == 5
    assert dataclasses.replace(many, directory="") == dataclasses.replace(one, directory="")
    np.testing.assert_array_equal(_all_rows(one), _all_rows(many))


@pytest.mark.usefixtures("small_buckets")
def test_every_row_with_a_modality_is_there_once(
    new_world: Callable[..., Any], write_shard: Callable[..., str], tmp_path: Path
) -> None:
    world = new_world(3000, missing=0.5)
    spool = write_spool([write_shard("one", world)], world.layout, str(tmp_path / "a"), 0.1)
    rows = np.hstack([world.fused, world.mask])[world.mask.any(axis=1)]
    assert spool.num_empty == 3000 - len(rows) > 0
    assert spool.num_train + spool.num_validation == len(rows)
    np.testing.assert_array_equal(np.unique(_all_rows(spool), axis=0), np.unique(rows, axis=0))
    assert not [name.name for name in (tmp_path / "a").iterdir() if "unsorted" in name.name]


@pytest.mark.parametrize("num_rows", [2, 3, 5, 30])
@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_neither_side_of_the_split_is_empty(
    new_world: Callable[..., Any], write_shard: Callable[..., str], tmp_path: Path, num_rows: int, fraction: float
) -> None:
    world = new_world(num_rows, missing=0)
    spool = write_spool([write_shard("one", world)], world.layout, str(tmp_path / "a"), fraction)
    assert spool.num_train >= 1 and spool.num_validation >= 1


def test_the_share_held_out_is_the_one_asked_for(
    new_world: Callable[..., Any], write_shard: Callable[..., str], tmp_path: Path
) -> None:
    world = new_world(4000, missing=0)
    path = write_shard("one", world)
    assert write_spool([path], world.layout, str(tmp_path / "a"), 0.0).num_validation == 0
    assert 320 < write_spool([path], world.layout, str(tmp_path / "a"), 0.1).num_validation < 480


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("fused", np.nan, "fused must be finite, got NaN or infinity in .*bad"),
        ("fused", np.inf, "fused must be finite"),
        ("mask", 0.5, "mask must be 0 or 1, got other values in .*bad"),
    ],
)
def test_a_value_that_cannot_be_names_the_shard(
    new_world: Callable[..., Any],
    write_shard: Callable[..., str],
    tmp_path: Path,
    column: str,
    value: float,
    message: str,
) -> None:
    world = new_world(20)
    files = [write_shard("good", world, slice(0, 10))]
    getattr(world, column)[15, 1] = value
    files.append(write_shard("bad", world, slice(10, 20)))
    with pytest.raises(ValueError, match=message):
        write_spool(files, world.layout, str(tmp_path / "a"), 0.1)


def test_a_shard_of_another_kind_is_refused(
    new_world: Callable[..., Any], new_layout: Callable[..., Any], write_shard: Callable[..., str], tmp_path: Path
) -> None:
    world = new_world(5)
    path, out = write_shard("one", world), str(tmp_path / "out")
    with pytest.raises(ValueError, match=r"fused must be .*\[3\], got .*\[20\] in .*one"):
        write_spool([path], new_layout(text=2, image=1), out, 0.1)
    pq.write_table(pq.read_table(path).drop(["mask"]), tmp_path / "two")
    with pytest.raises(ValueError, match="two must have the columns post_id, fused, mask, got no mask"):
        write_spool([str(tmp_path / "two")], world.layout, out, 0.1)
    (tmp_path / "three").write_text("not parquet at all")
    with pytest.raises(ValueError, match="three is not a Parquet file"):
        write_spool([str(tmp_path / "three")], world.layout, out, 0.1)


def test_shards_are_opened_by_the_function_given(
    new_world: Callable[..., Any], write_shard: Callable[..., str], tmp_path: Path
) -> None:
    world = new_world(50, missing=0)
    path = write_shard("one", world)

    def open_file(name: str) -> BinaryIO:
        assert name.startswith("far://")
        return open(name.removeprefix("far:/"), "rb")

    assert write_spool([f"far:/{path}"], world.layout, str(tmp_path / "a"), 0.0, open_file).num_train == 50

"""Fused vectors with a known structure, as arrays and as Parquet shards."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.layout import Layout, Modality


@dataclasses.dataclass(frozen=True)
class World:
    """Rows whose modalities are noisy views of the same few factors."""

    layout: Layout
    ids: list[str]
    fused: np.ndarray
    mask: np.ndarray


def make_layout(**widths: int) -> Layout:
    """Blocks in the order given."""
    ends = np.cumsum(list(widths.values())).tolist()
    blocks = zip(widths.items(), ends, strict=True)
    return Layout(tuple(Modality(name, end - width, width) for (name, width), end in blocks))


def make_world(num_rows: int, missing: float = 0.2, seed: int = 1) -> World:
    """`text` (12 wide, around 3) and `image` (8 wide, a hundred times larger) from 4 common factors."""
    random = np.random.default_rng(seed)
    layout = make_layout(text=12, image=8)
    factors = random.normal(size=(num_rows, 4))
    fused = factors @ np.random.default_rng(0).normal(size=(4, 20)) + 0.3 * random.normal(size=(num_rows, 20))
    fused = fused * np.repeat([1, 100], [12, 8]) + np.repeat([3, 0], [12, 8])
    mask = (random.random((num_rows, 2)) >= missing).astype(np.float32)
    fused = (fused * (mask @ layout.membership)).astype(np.float32)
    return World(layout, [f"post{i}" for i in range(num_rows)], fused, mask)


def make_factor_world(num_rows: int, bent: bool = True, missing: float = 0.1, seed: int = 1) -> World:
    """`text` (8 wide), `image` (6 wide) and 6 collaborative factors of unit variance, noisy functions of the two.

    With `bent` half of the factors is a curved function of what the content shows, which no linear map can predict;
    without it all are linear. Four posts in five have factors.
    """
    random, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    layout = make_layout(text=8, image=6, collaborative=6)
    causes = random.normal(size=(num_rows, 5))
    views = [causes[:, :4] @ fixed.normal(size=(4, 8)), causes[:, 2:] @ fixed.normal(size=(3, 6))]
    factors = causes @ fixed.normal(size=(5, 6)) / np.sqrt(5)
    if bent:
        factors[:, :3] = (causes[:, :3] ** 2 - 1) / np.sqrt(2)
    rows = np.hstack([*views, factors]) + 0.2 * random.normal(size=(num_rows, 20))
    mask = (random.random((num_rows, 3)) >= [missing, missing, 0.2]).astype(np.float32)
    mask[~mask[:, :2].any(axis=1), 0] = 1
    fused = (rows * (mask @ layout.membership)).astype(np.float32)
    return World(layout, [f"post{i}" for i in range(num_rows)], fused, mask)


def write_rows(path: Path, world: World, rows: slice = slice(None), row_group_size: int = 1000) -> str:
    """One shard with some of the rows, and a column more than is needed."""
    columns = {"post_id": pa.array(world.ids[rows], pa.string()), "author_id": pa.nulls(len(world.ids[rows]))}
    for name, values in (("fused", world.fused[rows]), ("mask", world.mask[rows])):
        flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return str(path)


@pytest.fixture(scope="session")
def new_layout() -> Callable[..., Layout]:
    return make_layout


@pytest.fixture(scope="session")
def new_world() -> Callable[..., World]:
    return make_world


@pytest.fixture(scope="session")
def new_factor_world() -> Callable[..., World]:
    return make_factor_world


@pytest.fixture(scope="session")
def write_table() -> Callable[..., str]:
    """Writes a shard of a world anywhere: write_table(path, world, rows, row_group_size) -> path."""
    return write_rows


@pytest.fixture
def write_shard(tmp_path: Path) -> Callable[..., str]:
    """Writes a shard of a world into the test's directory: write_shard(name, world, rows, row_group_size) -> path."""
    return lambda name, world, *how: write_rows(tmp_path / name, world, *how)

import numpy as np
import pyarrow as pa
import pytest

from tests.transforms.search.test_top_k import make_candidates
from transforms.search.catalog import Tile
from transforms.search.exclusions import Exclusions
from transforms.tables import blocks

NOBODY = np.empty(0, np.int64), pa.array([], pa.string())


def excluded(exclusions: Exclusions, tile: Tile, rows: np.ndarray) -> list[tuple[int, str]]:
    row, column = exclusions.in_tile(tile).pairs(rows, slice(0, len(tile.post_id)))
    names = tile.post_id.take(pa.array(column)).to_pylist()
    return sorted(zip(rows[row].tolist(), names, strict=True))


def hashes_of_few_bits(column: pa.Array, seed: int = 0) -> np.ndarray:
    return np.array([hash(value) % 5 for value in column.to_pylist()], np.uint64)


@pytest.mark.parametrize("hashes", [blocks.stable_hash, hashes_of_few_bits])
def test_excluded_pairs_are_found_in_a_tile(monkeypatch: pytest.MonkeyPatch, hashes: object) -> None:
    monkeypatch.setattr(blocks, "stable_hash", hashes)
    rng = np.random.default_rng(0)
    tile = Tile.of(make_candidates(rng.standard_normal((60, 3)).astype(np.float32)))
    drawn = rng.integers(0, 9, 200), rng.integers(20, 90, 200)
    pairs = sorted({(int(query), f"p{i:04d}") for query, i in zip(*drawn, strict=True)})
    shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
    exclusions = Exclusions(
        np.array([query for query, _ in shuffled] + [3]), pa.array([post for _, post in shuffled] + [None]), *NOBODY
    )
    there = set(tile.post_id.to_pylist())
    rows = np.array([0, 3, 4, 8])
    assert excluded(exclusions, tile, rows) == [(q, p) for q, p in pairs if q in rows and p in there]


def test_an_id_with_the_hash_of_an_excluded_one_is_not_excluded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "stable_hash", lambda column, seed=0: np.full(len(column), 7, np.uint64))
    tile = Tile.of(make_candidates(np.eye(3, dtype=np.float32)))
    for seen, expected in (("p0001", [(0, "p0001")]), ("other", [])):
        exclusions = Exclusions(np.zeros(1, np.int64), pa.array([seen]), *NOBODY)
        assert excluded(exclusions, tile, np.array([0])) == expected
    assert excluded(Exclusions.none(), tile, np.array([0])) == []

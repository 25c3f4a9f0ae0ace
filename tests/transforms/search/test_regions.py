from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from tests.transforms.search.catalog_fixtures import make_posts, make_vectors, write_catalog
from tests.transforms.search.test_top_k import as_lists, brute_force
from transforms.search import regions, running_top_k, top_k, upper_bounds
from transforms.search.catalog import Catalog
from transforms.search.eligibility import Eligibility
from transforms.search.exclusions import Exclusions
from transforms.search.scored_tile import PreparedTile
from transforms.tables import blocks

NewPipeline = Callable[[], beam.Pipeline]
NUM_POSTS, NUM_USERS = 2_000, 150
EVERYTHING = Eligibility(include_sensitive=True)
WITH_REPLIES = np.arange(NUM_POSTS) % 25 > 0


@pytest.fixture
def world(new_pipeline: NewPipeline, tmp_path: Path) -> tuple[pa.RecordBatch, np.ndarray, Catalog]:
    rng = np.random.default_rng(3)
    posts, users = make_posts(rng, NUM_POSTS), make_vectors(rng, NUM_USERS)
    # Only few are no replies.
    posts = posts.set_column(
        posts.schema.get_field_index("is_reply"), posts.schema.field("is_reply"), pa.array(WITH_REPLIES)
    )
    return posts, users, write_catalog(new_pipeline, tmp_path, posts, users, 60)


def known(catalog: Catalog) -> regions.Regions:
    found = catalog.regions()
    assert found is not None
    return found


def some_bounded(
    world: tuple[pa.RecordBatch, np.ndarray, Catalog], scale: float
) -> tuple[regions.Regions, np.ndarray, upper_bounds.Bounded]:
    _, users, catalog = world
    found, queries = known(catalog), (users * np.float32(scale))[:64]
    with futures.ThreadPoolExecutor(1) as pool:
        return found, queries, found.bound_queries(queries, pool)


def test_every_post_with_an_embedding_lies_in_one_region(
    world: tuple[pa.RecordBatch, np.ndarray, Catalog],
) -> None:
    posts, _, catalog = world
    found = known(catalog)
    assert 40 < len(found.file) < 90
    ids: list[str] = []
    for _, block, pieces in found.read(np.arange(len(found.file)), ["post_id", "embedding"]):
        for _, rows in pieces:
            part = block.slice(rows.start, rows.stop - rows.start)
            assert blocks.vectors_to_numpy(part.column("embedding")).any(axis=1).all()
            ids += part.column("post_id").to_pylist()
    embedded = blocks.vectors_to_numpy(posts.column("embedding")).any(axis=1)
    assert sorted(ids) == sorted(posts.column("post_id").filter(pa.array(embedded)).to_pylist())


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_no_post_scores_more_than_its_own_bound(
    world: tuple[pa.RecordBatch, np.ndarray, Catalog], scale: float
) -> None:
    found, queries, bounded = some_bounded(world, scale)
    above = []
    for _, block, pieces in found.read(np.arange(len(found.file)), ["embedding", "leading"]):
        block = block.slice(pieces[0].rows.start, pieces[-1].rows.stop - pieces[0].rows.start)
        posts = found.bound_posts(block, np.array([piece.region for piece in pieces]))
        vectors = blocks.vectors_to_numpy(block.column("embedding")).astype(np.float64)
        assert found.max_norm >= np.linalg.norm(vectors, axis=1).max()
        bounds = bounded.vectors @ posts.vectors.T + upper_bounds.error(bounded, posts)[:, None]
        scores = queries.astype(np.float64) @ vectors.T
        assert (bounds >= scores).all()
        above.append((bounds - scores) / (np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)))
    # And they say something.
    assert np.median(np.concatenate(above, axis=1)) < 0.1


def test_only_what_is_wanted_is_read(world: tuple[pa.RecordBatch, np.ndarray, Catalog]) -> None:
    found = known(world[2])
    blocks_of = list(found.read(np.array([7]), ["post_id"]))
    assert [{piece.region for piece in pieces} for _, _, pieces in blocks_of] == [{7}] * len(blocks_of)
    assert sum(rows.stop - rows.start for _, _, pieces in blocks_of for _, rows in pieces) == found.num_rows[7]
    assert sum(block.num_rows for _, block, _ in blocks_of) <= found.num_rows[7] + 200
    assert list(found.read(np.empty(0, np.int64), ["post_id"])) == []


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_no_post_scores_more_than_the_bound_of_its_region(
    world: tuple[pa.RecordBatch, np.ndarray, Catalog], scale: float
) -> None:
    found, queries, bounded = some_bounded(world, scale)
    with futures.ThreadPoolExecutor(1) as pool:
        reached = np.full((len(found.file), len(queries)), -np.inf, np.float32)
        for _, block, pieces in found.read(np.arange(len(found.file)), ["embedding"]):
            vectors = blocks.vectors_to_numpy(block.column("embedding")).astype(np.float64)
            for region, rows in pieces:
                scores = (vectors[rows] @ queries.astype(np.float64).T).max(axis=0)
                reached[region] = np.maximum(reached[region], scores)
        for region, lower_bound in enumerate(reached):
            # Whoever asks for just what the best post there scores has to look there.
            assert len(found.within_bounds(bounded, lower_bound, pool).queries(region)) == len(queries)
        # And it says something: few regions can have one of the ten best.
        kth = np.partition(np.sort(reached, axis=0), -10, axis=0)[-10]
        asked = found.within_bounds(bounded, kth, pool)
        share = sum(len(asked.queries(region)) for region in range(len(found.file))) / reached.size
        assert 10 / len(reached) <= share < 0.5


class Watch:
    """How many pairs of a query and a post are task at for what can win."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pairs = 0
        scan = running_top_k.RunningTopK.scan

        def watched(
            me: running_top_k.RunningTopK, tile: PreparedTile, rows: np.ndarray, columns: slice
        ) -> running_top_k.Entries:
            self.pairs += len(rows) * (columns.stop - columns.start)
            return scan(me, tile, rows, columns)

        monkeypatch.setattr(running_top_k.RunningTopK, "scan", watched)


@pytest.mark.parametrize("cap", [None, 2])
@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize(("query_rows", "num_threads"), [(512, 1), (7, 2)])
def test_lists_are_exact_and_few_posts_are_looked_at(
    world: tuple[pa.RecordBatch, np.ndarray, Catalog],
    monkeypatch: pytest.MonkeyPatch,
    cap: int | None,
    k: int,
    query_rows: int,
    num_threads: int,
) -> None:
    monkeypatch.setattr(running_top_k, "_QUERY_ROWS", query_rows)
    monkeypatch.setattr(regions, "_FIRST_REGIONS", 3)
    watch = Watch(monkeypatch)
    posts, users, catalog = world
    rng = np.random.default_rng(4)
    seen = rng.integers(0, NUM_USERS, 6_000), rng.integers(0, NUM_POSTS, 6_000)
    pairs = [(int(query), f"p{post:04d}") for query, post in zip(*seen, strict=True)]
    exclusions = Exclusions(
        np.array([q for q, _ in pairs]), pa.array([p for _, p in pairs]), np.array([5, 5]), pa.array(["a1", "a7"])
    )
    by_author = {
        (5, post)
        for post, author in zip(posts.column("post_id").to_pylist(), posts.column("author_id").to_pylist(), strict=True)
        if author in ("a1", "a7")
    }
    ranked = top_k.top_k_of(
        users,
        catalog,
        k,
        eligibility=EVERYTHING,
        exclusions=exclusions,
        max_per_author=cap,
        num_threads=num_threads,
    )
    embedded = posts.filter(pa.array(blocks.vectors_to_numpy(posts.column("embedding")).any(axis=1)))
    assert as_lists(ranked, NUM_USERS) == brute_force(users, embedded, k, set(pairs) | by_author, cap)
    assert watch.pairs < 0.4 * NUM_USERS * NUM_POSTS
    vectors = dict(zip(posts.column("post_id").to_pylist(), posts.column("embedding").to_pylist(), strict=True))
    assert ranked.items.vectors.tolist() == [vectors[name] for name in ranked.items.post_id.to_pylist()]


@pytest.mark.parametrize("k", [5, 200])
@pytest.mark.parametrize("cap", [None, 1])
def test_where_few_are_eligible(world: tuple[pa.RecordBatch, np.ndarray, Catalog], k: int, cap: int | None) -> None:
    posts, users, catalog = world
    allowed = Eligibility(exclude_replies=True)
    ranked = top_k.top_k_of(users, catalog, k, eligibility=allowed, max_per_author=cap, with_vectors=False)
    eligible = posts.filter(pa.array(allowed.mask(posts)))
    assert 50 < eligible.num_rows < 100
    assert as_lists(ranked, NUM_USERS) == brute_force(users, eligible, k, cap=cap)
    assert ranked.items.vectors.shape[1] == 0


def test_without_queries_there_are_no_lists(world: tuple[pa.RecordBatch, np.ndarray, Catalog]) -> None:
    _, users, catalog = world
    assert not len(top_k.top_k_of(users[:0], catalog, 5, eligibility=EVERYTHING).query)


def test_most_of_a_tile_is_looked_at_as_a_whole(
    world: tuple[pa.RecordBatch, np.ndarray, Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    posts, _, catalog = world
    queries = np.zeros((20, posts.schema.field("embedding").type.list_size), np.float32)  # no region can be left out
    seen = []
    scan = running_top_k.RunningTopK.scan

    def watched(
        me: running_top_k.RunningTopK, tile: PreparedTile, rows: np.ndarray, columns: slice
    ) -> running_top_k.Entries:
        seen.append((len(rows), columns == slice(0, tile.num_posts)))
        return scan(me, tile, rows, columns)

    monkeypatch.setattr(running_top_k.RunningTopK, "scan", watched)
    ranked = top_k.top_k_of(queries, catalog, 3, eligibility=EVERYTHING)
    assert set(seen) == {(20, True)}
    embedded = posts.filter(pa.array(blocks.vectors_to_numpy(posts.column("embedding")).any(axis=1)))
    assert as_lists(ranked, 20) == brute_force(queries, embedded, 3)

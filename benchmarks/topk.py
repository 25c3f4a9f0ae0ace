"""The k posts with the largest inner product for every user, seen posts excluded, beside faiss, TensorFlow, numpy and
implicit on the same embeddings (`benchmarks.embeddings`). Peers that cannot exclude pairs search for more and drop the
seen ones. What is built once for all users (a catalog by cell, an index) is built before the clock starts.

`--scale 1` is 50,000 posts, `--scale 20` a million.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import data, embeddings
from benchmarks.embeddings import WIDTH
from benchmarks.harness import OURS, Benchmark, Facts, Ratio, Run, Side, size

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

USERS, POSTS, K, MAX_SEEN = 20_000, 50_000, 100, 50
AT_ONCE = 1024
EXACT_USERS = 200
PANORAMA_LEVELS = 8
PEERS = ("faiss", "panorama", "tensorflow", "numpy", "implicit")
_CANDIDATES = "candidates"


def prepare(folder: Path, scale: float) -> Mapping[str, int]:
    """Vectors of users and posts, pairs that are seen (sorted), and the catalog as recommend writes it.

    At small scales users are fewer before posts are: the selection costs what it does by the number of posts.
    """
    import numpy as np

    users = size(USERS, min(1.0, scale), least=20)
    posts = size(POSTS, scale if scale > 1 else min(1.0, 10 * scale), least=1000)
    random = np.random.default_rng(5)
    seen = random.integers(0, posts, (users, MAX_SEEN))
    pairs = np.repeat(np.arange(users), random.integers(5, MAX_SEEN + 1, users))
    pairs = np.unique(pairs * posts + seen[pairs, np.arange(len(pairs)) % MAX_SEEN])
    made = embeddings.make(users, posts)
    np.savez(folder / "data.npz", **made._asdict(), seen_user=pairs // posts, seen_post=pairs % posts)
    _write_catalog(folder, made)
    return {"users": users, "posts": posts, "width": WIDTH, "k": K, "seen pairs": len(pairs)}


def _write_catalog(folder: Path, made: embeddings.Embeddings) -> None:
    """candidates/, by cell where there are enough posts."""
    import apache_beam as beam

    from transforms.search import cells, regions
    from transforms.tables import blocks, parquet, schemas

    directory, schema = folder / _CANDIDATES, schemas.candidates(WIDTH, 1)
    given = list(enumerate(blocks.split_rows(_candidates(made.posts), AT_ONCE * 32)))
    num_cells = cells.choose_num_cells(len(made.posts))
    if not num_cells:
        for part, block in given:
            parquet.write_file(parquet.part_path(str(directory), part), block, schema, parquet.READ_OFTEN)
        return
    for name, vectors in made._asdict().items():
        table = _embeddings_block(vectors)
        parquet.write_file(parquet.part_path(str(folder / name), 0), table, table.schema)
    cells_dir = cells.fit(str(folder / "posts"), str(folder / "users"), num_cells, str(directory / regions.CELLS_DIR))
    with beam.Pipeline(runner="FnApiRunner") as root:
        fitted = root | "Cells" >> beam.Create([cells_dir])
        ordered = root | beam.Create(given) | cells.OrderByCell(fitted, max(1, len(given) // 4))
        in_regions = parquet.WriteParts(str(directory / regions.REGIONS_DIR), schemas.regions(WIDTH))
        _ = ordered.regions | "Regions" >> in_regions
        by_cell = schemas.candidates(WIDTH, 1, cells.leading_width(WIDTH))
        _ = ordered.parts | parquet.WriteParts(str(directory), by_cell, parquet.READ_OFTEN)


def _embeddings_block(vectors: "np.ndarray") -> "pa.RecordBatch":
    """A block with nothing but embeddings."""
    import pyarrow as pa

    from transforms.tables import blocks

    return pa.RecordBatch.from_arrays([blocks.numpy_to_vectors(vectors)], ["embedding"])


def _candidates(posts: "np.ndarray") -> "pa.RecordBatch":
    import numpy as np
    import pyarrow as pa

    from transforms.tables import blocks, schemas

    number = len(posts)
    never = pa.repeat(False, number)
    columns = {"post_id": data.ids("p", np.arange(number)), "embedding": blocks.numpy_to_vectors(posts)}
    columns["profile"] = blocks.numpy_to_vectors(np.zeros((number, 1)))
    columns |= {"sensitive": never, "is_repost": never, "is_reply": never, "popularity": pa.array(np.zeros(number))}
    return schemas.conform(pa.RecordBatch.from_pydict(columns), schemas.candidates(WIDTH, 1))


class _World:
    def __init__(self, folder: Path) -> None:
        import numpy as np

        with np.load(folder / "data.npz") as arrays:
            self.users, self.posts = arrays["users"], arrays["posts"]
            self.seen_user, self.seen_post = arrays["seen_user"], arrays["seen_post"]
        self.seen_keys = self.seen_user * len(self.posts) + self.seen_post

    def without_seen(self, found: "np.ndarray") -> "np.ndarray":
        """The first K posts of each user that are not seen: [users, K] of [users, K + MAX_SEEN], best first."""
        import numpy as np

        keys = np.arange(len(found))[:, None] * len(self.posts) + found
        places = np.minimum(np.searchsorted(self.seen_keys, keys), len(self.seen_keys) - 1)
        # A stable sort by "seen" moves the seen ones behind and leaves the order of the others.
        order = np.argsort(self.seen_keys[places] == keys, axis=1, kind="stable")[:, :K]
        return np.take_along_axis(found, order, axis=1)


def _save(folder: Path, name: str, found: "np.ndarray") -> Facts:
    import numpy as np

    np.save(folder / f"ranks-{name}.npy", found)
    return {"lists": len(found)}


def ours(folder: Path) -> Run:
    """transforms.search.top_k on the catalog, as recommend calls it: ties by id, scores of float64."""
    import numpy as np
    import pyarrow as pa

    from transforms.search import top_k
    from transforms.search.catalog import Catalog
    from transforms.search.eligibility import Eligibility
    from transforms.search.exclusions import Exclusions

    world = _World(folder)
    seen_ids = data.ids("p", world.seen_post)
    threads = int(os.environ["OMP_NUM_THREADS"])

    def run() -> "Facts | object":
        exclusions = Exclusions(world.seen_user, seen_ids, np.empty(0, np.int64), pa.array([], pa.string()))
        catalog = Catalog(str(folder / _CANDIDATES))
        ranked = top_k.top_k_of(
            world.users, catalog, K, eligibility=Eligibility(), exclusions=exclusions, num_threads=threads
        )
        ids = ranked.post_id
        return lambda: _save(folder, OURS, _numbers(ids).reshape(-1, K))

    return run  # type: ignore[return-value]


def _numbers(ids: "object") -> "np.ndarray":
    """Back from p0000012 to 12."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers: np.ndarray = pc.utf8_slice_codeunits(ids, 1).cast(pa.int64()).to_numpy()
    return numbers


def faiss(folder: Path) -> Run:
    """IndexFlatIP, K + MAX_SEEN neighbors."""
    import faiss as library

    return _search_index(folder, "faiss", library.IndexFlatIP(WIDTH))


def panorama(folder: Path) -> Run:
    """IndexFlatIPPanorama, exact like IndexFlatIP, which prunes by the energy of the remaining numbers."""
    import faiss as library

    return _search_index(folder, "panorama", library.IndexFlatIPPanorama(WIDTH, PANORAMA_LEVELS))


def _search_index(folder: Path, name: str, index: "object") -> Run:
    import faiss as library

    world = _World(folder)
    library.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    index.add(world.posts)  # type: ignore[attr-defined]

    def run() -> Facts:
        _, found = index.search(world.users, K + MAX_SEEN)  # type: ignore[attr-defined]
        return _save(folder, name, world.without_seen(found))

    return run


def tensorflow(folder: Path) -> Run:
    """tf.matmul and tf.math.top_k over blocks of users, K + MAX_SEEN posts."""
    import numpy as np
    import tensorflow as tf

    world = _World(folder)
    posts = tf.constant(world.posts)
    search = tf.function(lambda users: tf.math.top_k(tf.matmul(users, posts, transpose_b=True), K + MAX_SEEN).indices)
    search(tf.constant(world.users[:AT_ONCE]))

    def run() -> Facts:
        starts = range(0, len(world.users), AT_ONCE)
        found = [search(tf.constant(world.users[start : start + AT_ONCE])).numpy() for start in starts]
        return _save(folder, "tensorflow", world.without_seen(np.concatenate(found)))

    return run


def numpy(folder: Path) -> Run:
    """GEMM and argpartition over blocks of users; seen posts get -inf."""
    import numpy as np

    world = _World(folder)

    def run() -> Facts:
        found = []
        for start in range(0, len(world.users), AT_ONCE):
            users = world.users[start : start + AT_ONCE]
            scores = users @ world.posts.T
            low, high = np.searchsorted(world.seen_user, [start, start + len(users)])
            scores[world.seen_user[low:high] - start, world.seen_post[low:high]] = -np.inf
            best = np.argpartition(scores, -K, axis=1)[:, -K:]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
            found.append(np.take_along_axis(best, order, 1))
        return _save(folder, "numpy", np.concatenate(found))

    return run


def implicit(folder: Path) -> Run:
    """implicit.cpu.topk with filter_query_items."""
    import scipy.sparse as sp
    from implicit.cpu.topk import topk as search

    world = _World(folder)
    ones = world.seen_user * 0 + 1
    seen = sp.csr_matrix((ones, (world.seen_user, world.seen_post)), (len(world.users), len(world.posts)))
    threads = int(os.environ["OMP_NUM_THREADS"])

    def run() -> Facts:
        found, _ = search(world.posts, world.users, K, filter_query_items=seen, num_threads=threads)
        return _save(folder, "implicit", found)

    return run


def check(folder: Path) -> Mapping[str, float]:
    """The share of ranks that are those of exact scores (float64, rounded to float32, ties by id), of some users."""
    import numpy as np

    world = _World(folder)
    rows = np.linspace(0, len(world.users) - 1, min(EXACT_USERS, len(world.users))).astype(int)
    scores = (world.users[rows].astype(np.float64) @ world.posts.astype(np.float64).T).astype(np.float32)
    for place, row in enumerate(rows):
        low, high = np.searchsorted(world.seen_user, [row, row + 1])
        scores[place, world.seen_post[low:high]] = -np.inf
    exact = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    shares = {}
    for name in (OURS, *PEERS):
        path = folder / f"ranks-{name}.npy"
        if path.exists():
            shares[f"share of ranks of {name} that are exact"] = float((np.load(path)[rows] == exact).mean())
    return shares


BENCHMARK = Benchmark(
    name="topk",
    title="the best posts of every user, seen posts excluded",
    prepare=prepare,
    sides=(
        Side(OURS, ours),
        Side("faiss", faiss, needs=("faiss",)),
        Side("panorama", panorama, needs=("faiss",)),
        Side("tensorflow", tensorflow),
        Side("numpy", numpy),
        Side("implicit", implicit, needs=("implicit",)),
    ),
    ratios=(
        Ratio("speed", against=PEERS, at_least=1.0),
        *(Ratio("speed", against=(name,)) for name in PEERS),
        Ratio(f"share of ranks of {OURS} that are exact", at_least=1.0),
        *(Ratio(f"share of ranks of {name} that are exact") for name in PEERS),
    ),
    agree=("lists",),
    check=check,
)

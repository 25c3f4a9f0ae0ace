"""The k posts with the largest inner product for every user, seen posts excluded, beside faiss, TensorFlow, numpy and
implicit on the same vectors. Peers that cannot exclude pairs search for more and drop the seen ones."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.harness import OURS, Benchmark, Facts, Ratio, Run, Side, size

if TYPE_CHECKING:
    import numpy as np

USERS, POSTS, WIDTH, K, MAX_SEEN = 20_000, 100_000, 128, 100, 50
AT_ONCE = 1024
EXACT_USERS = 200
PEERS = ("faiss", "tensorflow", "numpy", "implicit")


def prepare(folder: Path, scale: float) -> Mapping[str, int]:
    """Vectors of users and posts, and pairs that are seen (sorted). Users are fewer at a smaller scale, posts are not:
    the selection costs what it does by the number of posts."""
    import numpy as np

    users, posts = size(USERS, scale, least=20), size(POSTS, min(1.0, 10 * scale), least=1000)
    random = np.random.default_rng(5)
    seen = random.integers(0, posts, (users, MAX_SEEN))
    pairs = np.repeat(np.arange(users), random.integers(5, MAX_SEEN + 1, users))
    pairs = np.unique(pairs * posts + seen[pairs, np.arange(len(pairs)) % MAX_SEEN])
    np.savez(
        folder / "data.npz",
        users=data.unit_vectors(users, WIDTH, seed=6),
        posts=data.unit_vectors(posts, WIDTH, seed=7),
        seen_user=pairs // posts,
        seen_post=pairs % posts,
    )
    return {"users": users, "posts": posts, "width": WIDTH, "k": K, "seen pairs": len(pairs)}


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
    """transforms.search.top_k, as recommend calls it: ties by id, scores of float64.

    The first repetition takes longer: in it so much has been multiplied that TensorFlow is loaded, where that pays.
    """
    import numpy as np
    import pyarrow as pa

    from transforms.search import top_k
    from transforms.search.eligibility import Eligibility
    from transforms.search.exclusions import Exclusions
    from transforms.tables import blocks, schemas

    world = _World(folder)
    number = len(world.posts)
    never = pa.repeat(False, number)
    columns = {"post_id": data.ids("p", np.arange(number)), "embedding": blocks.numpy_to_vectors(world.posts)}
    columns["profile"] = blocks.numpy_to_vectors(np.zeros((number, 1)))
    columns |= {"sensitive": never, "is_repost": never, "is_reply": never, "popularity": pa.array(np.zeros(number))}
    candidates = schemas.conform(pa.RecordBatch.from_pydict(columns), schemas.candidates(WIDTH, 1))
    seen_ids = candidates.column("post_id").take(pa.array(world.seen_post))
    threads = int(os.environ["OMP_NUM_THREADS"])

    def run() -> "Facts | object":
        exclusions = Exclusions(world.seen_user, seen_ids, np.empty(0, np.int64), pa.array([], pa.string()))
        ranked = top_k.top_k(
            world.users, [candidates], K, eligibility=Eligibility(), exclusions=exclusions, num_threads=threads
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

    world = _World(folder)
    library.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

    def run() -> Facts:
        index = library.IndexFlatIP(WIDTH)
        index.add(world.posts)
        _, found = index.search(world.users, K + MAX_SEEN)
        return _save(folder, "faiss", world.without_seen(found))

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

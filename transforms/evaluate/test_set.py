"""Test set of a backtest: the catalog, the users with something held out, their targets and histories.

Held whole are 200 bytes a post (79 of them to the end) of at most MAX_POSTS, the rows of at most `max_users`
users, and about `max_fit` rows of the history; everything else is streamed.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse

from transforms.evaluate.split_rules import seeded_hash
from transforms.search.eligibility import Eligibility
from transforms.tables import blocks, parquet

# 6 GB in one process.
MAX_POSTS = 30_000_000
# Test users: confidence intervals of some thousandths, and lists of all of them are held.
MAX_USERS = 20_000
# Interactions from which the baselines are fitted in one process; of more, those of a sample of users.
MAX_FIT_ROWS = 5_000_000
READ_ROWS = 65_536
_MAPPED_AT_ONCE = 1 << 20
_HISTORY = ("user_id", "post_id", "weight")
_NO_LANGUAGE = "none"


@dataclasses.dataclass(frozen=True)
class RankedPosts:
    """The catalog, sorted by id: posts are given by their places, and ties by place are ties by id.

    Attributes:
      post_id: [p] string.
      author_id: [p] string, null where not known.
      eligible: [p] bool, may be ranked.
      liked: [p] int64, users who like the post.
      recent: [p] float64, recent popularity.
      language: [p] string, "none" where not known.
    """

    post_id: pa.Array
    author_id: pa.Array
    eligible: np.ndarray
    liked: np.ndarray
    recent: np.ndarray
    language: pa.Array

    def places(self, post_id: pa.Array) -> np.ndarray:
        """Where each post stands: [n] int64, -1 where it is not in the catalog."""
        found = pc.fill_null(pc.index_in(post_id, value_set=self.post_id), -1)
        return found.to_numpy(zero_copy_only=False).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class HeldOutSet:
    """Test set of a backtest, as sparse 0/1 matrices of users x posts.

    Attributes:
      posts: the catalog.
      user_id: [u] string, sorted.
      targets: [u, p], held-out posts to predict; at least one in each row.
      history: [u, p], training posts that the user likes.
      excluded: [u, p], posts that may not be recommended: the whole history, the user's own, blocked authors'.
      fit: [f, p], histories to fit baselines on; the first u rows are `history`.
      fit_share: approximate share of all users' histories that is in `fit`.
    """

    posts: RankedPosts
    user_id: pa.Array
    targets: scipy.sparse.csr_matrix
    history: scipy.sparse.csr_matrix
    excluded: scipy.sparse.csr_matrix
    fit: scipy.sparse.csr_matrix
    fit_share: float

    @property
    def num_seen(self) -> np.ndarray:
        """Number of posts that each user likes, the history length: [u] int64."""
        return np.diff(self.history.indptr).astype(np.int64)


def read_posts(
    candidates: str,
    posts: str,
    history: str,
    eligibility: Eligibility,
    is_allowed: Callable[[pa.Array], np.ndarray] | None = None,
) -> RankedPosts:
    """Reads the catalog of a backtest.

    Args:
      candidates: the directory of schemas.candidates.
      posts: of schemas.POSTS, for the languages.
      history: of schemas.HISTORY.
      eligibility: which posts may be recommended; whether they have an embedding does not matter.
      is_allowed: mask [n] bool of the posts that may be ranked, for ids [n] string; None for all.
    """
    eligibility = dataclasses.replace(eligibility, needs_embedding=False)
    copied = ["post_id", "author_id", "popularity"]
    names = [*copied, "created_at", "sensitive", "is_repost", "is_reply"]
    pieces = []
    for block in parquet.read_blocks(candidates, READ_ROWS, names):
        eligible = pa.array(eligibility.mask(block))
        pieces.append(pa.table({**{name: block.column(name) for name in copied}, "eligible": eligible}))
    table = pa.concat_tables(pieces).sort_by("post_id").combine_chunks()
    columns = {name: _whole(table.column(name)) for name in table.column_names}
    eligible = columns["eligible"].to_numpy(zero_copy_only=False)
    if is_allowed is not None:
        eligible = eligible & is_allowed(columns["post_id"])
    found = RankedPosts(
        columns["post_id"],
        columns["author_id"],
        eligible,
        np.zeros(len(eligible), np.int64),
        columns["popularity"].to_numpy(),
        _languages(posts, columns["post_id"]),
    )
    return dataclasses.replace(found, liked=_count_liked(history, found))


def _whole(column: "pa.ChunkedArray | pa.Array") -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return column


def _languages(posts: str, post_id: pa.Array) -> pa.Array:
    pieces = [pa.table(block) for block in parquet.read_blocks(posts, READ_ROWS, ["post_id", "lang"])]
    table = pa.concat_tables(pieces)
    found = _whole(table.column("lang")).take(pc.index_in(post_id, value_set=_whole(table.column("post_id"))))
    return pc.fill_null(found, _NO_LANGUAGE)


def _count_liked(history: str, posts: RankedPosts) -> np.ndarray:
    liked = np.zeros(len(posts.post_id), np.int64)
    for block in _gathered(_liked(block) for block in parquet.read_blocks(history, READ_ROWS, _HISTORY)):
        sums = pa.table(block.select(["post_id"])).group_by("post_id").aggregate([([], "count_all")])
        place = posts.places(_whole(sums.column("post_id")))
        count = sums.column("count_all").to_numpy()
        liked[place[place >= 0]] += count[place >= 0]
    return liked


def _liked(history: pa.RecordBatch) -> pa.RecordBatch:
    return history.filter(pc.greater(history.column("weight"), 0))


def _gathered(pieces: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in blocks so large that looking ids up in the catalog costs little a row."""
    return blocks.rebatch(pieces, _MAPPED_AT_ONCE)


def sample_users(held_out: str, max_users: int, seed: int) -> pa.Array:
    """Users with something held out, at most so many, those of the smallest hashes: [u] string, sorted."""
    users = pa.array([], pa.string())
    for block in parquet.read_blocks(held_out, READ_ROWS, ["user_id"]):
        users = pc.unique(pa.concat_arrays([users, block.column("user_id")]))
        if len(users) > max_users:
            codes = seeded_hash(users, seed)
            users = users.take(pa.array(np.argsort(codes, kind="stable")[:max_users]))
    return users.take(pc.sort_indices(users))


def read_test_set(
    posts: RankedPosts, user_id: pa.Array, held_out: str, history: str, users: str, *, max_fit: int, seed: int
) -> HeldOutSet:
    """Reads the test set of a backtest; users none of whose targets may be ranked are dropped.

    Args:
      user_id: [u] string, of `sample_users`.
      held_out: the directory of backtest.HELD_OUT.
      history: of schemas.HISTORY.
      users: of schemas.USERS, for blocked authors.
      max_fit: approximate number of history rows to fit baselines on.
      seed: of the choice of the users they belong to.
    """
    seen, liked = _pairs_of(history, posts, user_id, False), _pairs_of(history, posts, user_id, True)
    excluded = _ones(seen + _by_authors(posts, user_id, users))
    targets = _pairs_of(held_out, posts, user_id, False)
    targets = _ones(targets - targets.multiply(excluded)).multiply(posts.eligible[None, :]).tocsr()
    targets.eliminate_zeros()
    has = np.flatnonzero(np.diff(targets.indptr))
    user_id, history_rows = user_id.take(pa.array(has)), liked[has]
    others, share = _others(history, posts, user_id, max_fit, seed)
    fit = scipy.sparse.vstack([history_rows, others], format="csr")
    return HeldOutSet(posts, user_id, targets[has], history_rows, excluded[has], fit, share)


def _ones(matrix: scipy.sparse.spmatrix) -> scipy.sparse.csr_matrix:
    """1 where the matrix is positive."""
    matrix = scipy.sparse.csr_matrix(matrix)
    matrix.data = (matrix.data > 0).astype(np.float32)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix


def _pairs_of(directory: str, posts: RankedPosts, user_id: pa.Array, only_liked: bool) -> scipy.sparse.csr_matrix:
    """[len(user_id), p], 1 for each row of a table that has user_id and post_id."""
    names = _HISTORY if only_liked else _HISTORY[:2]
    read = parquet.read_blocks(directory, READ_ROWS, names)
    rows = (_liked(block) if only_liked else block for block in read)
    mine = (block.filter(pc.is_in(block.column("user_id"), value_set=user_id)) for block in rows)
    return _matrix(mine, posts, user_id)


def _matrix(rows: Iterable[pa.RecordBatch], posts: RankedPosts, user_id: pa.Array) -> scipy.sparse.csr_matrix:
    row: list[np.ndarray] = [np.empty(0, np.int64)]
    column: list[np.ndarray] = [np.empty(0, np.int64)]
    for block in _gathered(rows):
        user = pc.index_in(block.column("user_id"), value_set=user_id).to_numpy()
        place = posts.places(block.column("post_id"))
        row.append(user[place >= 0])
        column.append(place[place >= 0])
    rows_of, columns = np.concatenate(row), np.concatenate(column)
    shape = (len(user_id), len(posts.post_id))
    return _ones(scipy.sparse.csr_matrix((np.ones(len(rows_of), np.float32), (rows_of, columns)), shape))


def _by_authors(posts: RankedPosts, user_id: pa.Array, users: str) -> scipy.sparse.csr_matrix:
    """[u, p], 1 for a user's own posts and those of authors that the user blocks."""
    user, author = [np.arange(len(user_id))], [user_id]
    for block in parquet.read_blocks(users, READ_ROWS, ["user_id", "blocked_authors"]):
        blocked = block.column("blocked_authors")
        place = pc.index_in(block.column("user_id").take(pc.list_parent_indices(blocked)), value_set=user_id)
        user.append(place.drop_null().to_numpy())
        author.append(pc.list_flatten(blocked).filter(place.is_valid()))
    names = pc.unique(posts.author_id.drop_null())
    by_author = pc.fill_null(pc.index_in(posts.author_id, value_set=names, skip_nulls=True), -1).to_numpy()
    wrote = np.flatnonzero(by_author >= 0)
    num_users, num_posts = len(user_id), len(posts.post_id)
    authors = scipy.sparse.csr_matrix(
        (np.ones(len(wrote), np.float32), (by_author[wrote], wrote)), (len(names), num_posts)
    )
    code = pc.fill_null(pc.index_in(pa.concat_arrays(author), value_set=names, skip_nulls=True), -1).to_numpy()
    row = np.concatenate(user)[code >= 0]
    pairs = scipy.sparse.csr_matrix((np.ones(len(row), np.float32), (row, code[code >= 0])), (num_users, len(names)))
    return pairs @ authors


def _others(
    history: str, posts: RankedPosts, user_id: pa.Array, max_fit: int, seed: int
) -> tuple[scipy.sparse.csr_matrix, float]:
    """Histories of other users, all or those of the smallest hashes, and the share of all that is chosen."""
    share = min(1.0, max_fit / max(parquet.count_rows(history), 1))
    pieces = []
    for block in parquet.read_blocks(history, READ_ROWS, _HISTORY):
        block = _liked(block)
        chosen = seeded_hash(block.column("user_id"), seed + 1) / 2.0**64 < share
        other = pc.invert(pc.is_in(block.column("user_id"), value_set=user_id)).to_numpy(zero_copy_only=False)
        pieces.append(block.filter(pa.array(chosen & other)))
    ids = pc.unique(pa.chunked_array([piece.column("user_id") for piece in pieces], pa.string()))
    return _matrix(pieces, posts, ids.take(pc.sort_indices(ids))), share


def read_lists(recommendations: str, test_set: HeldOutSet, k: int) -> np.ndarray:
    """The lists of a run: [u, k] int64, places of posts by rank, -1 where a list is shorter."""
    lists = np.full((len(test_set.user_id), k), -1, np.int64)
    names: Sequence[str] = ("user_id", "rank", "post_id")
    for block in _gathered(parquet.read_blocks(recommendations, READ_ROWS, names)):
        user = pc.fill_null(pc.index_in(block.column("user_id"), value_set=test_set.user_id), -1).to_numpy()
        rank, place = block.column("rank").to_numpy(), test_set.posts.places(block.column("post_id"))
        mine = (user >= 0) & (rank <= k)
        lists[user[mine], rank[mine] - 1] = place[mine]
    return lists

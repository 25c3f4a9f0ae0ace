"""Reasons of recommendations: history or interests, and the post of the history with the largest part of the score."""

import dataclasses
from collections.abc import Iterable, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.embed.user_embeddings import history_weights
from transforms.linalg import blas, runs
from transforms.linalg.selection import to_matrix
from transforms.search.top_k import Ranked
from transforms.tables import blocks

# Posts of a longer history that can be reasons: those of the largest weights, then the newest.
MAX_LIKED = 100
# The arrays of so many users are small enough for malloc to reuse their memory; those of four times as many are not.
_USERS_AT_ONCE = 64


class Reasons(NamedTuple):
    """Columns `reason` and `because_post_id` of recommendations, as in schemas.RECOMMENDATIONS."""

    reason: pa.Array
    because_post_id: pa.Array


@dataclasses.dataclass(frozen=True)
class Liked:
    """The positive part of users' histories.

    Attributes:
      user: [m] int64, place of the user, ascending.
      post_id: [m] string, within a user by weight descending, then newest, then id.
      weights: [m, 2] float64, weight in the own columns of a profile and in the others.
    """

    user: np.ndarray
    post_id: pa.Array
    weights: np.ndarray


def strongest(user_id: pa.Array, history: pa.RecordBatch, half_lives: tuple[float | None, float | None]) -> Liked:
    """The MAX_LIKED most heavily weighted liked posts of each user of `user_id`.

    Args:
      half_lives: of recency, in the own columns of a profile and in the others (see profiles.history_weights).
    """
    user = pc.index_in(history.column("user_id"), value_set=user_id)
    weight, other = (pa.array(history_weights(history, half_life)) for half_life in half_lives)
    chosen = pc.and_(user.is_valid(), pc.greater(weight, 0))
    columns = {name: history.column(name) for name in ("post_id", "created_at")}
    table = pa.table({"user": user, "weight": weight, "other": other, **columns})
    table = table.filter(chosen).sort_by(
        [("user", "ascending"), ("weight", "descending"), ("created_at", "descending"), ("post_id", "ascending")]
    )
    users = table.column("user").to_numpy().astype(np.int64)
    strongest_rows = table.filter(pa.array(runs.places_in_runs(users) < MAX_LIKED))
    return Liked(
        strongest_rows.column("user").to_numpy().astype(np.int64),
        strongest_rows.column("post_id").combine_chunks(),
        np.stack([strongest_rows.column(name).to_numpy().astype(np.float64) for name in ("weight", "other")], axis=1),
    )


class GatheredVectors:
    """Vectors of some posts, gathered from the candidates.

    Args:
      post_id: [m] string, the wanted posts; `codes` [m] numbers their distinct ids.
      candidates: blocks, read once.
      columns: names of the wanted vectors.
    """

    def __init__(self, post_id: pa.Array, candidates: Iterable[pa.RecordBatch], columns: Sequence[str]) -> None:
        encoded = post_id.dictionary_encode()
        self._ids, self.codes = encoded.dictionary, encoded.indices.to_numpy(zero_copy_only=False)
        self._vectors: dict[str, np.ndarray] = {}
        for block in candidates:
            found = pc.index_in(self._ids, value_set=block.column("post_id"))
            for column in columns:
                vectors = blocks.vectors_to_numpy(block.column(column))
                distinct = self._vectors.setdefault(column, np.zeros((len(self._ids), vectors.shape[1]), np.float32))
                distinct[blocks.valid(found)] = vectors[found.drop_null().to_numpy()]

    def codes_of(self, post_id: pa.Array) -> np.ndarray:
        """Number of each post among the wanted ones: [n] int64, -1 for others."""
        return pc.fill_null(pc.index_in(post_id, value_set=self._ids), -1).to_numpy(zero_copy_only=False)

    def distinct(self, column: str) -> np.ndarray:
        """The vectors in the order of their numbers: [p, d] float32, zeros for posts that are no candidates."""
        if column not in self._vectors:
            raise ValueError("no candidates have been read")
        return self._vectors[column]

    def of(self, places: np.ndarray, column: str) -> np.ndarray:
        """The vectors of `post_id[places]`: [..., d] float32."""
        vectors: np.ndarray = self.distinct(column)[self.codes[places]]
        return vectors


def explain(
    ranked: Ranked,
    queries: np.ndarray,
    scales: np.ndarray,
    own_width: int,
    source: pa.Array,
    liked: Liked,
    vectors: GatheredVectors,
    num_threads: int = 1,
) -> Reasons:
    """The reasons of every row of `ranked`.

    A user's embedding is the sum of weight x profile vector of the history's posts, scaled block by block: so each of
    these posts contributes an exact part of the score. For a user with both history and interests, the reason is the
    history if the liked posts contribute at least half of the profile's part of the score. `because_post_id` is the
    liked post with the largest contribution, never the recommended post itself; null if no contribution is positive.

    Args:
      ranked: the lists.
      queries: [n, d] the users' embeddings.
      scales: [n, Q] factors by which the numbers of a profile were multiplied; Q <= d, the columns beyond are no part
        of a profile.
      own_width: how many of these are own columns.
      source: [n] string, history, interests or both.
      liked: of these users.
      vectors: of `liked.post_id`.
      num_threads: threads, each of which explains some users' lists.
    """
    num_users, num_rows = len(queries), len(ranked.query)
    by_liked, because = np.zeros(num_rows, bool), np.full(num_rows, -1, np.int64)
    starts = np.append(np.arange(0, num_users, _USERS_AT_ONCE), num_users)
    row_cuts, liked_cuts = np.searchsorted(ranked.query, starts), np.searchsorted(liked.user, starts)
    item_code = vectors.codes_of(ranked.items.post_id)

    def explain_users(i: int) -> None:
        rows, entries = np.arange(*row_cuts[i : i + 2]), np.arange(*liked_cuts[i : i + 2])
        if len(rows) and len(entries):
            users = queries[starts[i] : starts[i + 1]].astype(np.float64)
            item = ranked.item[rows]
            scaled = vectors.of(entries, "profile") * scales[liked.user[entries]]
            counted = np.repeat(liked.weights[entries], (own_width, scaled.shape[1] - own_width), axis=1)
            contributions = _Contributions(liked.user[entries] - starts[i], counted * scaled, len(users))
            by_liked[rows], entry = contributions.largest(
                users,
                ranked.query[rows] - starts[i],
                ranked.items.vectors[item],
                item_code[item],
                vectors.codes[entries],
            )
            because[rows] = np.where(entry >= 0, entries[entry], -1)

    with blas.one_thread(), futures.ThreadPoolExecutor(num_threads) as pool:
        for _ in pool.map(explain_users, range(len(starts) - 1)):
            pass
    sources = source.to_numpy(zero_copy_only=False)[ranked.query]
    by_history = (sources == "history") | ((sources == "both") & by_liked)
    reason = pa.array(np.where(by_history, "history", "interests"), pa.string())
    return Reasons(reason, liked.post_id.take(pa.array(because, mask=~by_history | (because < 0))))


class _Contributions:
    """The liked posts of some users as a padded array, and their contributions to scores.

    Args:
      user: [m] place of the user, ascending.
      vector: [m, Q] summands of the embedding: profile vectors, weighted and scaled.
      num_users: n.
    """

    def __init__(self, user: np.ndarray, vector: np.ndarray, num_users: int) -> None:
        (self._entry,) = to_matrix(user, (np.arange(len(user)),), num_users, (-1,))
        self._cube = _cube(self._entry, vector)

    def largest(
        self, users: np.ndarray, query: np.ndarray, vector: np.ndarray, code: np.ndarray, liked_code: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """([r] bool, liked posts contribute at least half of the score; [r] liked entry with the largest part or -1).

        Args:
          users: [n, d] float64.
          query: [r] place of the user, ascending.
          vector: [r, d] float32 of the recommended posts.
          code: [r] their numbers among the liked posts' ids, -1 for other posts.
          liked_code: [m] the same of the liked posts.
        """
        (row,) = to_matrix(query, (np.arange(len(query)),), len(users), (-1,))
        place = np.nonzero(row >= 0)
        cube = _cube(row, vector)
        parts = cube[:, :, : self._cube.shape[2]]
        score = np.einsum("nd,nkd->nk", users[:, : self._cube.shape[2]], parts)
        # Rounded, so that copies of a post contribute equally whatever the order of the sums; the first one is taken.
        contribution = np.matmul(parts, self._cube.transpose(0, 2, 1)).astype(np.float32)
        by_liked = contribution.sum(axis=2, dtype=np.float64) >= score / 2
        itself = code[row][:, :, None] == np.where(self._entry >= 0, liked_code[self._entry], -2)[:, None, :]
        contribution[itself] = -np.inf
        best = contribution.argmax(axis=2)
        positive = np.take_along_axis(contribution, best[:, :, None], 2)[:, :, 0] > 0
        entry = np.where(positive, np.take_along_axis(self._entry, best, 1), -1)
        return by_liked[place], entry[place]


def _cube(index: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """vectors[index] as float64, zeros where the index is -1: [n, w] -> [n, w, d]."""
    cube: np.ndarray = vectors.astype(np.float64)[index]
    cube[index < 0] = 0
    return cube

"""Popular posts for users without history or interests: one list per language, less each user's exclusions."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.linalg import selection
from transforms.recommend.rerank import SCORES_ALONE, Preferences, rerank
from transforms.search.catalog import VECTORS, Catalog, Tile, author_codes, concat_tiles
from transforms.search.eligibility import Eligibility
from transforms.search.exclusions import Exclusions
from transforms.search.top_k import Ranked, rank_by_order
from transforms.tables import schemas

_READ_ROWS = 65_536
# A common list is so many times as long as a user's; where exclusions leave too little of it, longer and longer.
_SPARE = 4
_ROWS_AT_ONCE = 512
# Columns of a popular post; its score is float32, as all scores are.
_COLUMNS = pa.schema(
    [schemas.candidates(1, 1).field(name) for name in ("post_id", "author_id", "created_at", "lang")]
    + [pa.field("popularity", pa.float32(), nullable=False)]
)


def popular(
    language: pa.Array,
    catalog: Catalog,
    k: int,
    *,
    eligibility: Eligibility,
    exclusions: Exclusions,
    max_per_author: int | None = None,
    preferences: Preferences = SCORES_ALONE,
) -> Ranked:
    """The k most popular eligible posts of each user, those in the user's language before all others.

    A post without a language is in everybody's, and a user without one can read all. Posts without likes come last
    whatever their language. The score is the popularity; within both parts it falls with the rank, ties by post_id,
    unless younger posts are preferred. Posts without an embedding count too.

    Args:
      language: [num_users] string, primary subtags (`languages.primary_language`), null where not known.
      preferences: only its half-life counts: popular posts are not compared by content.

    The other arguments are those of `topk.top_k`, a query being a user. In memory are, for every
    language of the posts, a few times k posts.
    """
    eligibility = dataclasses.replace(eligibility, needs_embedding=False)
    preferences = dataclasses.replace(preferences, diversity=0.0, taste_share=0.0)
    names = pc.unique(language)
    code = pc.index_in(language, value_set=names).to_numpy()
    lists: list[_Lists] = []
    waiting, length = np.arange(len(language)), _SPARE * k
    while len(waiting):
        best = _best_of_languages(catalog, length, eligibility)
        short = [np.empty(0, np.int64)]
        for number, common in enumerate(_common_lists(best, names, length, preferences)):
            served, left = _serve(waiting[code[waiting] == number], common, exclusions, k, max_per_author)
            lists.append(served)
            short.append(left)
        waiting, length = np.sort(np.concatenate(short)), length * _SPARE
    return _ranked(lists)


def _best_of_languages(catalog: Catalog, length: int, eligibility: Eligibility) -> pa.Table:
    """The `length` most popular posts of each language (and of none): _COLUMNS, by popularity, ties by id."""
    best, limit = _COLUMNS.empty_table(), 0
    for block in catalog.read(_READ_ROWS, without=VECTORS):
        eligible = block.filter(pa.array(eligibility.mask(block))).select(_COLUMNS.names).cast(_COLUMNS)
        best = pa.concat_tables([best, pa.Table.from_batches([eligible])])
        if best.num_rows > limit:
            best = _first_of_languages(best, length)
            limit = 2 * best.num_rows + _READ_ROWS
    return _first_of_languages(best, length)


def _first_of_languages(rows: pa.Table, length: int) -> pa.Table:
    rows = rows.sort_by([("popularity", "descending"), ("post_id", "ascending")])
    code = rows.column("lang").combine_chunks().dictionary_encode("encode").indices.to_numpy()
    order = np.argsort(code, kind="stable")
    rank = np.empty(len(code), np.int64)
    rank[order] = rank_by_order(code[order])
    return rows.filter(pa.array(rank <= length))


@dataclasses.dataclass(frozen=True)
class _Common:
    """A common list: its posts in order, their popularity, and True if there are no more posts."""

    posts: Tile
    score: np.ndarray
    is_all: bool


def _common_lists(best: pa.Table, languages: pa.Array, length: int, preferences: Preferences) -> Iterator[_Common]:
    """The list of every language: liked posts in the language, then all others by popularity."""
    columns = {name: best.column(name).combine_chunks() for name in _COLUMNS.names}
    score, lang = columns["popularity"].to_numpy(), columns["lang"]
    no_vectors = np.empty((len(score), 0), np.float32)
    posts = Tile(columns["post_id"], columns["author_id"], columns["created_at"], no_vectors)

    def preferred(places: np.ndarray) -> np.ndarray:
        zeros = np.zeros(len(places), np.int64)
        return rerank(Ranked(zeros, rank_by_order(zeros), score[places], places, posts), length, preferences).item

    everything = preferred(np.arange(len(score))[:length])
    for language in languages:
        places = everything
        if language.is_valid:
            can_read = pc.fill_null(pc.equal(lang, language), True).to_numpy(zero_copy_only=False)
            places = preferred(np.flatnonzero(can_read & (score > 0))[:length])
            if len(places) < length:  # Else there may be more that can be read, and they come before all others.
                places = np.concatenate([places, everything[~np.isin(everything, places)]])
        yield _Common(posts.take(places), score[places], len(everything) < length)


@dataclasses.dataclass(frozen=True)
class _Lists:
    """Recommendation lists of some users: user and place of each entry in the common list, by user and rank."""

    user: np.ndarray
    place: np.ndarray
    common: _Common


def _serve(
    users: np.ndarray, common: _Common, exclusions: Exclusions, k: int, cap: int | None
) -> tuple[_Lists, np.ndarray]:
    """(the lists of those for whom the common list is long enough, the others)."""
    row, place = _first_allowed(users, common.posts, exclusions, k, cap)
    finished = (np.bincount(row, minlength=len(users)) >= k) | common.is_all
    take = finished[row]
    return _Lists(users[row[take]], place[take], common), users[~finished]


def _first_allowed(
    users: np.ndarray, posts: Tile, exclusions: Exclusions, k: int, cap: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The first k posts that each user may get: ([m] row of `users`, [m] row of `posts`), in order."""
    met = exclusions.in_tile(posts)
    authors = author_codes(posts.author_id)
    found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for start in range(0, len(users), _ROWS_AT_ONCE):
        part = users[start : start + _ROWS_AT_ONCE]
        allowed = np.ones((len(part), len(authors)), bool)
        allowed[met.pairs(part, slice(0, len(authors)))] = False
        if cap is not None:
            row, column = np.nonzero(allowed)
            allowed[row, column] = selection.within_cap(row, authors[column], np.zeros(len(row)), cap)
        allowed &= np.cumsum(allowed, axis=1) <= k
        row, column = np.nonzero(allowed)
        found.append((row + start, column))
    return np.concatenate([row for row, _ in found]), np.concatenate([column for _, column in found])


def _ranked(lists: list[_Lists]) -> Ranked:
    """All lists as one, by user and rank."""
    offsets = np.cumsum([0, *(len(some.common.score) for some in lists)])
    items = concat_tiles([some.common.posts for some in lists])
    user = np.concatenate([some.user for some in lists])
    item = np.concatenate([some.place + offset for some, offset in zip(lists, offsets, strict=False)])
    score = np.concatenate([some.common.score[some.place] for some in lists])
    order = np.argsort(user, kind="stable")
    return Ranked(user[order], rank_by_order(user[order]), score[order], item[order], items)

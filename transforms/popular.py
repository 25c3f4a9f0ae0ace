"""Popular posts for users of whom nothing is known: one list for all, of which each gets what is not excluded."""

import dataclasses

import numpy as np

from transforms.kept import author_codes
from transforms.tiles import Catalogue, Eligibility, Exclusions
from transforms.topk import Ranked, top_k

_READ_ROWS = 65_536
# The common list is so many times as long as a user's; where exclusions leave too little of it, longer and longer.
_SPARE = 4
_ROWS_AT_ONCE = 512


def popular(
    num_users: int,
    catalogue: Catalogue,
    k: int,
    *,
    eligibility: Eligibility,
    exclusions: Exclusions,
    max_per_author: int | None = None,
) -> Ranked:
    """The k most popular eligible posts of each user; the score is the popularity, ties by post_id.

    Posts without an embedding count too. Arguments as in `topk.top_k`, a query being a user.
    """
    eligibility = dataclasses.replace(eligibility, needs_embedding=False)
    waiting = np.arange(num_users)
    done: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    length = _SPARE * k
    while True:
        common = top_k(
            np.ones((1, 1), np.float32),
            catalogue.read_without_embedding(_READ_ROWS),
            length,
            eligibility=eligibility,
            column="popularity",
        )
        row, place = _first_allowed(waiting, common, exclusions, k, max_per_author)
        is_all = len(common.query) < length
        full = np.bincount(row, minlength=len(waiting)) >= k
        finished = full | is_all
        take = finished[row]
        done.append((waiting[row[take]], common.item[place[take]], common.score[place[take]]))
        waiting = waiting[~finished]
        if not len(waiting):
            return _ranked(done, common)
        length *= _SPARE


def _first_allowed(
    users: np.ndarray, common: Ranked, exclusions: Exclusions, k: int, cap: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The first k places of the common list that each user may get: ([m] row of `users`, [m] place), in order."""
    order = common.items.take(common.item)
    met = exclusions.in_tile(order)
    authors = author_codes(order.author_id)
    found = []
    for start in range(0, len(users), _ROWS_AT_ONCE):
        part = users[start : start + _ROWS_AT_ONCE]
        allowed = np.ones((len(part), len(authors)), bool)
        first = int(part[0])
        row, column = met.pairs(first, int(part[-1]) + 1)
        place = np.searchsorted(part, row + first)
        mine = part[place] == row + first
        allowed[place[mine], column[mine]] = False
        if cap is not None:
            _cap_authors(allowed, authors, cap)
        allowed &= np.cumsum(allowed, axis=1) <= k
        row, column = np.nonzero(allowed)
        found.append((row + start, column))
    return np.concatenate([row for row, _ in found]), np.concatenate([column for _, column in found])


def _cap_authors(allowed: np.ndarray, authors: np.ndarray, cap: int) -> None:
    """Leaves the first `cap` allowed places of every author in each row."""
    row, column = np.nonzero(allowed)
    order = np.lexsort((column, authors[column], row))
    row, column = row[order], column[order]
    new = np.ones(len(row), bool)
    new[1:] = (row[1:] != row[:-1]) | (authors[column][1:] != authors[column][:-1])
    starts = np.flatnonzero(new)
    count = np.arange(len(row)) - starts[np.cumsum(new) - 1]
    allowed[row[count >= cap], column[count >= cap]] = False


def _ranked(done: list[tuple[np.ndarray, np.ndarray, np.ndarray]], common: Ranked) -> Ranked:
    user, item, score = (np.concatenate([entry[i] for entry in done]) for i in range(3))
    order = np.argsort(user, kind="stable")
    user = user[order]
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    rank = np.arange(len(user)) - np.repeat(starts, np.diff(np.append(starts, len(user)))) + 1
    return Ranked(user, rank.astype(np.int32), score[order], item[order], common.items)

"""The validation tasks inside the training data.

What each user did last (warm), posts left out (cold), and what everybody did after one moment (later).
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from transforms.metrics import ranking
from transforms.tuning.exact_factors import ExactFactors, factorize
from transforms.tuning.histories import Interactions
from transforms.tuning.sample import Sample

# What a task ranks: most users, posts, and scores in all. Beyond that, those with the smallest hashes.
MAX_SCORED_USERS = 2_000
MAX_SCORED_POSTS = 20_000
MAX_SCORES = 8_000_000
# With fewer users to validate on, or posts in a fold, nothing is chosen.
MIN_USERS = 20
MIN_FOLD_POSTS = 5
FOLDS = 5
HELD_OUT = 0.2


class Score(NamedTuple):
    """Of each user, [u] float64."""

    recall: np.ndarray
    ndcg: np.ndarray

    @property
    def objective(self) -> np.ndarray:
        """Tuning objective, whose mean is maximized: [u] float64."""
        return self.recall + self.ndcg


def join(scores: list[Score]) -> Score:
    """Of several rankings: of each user in each."""
    return Score(*(np.concatenate(values) for values in zip(*scores, strict=True)))


class Ranking(NamedTuple):
    """Posts to be ranked for users.

    Attributes:
      users: [u] which of the task's histories.
      posts: [p] places of the posts, rising.
      targets: [u, p] bool, at least one in a row.
      seen: (rows, columns) of what is not ranked.
    """

    users: np.ndarray
    posts: np.ndarray
    targets: np.ndarray
    seen: tuple[np.ndarray, np.ndarray]

    def measure(self, scores: np.ndarray) -> Score:
        """Recall@20 and nDCG@10 of scores [u, p]; changes them.

        Of fewer than 100 posts at a fifth of their number: with 20 places for 30 posts anything would do well.
        """
        scores[self.seen] = -np.inf
        places = max(1, min(20, scores.shape[1] // 5))
        return Score(*ranking.recall_ndcg(scores, self.targets, places, min(10, places)))


@dataclasses.dataclass(frozen=True)
class WarmTask:
    """Held-out interactions, to be told from those before: the last fifth of each history, or after one moment.

    Attributes:
      fit: what was before, of all users of the sample.
      factors: of that.
      histories: of that, of the users that are ranked for ([u] users).
      ranking: of all posts of the sample, or MAX_SCORED_POSTS.
      made: when the posts of the sample were made, as there.
    """

    fit: Interactions
    factors: ExactFactors
    histories: Interactions
    ranking: Ranking
    made: np.ndarray | None = None

    def last_active(self) -> np.ndarray:
        """When each of the [u] users was last active, in days since 1970: float64, nan where no time is known."""
        last = np.full(self.histories.num_users, np.nan)
        if self.histories.time is not None:
            np.fmax.at(last, self.histories.user, self.histories.time)
        return last

    def profiles(self, rows: np.ndarray, half_life: float | None) -> np.ndarray:
        """Sums of posts' rows [num_posts, w] over the histories: [u, w] float32."""
        return self.histories.profile_weights(half_life) @ rows


def warm_task(sample: Sample, num_factors: int, seed: int) -> WarmTask | None:
    """The warm task; None where there are fewer than MIN_USERS users to rank for."""
    every = sample.interactions
    return _split_task(sample, last_of_each(every, sample.user_hash, sample.post_hash, HELD_OUT), num_factors, seed)


def later_task(sample: Sample, num_factors: int, seed: int) -> WarmTask | None:
    """The newest fifth of all interactions that have a time, for users who were active before; None where few were."""
    every = sample.interactions
    if every.time is None:
        return None
    cut = np.nanquantile(every.time, 1 - HELD_OUT)
    held = every.time > cut  # no time is not later
    before = np.zeros(every.num_users, bool)
    before[every.user[every.liked & ~held]] = True
    return _split_task(sample, held, num_factors, seed, before)


def _split_task(
    sample: Sample, held: np.ndarray, num_factors: int, seed: int, allowed: np.ndarray | None = None
) -> WarmTask | None:
    """The task to tell the interactions `held` ([n] bool) from the others, for `allowed` users ([num_users] bool)."""
    every = sample.interactions
    posts = np.sort(_smallest(sample.post_hash, np.arange(every.num_posts), MAX_SCORED_POSTS))
    ranked = held & every.liked & np.isin(every.post, posts)
    if allowed is not None:
        ranked &= allowed[every.user]
    users = _scored_users(sample, np.unique(every.user[ranked]), len(posts))
    if len(users) < MIN_USERS:
        return None
    fit = every.select(~held)
    histories = of_users(fit, users)
    ranking = _rank(of_users(every.keep(ranked), users), posts, seen=histories)
    return WarmTask(fit, factorize(fit, num_factors, seed), histories, ranking, sample.made)


def last_of_each(interactions: Interactions, user_hash: np.ndarray, post_hash: np.ndarray, share: float) -> np.ndarray:
    """Mask of the interactions among the last `share` of their user's (rounded down, at least 1 of 3): [n] bool.

    Of equal times, and where there are none, the order is that of a hash of user and post.
    """
    user = interactions.user
    tie = post_hash[interactions.post] * (user_hash[user] | np.uint64(1))
    order = np.lexsort((tie, -interactions.recency, user))
    sizes = np.bincount(user, minlength=interactions.num_users)
    num_held = np.where(sizes >= 3, np.maximum((sizes * share).astype(np.int64), 1), 0)
    place = np.arange(len(user)) - (np.cumsum(sizes) - sizes)[user[order]]
    held = np.zeros(len(user), bool)
    held[order] = place >= (sizes - num_held)[user[order]]
    return held


@dataclasses.dataclass(frozen=True)
class ColdTask:
    """Posts in folds, those of each to be told as if nobody had met them.

    The factors have seen the interactions with all posts; profiles and the map from content have not seen the fold's.
    To choose among settings this serves as well as a factorization for each fold.

    Attributes:
      factors: of all.
      histories: of the users that are ranked for.
      fold: [num_posts], -1 for posts that are never left out.
      rankings: of each fold's posts.
    """

    factors: ExactFactors
    histories: Interactions
    fold: np.ndarray
    rankings: tuple[Ranking, ...]

    def profiles(self, rows: np.ndarray, half_life: float | None) -> list[np.ndarray]:
        """For each fold, sums of posts' rows [num_posts, w] over the histories less the fold: [its users, w]."""
        weights = self.histories.profile_weights(half_life)
        kept = [(self.fold != number)[:, None] for number in range(len(self.rankings))]
        return [weights[ranking.users] @ (rows * keep) for ranking, keep in zip(self.rankings, kept, strict=True)]

    def fit_rows(self, number: int) -> np.ndarray:
        """Places of the posts that the map from content may learn from when this fold is left out."""
        return np.flatnonzero((self.factors.degree > 0) & (self.fold != number))


def cold_task(sample: Sample, num_factors: int, seed: int) -> ColdTask | None:
    """The cold task; None where a fold has fewer than MIN_FOLD_POSTS posts or MIN_USERS users to rank for."""
    every = sample.interactions
    posts = _smallest(sample.post_hash, np.unique(every.post[every.liked]), MAX_SCORED_POSTS)
    if len(posts) < FOLDS * MIN_FOLD_POSTS:
        return None
    fold = np.full(every.num_posts, -1)
    fold[posts] = np.arange(len(posts)) % FOLDS
    ranked = every.liked & (fold[every.post] >= 0)
    users = _scored_users(sample, np.unique(every.user[ranked]), len(posts))
    targets = of_users(every.keep(ranked), users)
    rankings = tuple(_rank(targets, np.flatnonzero(fold == number), seen=None) for number in range(FOLDS))
    if min(len(ranking.users) for ranking in rankings) < MIN_USERS:
        return None
    return ColdTask(factorize(every, num_factors, seed), of_users(every, users), fold, rankings)


def of_users(interactions: Interactions, users: np.ndarray) -> Interactions:
    """The histories of some users (places, rising), who get the places 0, 1, ..."""
    kept = interactions.keep(np.isin(interactions.user, users))
    return dataclasses.replace(kept, user=np.searchsorted(users, kept.user), num_users=len(users))


def _scored_users(sample: Sample, users: np.ndarray, num_posts: int) -> np.ndarray:
    return np.sort(_smallest(sample.user_hash, users, min(MAX_SCORED_USERS, MAX_SCORES // max(num_posts, 1))))


def _smallest(hashes: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """The `count` places with the smallest hashes, in the order of these."""
    return places[np.argsort(hashes[places], kind="stable")[:count]]


def _rank(targets: Interactions, posts: np.ndarray, seen: Interactions | None) -> Ranking:
    """The ranking of posts for those users who have a target among them."""
    column = np.full(targets.num_posts, -1)
    column[posts] = np.arange(len(posts))
    hit = column[targets.post] >= 0
    users = np.unique(targets.user[hit])
    row = np.full(targets.num_users, -1)
    row[users] = np.arange(len(users))
    matrix = np.zeros((len(users), len(posts)), bool)
    matrix[row[targets.user[hit]], column[targets.post[hit]]] = True
    rows, columns = np.empty(0, np.int64), np.empty(0, np.int64)
    if seen is not None:
        both = (row[seen.user] >= 0) & (column[seen.post] >= 0)
        rows, columns = row[seen.user[both]], column[seen.post[both]]
    return Ranking(users, posts, matrix, (rows, columns))

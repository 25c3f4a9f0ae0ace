"""The validation tasks inside the training data.

Each user's last interactions (warm), held-out posts (cold), and all interactions after one time (later).
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from transforms.metrics import ranking
from transforms.tuning.exact_factors import ExactFactors, factorize
from transforms.tuning.histories import Interactions
from transforms.tuning.sample import Sample

# Maximum users, posts, and scores of a task; beyond that, those with the smallest hashes.
MAX_SCORED_USERS = 2_000
MAX_SCORED_POSTS = 20_000
MAX_SCORES = 8_000_000
# Minimum users, and posts of a fold: with fewer, nothing is tuned.
MIN_USERS = 20
MIN_FOLD_POSTS = 5
FOLDS = 5
HELD_OUT = 0.2


class Score(NamedTuple):
    """Recall and nDCG of each user, [u] float64."""

    recall: np.ndarray
    ndcg: np.ndarray

    @property
    def objective(self) -> np.ndarray:
        """Tuning objective, whose mean is maximized: [u] float64."""
        return self.recall + self.ndcg


def join(scores: list[Score]) -> Score:
    """Scores of several rankings, concatenated."""
    return Score(*(np.concatenate(values) for values in zip(*scores, strict=True)))


class Ranking(NamedTuple):
    """Posts to rank for users.

    Attributes:
      users: [u] places of the task's histories.
      posts: [p] places of the posts, ascending.
      targets: [u, p] bool, at least one in a row.
      seen: (rows, columns) of the scores that are not ranked.
    """

    users: np.ndarray
    posts: np.ndarray
    targets: np.ndarray
    seen: tuple[np.ndarray, np.ndarray]

    def measure(self, scores: np.ndarray) -> Score:
        """Recall@20 and nDCG@10 of scores [u, p]; changes them.

        With fewer than 100 posts, at a fifth of their number: top 20 of 30 posts would measure nothing.
        """
        scores[self.seen] = -np.inf
        places = max(1, min(20, scores.shape[1] // 5))
        return Score(*ranking.recall_ndcg(scores, self.targets, places, min(10, places)))


@dataclasses.dataclass(frozen=True)
class WarmTask:
    """Held-out interactions to predict from earlier ones: the last fifth of each history, or all after one time.

    Attributes:
      fit: the earlier interactions of all users of the sample.
      factors: of `fit`.
      histories: `fit` of the [u] ranked users.
      ranking: of all posts of the sample, or MAX_SCORED_POSTS.
      created: creation times of the posts, as in `Sample`.
    """

    fit: Interactions
    factors: ExactFactors
    histories: Interactions
    ranking: Ranking
    created: np.ndarray | None = None

    def last_active(self) -> np.ndarray:
        """Time of each user's last activity, in days since 1970: [u] float64, nan where unknown."""
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
    """The newest fifth of all interactions that have a time, for users with earlier ones; None if there are too few."""
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
    """Task to predict the interactions `held` ([n] bool) from the others, for `allowed` ([num_users] bool) users."""
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
    ranking = _rank(of_users(every.filter(ranked), users), posts, seen=histories)
    return WarmTask(fit, factorize(fit, num_factors, seed), histories, ranking, sample.created)


def last_of_each(interactions: Interactions, user_hash: np.ndarray, post_hash: np.ndarray, share: float) -> np.ndarray:
    """Mask of the interactions among the last `share` of their user's (rounded down, at least 1 of 3): [n] bool.

    Ties and unknown times are ordered by a hash of user and post.
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
    """Posts in folds, those of each to be predicted as if they were cold.

    The factors are fitted on the interactions with all posts; profiles and the map from content without the fold's.
    To choose among settings this is as good as a factorization for each fold.

    Attributes:
      factors: of all.
      histories: of the ranked users.
      fold: [num_posts], -1 for posts that are never held out.
      rankings: of each fold's posts.
    """

    factors: ExactFactors
    histories: Interactions
    fold: np.ndarray
    rankings: tuple[Ranking, ...]

    def profiles(self, rows: np.ndarray, half_life: float | None) -> list[np.ndarray]:
        """For each fold, sums of posts' rows [num_posts, w] over the histories less the fold: [its users, w]."""
        weights = self.histories.profile_weights(half_life)
        return [
            weights[ranking.users] @ (rows * (self.fold != number)[:, None])
            for number, ranking in enumerate(self.rankings)
        ]

    def fit_rows(self, number: int) -> np.ndarray:
        """Places of the posts that the map from content is fitted on when this fold is held out."""
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
    targets = of_users(every.filter(ranked), users)
    rankings = tuple(_rank(targets, np.flatnonzero(fold == number), seen=None) for number in range(FOLDS))
    if min(len(ranking.users) for ranking in rankings) < MIN_USERS:
        return None
    return ColdTask(factorize(every, num_factors, seed), of_users(every, users), fold, rankings)


def of_users(interactions: Interactions, users: np.ndarray) -> Interactions:
    """The histories of some users (places, ascending), who get the places 0, 1, ..."""
    rows = interactions.filter(np.isin(interactions.user, users))
    return dataclasses.replace(rows, user=np.searchsorted(users, rows.user), num_users=len(users))


def _scored_users(sample: Sample, users: np.ndarray, num_posts: int) -> np.ndarray:
    return np.sort(_smallest(sample.user_hash, users, min(MAX_SCORED_USERS, MAX_SCORES // max(num_posts, 1))))


def _smallest(hashes: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """The `count` places with the smallest hashes, in the order of these."""
    return places[np.argsort(hashes[places], kind="stable")[:count]]


def _rank(targets: Interactions, posts: np.ndarray, seen: Interactions | None) -> Ranking:
    """The ranking of posts for the users with a target among them."""
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

"""Validation scores of settings on the tuning tasks, by the formulas of the final vectors."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from transforms.embed import formulas, trend
from transforms.embed.parameters import Decoded, Mix, Own, Trend, Tuning
from transforms.linalg import ridge
from transforms.linalg.vectors import unit_rows
from transforms.tuning.exact_factors import ExactFactors
from transforms.tuning.histories import Interactions
from transforms.tuning.sample import Block
from transforms.tuning.validation_tasks import ColdTask, Score, WarmTask, join


def num_factors(factors: ExactFactors, k: int) -> int:
    """k, or as many as there are."""
    return min(k, len(factors.singular_values))


class OwnScores:
    """Scores of the own block alone on the warm task."""

    def __init__(self, task: WarmTask) -> None:
        self._task = task
        self._profiles: dict[float | None, np.ndarray] = {}

    def score(self, own: Own, half_life: float | None) -> Score:
        """Recall and nDCG; posts without interactions come last."""
        task, factors = self._task, self._task.factors
        if half_life not in self._profiles:
            self._profiles[half_life] = task.profiles(factors.profile_rows, half_life)
        items = formulas.own_block(factors.values, factors.singular_values, factors.degree, own)
        scores = self._profiles[half_life][:, : items.shape[1]] @ items[task.ranking.posts].T
        scores[:, factors.degree[task.ranking.posts] == 0] = -np.inf
        return task.ranking.measure(scores)


class DecodedScores:
    """Scores of decoded factors and of content on the cold task, by a ridge map from content to factors.

    The sums of the map are taken once for each fold; a setting costs a solve and a product.
    """

    def __init__(self, task: ColdTask, content: Mapping[str, Block]) -> None:
        self._task = task
        self._content = content
        self._design = make_design(content, len(task.fold))
        folds = range(len(task.rankings))
        self._sums = [ridge.sums(self._design.columns, task.factors.values, task.fit_rows(number)) for number in folds]
        self._profiles: dict[float | None, list[np.ndarray]] = {}

    def score(self, decoded: Decoded, half_life: float | None) -> Score:
        """Recall and nDCG of decoded factors alone, of each fold and user."""
        if half_life not in self._profiles:
            self._profiles[half_life] = self._task.profiles(self._task.factors.profile_rows, half_life)
        scores = []
        for number, (ranking, users) in enumerate(zip(self._task.rankings, self._profiles[half_life], strict=True)):
            items = self._decode(number, decoded, self._design.columns[ranking.posts])
            scores.append(ranking.measure(users[:, : items.shape[1]] @ items.T))
        return join(scores)

    def score_content(self, modality: str, half_life: float | None) -> Score:
        """Recall and nDCG of a modality's unit rows alone, of each fold and user."""
        rows = unit_rows(self._content[modality].values)
        profiles = self._task.profiles(rows, half_life)
        rankings = self._task.rankings
        return join(
            [ranking.measure(users @ rows[ranking.posts].T) for ranking, users in zip(rankings, profiles, strict=True)]
        )

    def both(self, decoded: Decoded | None, modality: str, half_life: float | None) -> "BothScores":
        """Scores of decoded factors and content together, for any weight of the latter."""
        return BothScores(self._task, *self._rows(decoded, modality), half_life)

    def _rows(self, decoded: Decoded | None, modality: str) -> tuple[list[np.ndarray], np.ndarray]:
        content = unit_rows(self._content[modality].values)
        if decoded is None:
            nothing = np.zeros((len(content), 0), np.float32)
            return [nothing] * len(self._task.rankings), content
        folds = range(len(self._task.rankings))
        return [self._decode(number, decoded, self._design.columns) for number in folds], content

    def _decode(self, number: int, decoded: Decoded, columns: np.ndarray) -> np.ndarray:
        factors = self._task.factors
        coefficients = ridge.solve(self._sums[number], self._design.scales(decoded.weights), decoded.lam)
        k = num_factors(factors, decoded.k)
        return formulas.decoded_block(columns @ coefficients[:, :k], factors.singular_values, k, decoded.e)


class BothScores:
    """Scores of decoded factors and content together on the cold task: the vectors of posts without interactions."""

    def __init__(self, task: ColdTask, decoded: list[np.ndarray], content: np.ndarray, half_life: float | None) -> None:
        self._rankings = task.rankings
        degree = np.zeros(len(content))
        k = decoded[0].shape[1]
        rows = np.hstack([task.factors.profile_rows[:, :k], content])
        self._profiles = task.profiles(rows, half_life)
        own = np.zeros((len(content), 0), np.float32)
        self._covariances = []
        self._items = []
        for ranking, block in zip(task.rankings, decoded, strict=True):
            moments = formulas.block_moments(own, block, content, degree)
            self._covariances.append(tuple(one.covariance() for one in moments))
            chosen = ranking.posts
            parts = (own[chosen], block[chosen], content[chosen], degree[chosen])
            self._items.append(formulas.item_vectors(*parts, np.zeros(len(chosen)), Mix(cold_weight=1)))

    def score(self, b: float) -> Score:
        """Recall and nDCG with the content block's weight b, of each fold and user."""
        scores = []
        for ranking, profiles, covariances, items in zip(
            self._rankings, self._profiles, self._covariances, self._items, strict=True
        ):
            users = formulas.user_vectors(profiles, covariances, b, Mix(cold_weight=1))
            scores.append(ranking.measure(users @ items.T))
        return join(scores)


class MixScores:
    """Scores of the complete vectors on the warm task, with the parameters tuned so far."""

    def __init__(self, task: WarmTask, content: Mapping[str, Block], found: Tuning) -> None:
        factors = task.factors
        plain = ridge_factors(factors, content, found.decoded)
        block = decoded_rows(factors, plain, found.decoded)
        rows = np.zeros((len(block), 0), np.float32)
        if found.content is not None:
            rows = unit_rows(content[found.content.modality].values)
        own = formulas.own_block(factors.values, factors.singular_values, factors.degree, found.own)
        moments = formulas.block_moments(own, block, rows, factors.degree)
        widths = formulas.Widths(own.shape[1], block.shape[1], rows.shape[1])
        added = formulas.profile_vectors(factors.values, plain, rows, factors.degree, widths)
        posts = task.ranking.posts
        self._ranking = task.ranking
        self._b = found.content_weight
        self._covariances = tuple(one.covariance() for one in moments)
        self._items = (own[posts], block[posts], rows[posts], factors.degree[posts])
        self._fit, self._last_active, self._created = task.fit, task.last_active(), task.created
        # Levels take a pass over all interactions and do not depend on the weight.
        self._shaped: dict[tuple[float, float], Shaped] = {}
        self._profiles = np.hstack(
            [
                task.profiles(added[:, : widths.own], found.recency),
                task.profiles(added[:, widths.own :], found.content_recency),
            ]
        )

    def score(self, mix: Mix, found: Trend | None = None) -> Score:
        """Recall and nDCG among all posts, cold ones included; the trend is one of `self.trend`."""
        levels = np.zeros(self._fit.num_posts)
        if found is not None:
            levels = self._shape((found.half_life, found.newness)).levels
        items = formulas.item_vectors(*self._items, levels[self._ranking.posts], mix)
        weights = trend.weights_of_users(self._last_active, found)
        users = formulas.user_vectors(self._profiles, self._covariances, self._b, mix, weights)
        return self._ranking.measure(users @ items.T)

    def trend(self, shape: tuple[float, float], weight: float, away: float | None) -> Trend:
        """The trend as of this task's end; see `make_trend`."""
        return self._shape(shape).weighted(weight, away)

    def _shape(self, shape: tuple[float, float]) -> "Shaped":
        if shape not in self._shaped:
            self._shaped[shape] = shape_trend(self._fit, self._created, shape)
        return self._shaped[shape]


class Shaped(NamedTuple):
    """A trend without its weight, and the levels of the posts: [num_posts] float64."""

    trend: Trend
    levels: np.ndarray

    def weighted(self, weight: float, away: float | None) -> Trend:
        """The trend with a weight in deviations of the posts' levels."""
        deviation = float(self.levels.std())
        return dataclasses.replace(self.trend, weight=weight / deviation if deviation > 0 else 0.0, away=away)


def make_trend(
    interactions: Interactions,
    created: np.ndarray | None,
    shape: tuple[float, float],
    weight: float,
    away: float | None,
) -> Trend:
    """A trend as of the newest of some interactions, which have times.

    Args:
      created: of the posts, as in `Sample`.
      shape: half-life and newness.
      weight: in deviations of the posts' levels.
      away: of the users.
    """
    return shape_trend(interactions, created, shape).weighted(weight, away)


def shape_trend(interactions: Interactions, created: np.ndarray | None, shape: tuple[float, float]) -> Shaped:
    """Half-life and newness as of the newest of some interactions; see `make_trend`."""
    half_life, newness = shape
    found = Trend(half_life, newness, 0.0, None, *heat_per_user(interactions, half_life))
    return Shaped(found, levels_of(interactions, created, found))


def heat_per_user(interactions: Interactions, half_life: float) -> tuple[float, float]:
    """(the newest time, the sum of the posts' heat then over the number of users) of interactions that have times."""
    assert interactions.time is not None
    newest = float(np.nanmax(interactions.time))
    num_users = len(np.unique(interactions.user[interactions.liked]))
    return newest, float(_heat(interactions, newest, half_life).sum()) / max(num_users, 1)


def levels_of(interactions: Interactions, created: np.ndarray | None, found: Trend) -> np.ndarray:
    """Recent popularity of each post: [num_posts] float64."""
    heat = _heat(interactions, found.newest, found.half_life)
    liked = interactions.liked
    sizes = (len(np.unique(places[liked])) for places in (interactions.user, interactions.post))
    num_users, num_posts = sizes
    hot = trend.level(heat, found.per_user * num_users / max(num_posts, 1))
    return hot if created is None else hot + trend.newness(created, found)


def _heat(interactions: Interactions, newest: float, half_life: float) -> np.ndarray:
    liked = interactions.liked
    assert interactions.time is not None
    decayed = 0.5 ** (trend.ages(interactions.time[liked], newest) / half_life)
    return np.bincount(interactions.post[liked], decayed, interactions.num_posts)


def make_design(content: Mapping[str, Block], num_posts: int) -> ridge.Design:
    """The columns of the map from content to factors."""
    values = {name: block.values for name, block in content.items()}
    return ridge.design(values, {name: block.present for name, block in content.items()}, num_posts)


def ridge_factors(factors: ExactFactors, content: Mapping[str, Block], decoded: Decoded | None) -> np.ndarray:
    """Factors predicted from content by the ridge map, in units of V: [num_posts, F], F = 0 without `decoded`."""
    num_posts = len(factors.degree)
    if decoded is None:
        return np.zeros((num_posts, 0), np.float32)
    columns = make_design(content, num_posts)
    found = ridge.sums(columns.columns, factors.values, np.flatnonzero(factors.degree > 0))
    return columns.columns @ ridge.solve(found, columns.scales(decoded.weights), decoded.lam)


def decoded_rows(factors: ExactFactors, plain: np.ndarray, decoded: Decoded | None) -> np.ndarray:
    """The decoded block of all posts, [num_posts, kd]; kd = 0 without `decoded`."""
    if decoded is None:
        return plain[:, :0]
    return formulas.decoded_block(plain, factors.singular_values, decoded.k, decoded.e)

"""Automatic tuning: every scale and weight of the embeddings, found on validation parts inside the training data.

    1. own factors and recency    the last fifth of each user's history
    2. decoded factors, content   posts in five folds, each predicted from content alone
    3. the mixing of the blocks   the last fifth again, among all posts
    4. the trend                  all interactions after one time

Each step is a coordinate descent over a small grid for recall@20 + nDCG@10 (`descend`). Where there is too
little to validate on (`validation_tasks`), the defaults of `parameters` remain.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from transforms.embed.parameters import Content, Decoded, Mix, Own, Tuning
from transforms.fuse import time_modality
from transforms.linalg import blas
from transforms.tuning.coordinate_descent import descend, gains
from transforms.tuning.histories import Interactions
from transforms.tuning.sample import Block, Sample
from transforms.tuning.scores import DecodedScores, MixScores, OwnScores, heat_per_user, make_trend
from transforms.tuning.validation_tasks import ColdTask, Score, WarmTask, cold_task, later_task, warm_task

# Creation times help to predict factors, but similarity in time is no similarity of content.
NOT_CONTENT = frozenset({time_modality.TIME})

OWN_K = (16, 24, 32, 48, 64, 96, 128, 192, 256)
OWN_L = (0.3, 1.0, 3.0, 10.0, 30.0)
OWN_C = (0.0, 0.15, 0.25)
RECENCY = (None, 1.0, 0.5, 0.25, 0.125, 0.0625)
CONTENT_RECENCY = (None, 1.0, 0.25)
DECODED_K = (32, 64, 128)
DECODED_E = (1.0, 1.5, 2.0)
DECODED_LAM = (3.0, 10.0, 30.0)
WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0)
CONTENT_B = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
MIX = {
    "cold_weight": (0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
    "warm_weight": (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
}
TREND_HALF_LIVES = (1.0, 3.0, 7.0, 14.0, 30.0)
TREND_NEWNESS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
# In deviations of the posts' levels, a scale similar to the blocks': half-life and newness are compared with the first,
# then one of the others is chosen.
SHAPING_WEIGHT = 2.0
TREND_WEIGHTS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
TREND_AWAY = (None, 90.0, 60.0, 45.0, 30.0, 14.0, 7.0)
# The trend changes the lists of all recently active users, so it requires more users and a clearer gain than the rest.
MIN_TREND_USERS = 50
TREND_ERRORS = 2.0
MAX_LOSS = 0.1
ENOUGH = 0.95
# Maximum number of modalities that are tried alone as a start.
_MAX_SINGLE = 12


def tune(sample: Sample, seed: int, num_factors: int) -> Tuning:
    """The best settings for the sample. Deterministic; `seed` only starts the factorization.

    Runs on one thread: the products are many and small (ml100k on two busy cores: 6 s, on two threads 27 s), and the
    result must not depend on the machine.

    Args:
      num_factors: F, the number of factors; no k is larger.
    """
    with blas.one_thread():
        return _tune(sample, seed, num_factors)


def _tune(sample: Sample, seed: int, num_factors: int) -> Tuning:
    content = {name: block for name, block in sample.content.items() if block.present.any()}
    warm, cold = warm_task(sample, num_factors, seed), cold_task(sample, num_factors, seed)
    found = Tuning(Own(rank=min(Own.rank, num_factors)))
    if warm is not None:
        found = tune_own(warm, found, num_factors)
    found = dataclasses.replace(found, content_recency=found.recency, **default_blocks(sample, num_factors))
    if cold is not None and content:
        found = tune_content(cold, content, found, num_factors)
    if warm is not None:
        whole = MixScores(warm, content, found)
        found = tune_mix(whole, found)
        later = later_task(sample, num_factors, seed)
        if later is not None and len(later.ranking.users) >= MIN_TREND_USERS:
            found = tune_trend(MixScores(later, content, found), whole, found, sample)
    size = {"users": sample.interactions.num_users, "posts": sample.interactions.num_posts}
    return _with_figures(found, {"sample": size})


def default_blocks(sample: Sample, num_factors: int) -> dict[str, Any]:
    """Default decoded and content blocks without validation: all modalities alike, and the one that most posts have."""
    names = [name for name in sample.content if sample.coverage[name] > 0]
    if not names:
        return {"decoded": None, "content": None}
    modality = max(_for_content(names), key=lambda name: sample.coverage[name])
    decoded = Decoded(k=min(Decoded.k, num_factors), weights=dict.fromkeys(names, 1.0))
    return {"decoded": decoded if len(sample.interactions) else None, "content": Content(modality)}


def tune_own(task: WarmTask, start: Tuning, num_factors: int) -> Tuning:
    """Finds the shape of the own block, and the half-life of interactions in profiles."""
    scores = OwnScores(task)
    # Together: a k is only as good as its l.
    shapes = [(k, l) for k in OWN_K if k <= num_factors for l in OWN_L]  # noqa: E741

    def make(point: Mapping[str, Any]) -> Own:
        k, l = point["shape"]  # noqa: E741
        return Own(k, l, point["c"])

    found = descend(
        {"shape": shapes, "recency": RECENCY, "c": OWN_C},
        {"shape": (start.own.rank, start.own.shrinkage), "recency": start.recency, "c": start.own.degree_power},
        lambda point: scores.score(make(point), point["recency"]).objective,
    )
    own, half_life = make(found.point), found.point["recency"]
    figures = {"own": _figures(scores.score(own, half_life))}
    return _with_figures(dataclasses.replace(start, own=own, recency=half_life), figures)


def tune_content(
    task: ColdTask,
    content: Mapping[str, Block],
    start: Tuning,
    num_factors: int,
) -> Tuning:
    """Finds the map from content to factors, and the content block."""
    scores = DecodedScores(task, content)
    decoded, half_life = _tune_decoded(scores, list(content), num_factors)
    alone = {name: scores.score_content(name, half_life) for name in _for_content(list(content))}
    modality = max(alone, key=lambda name: float(alone[name].objective.mean()))
    both = scores.both(decoded, modality, half_life)
    b = descend({"b": CONTENT_B}, {"b": CONTENT_B[0]}, lambda point: both.score(point["b"]).objective).point["b"]
    figures = {"content": {name: _figures(score) for name, score in alone.items()}, "cold": _figures(both.score(b))}
    if decoded is not None:
        figures["decoded"] = _figures(scores.score(decoded, half_life))
    found = dataclasses.replace(start, decoded=decoded, content=Content(modality, b), content_recency=half_life)
    return _with_figures(found, figures)


def _tune_decoded(scores: DecodedScores, names: list[str], num_factors: int) -> tuple[Decoded | None, float | None]:
    def make(point: Mapping[Any, Any]) -> Decoded:
        return Decoded(point["k"], point["e"], point["lam"], {name: point["weight", name] for name in names})

    def score(point: Mapping[Any, Any]) -> np.ndarray:
        found = scores.score(make(point), point["recency"]).objective
        return found if any(point["weight", name] for name in names) else np.zeros_like(found)

    default: dict[Any, Any] = {"k": min(Decoded.k, num_factors), "e": Decoded.e, "lam": Decoded.lam}
    default["recency"] = CONTENT_RECENCY[0]
    alone = names[:_MAX_SINGLE] if len(names) > 1 else []
    starts = [default | {("weight", name): 1.0 for name in names}]
    starts += [default | {("weight", name): float(name == single) for name in names} for single in alone]
    scored = [score(start) for start in starts]
    best = max(range(len(starts)), key=lambda place: float(scored[place].mean()))
    start = starts[best] if gains(scored[best], scored[0]) else starts[0]
    grid: dict[Any, Any] = {("weight", name): WEIGHTS for name in names}
    grid |= {"k": tuple(k for k in DECODED_K if k <= num_factors), "e": DECODED_E, "lam": DECODED_LAM}
    found = descend(grid | {"recency": CONTENT_RECENCY}, start, score)
    return make(found.point) if found.score > 0 else None, found.point["recency"]


def tune_mix(scores: MixScores, start: Tuning) -> Tuning:
    """Finds the weights of the blocks."""
    idle = {"cold_weight"} if start.content is None else set()
    idle |= {"warm_weight"} if start.decoded is None else set()
    found = descend(
        {name: values for name, values in MIX.items() if name not in idle},
        dataclasses.asdict(start.mix),
        lambda point: scores.score(Mix(**point)).objective,
    )
    mix = Mix(**found.point)
    return _with_figures(dataclasses.replace(start, mix=mix), {"warm": _figures(scores.score(mix))})


def as_of_now(found: Tuning, interactions: Interactions) -> Tuning:
    """Tuning found for earlier interactions, with the trend as of the newest of these; no trend without times."""
    if found.trend is None or interactions.time is None:
        return dataclasses.replace(found, trend=None)
    newest, per_user = heat_per_user(interactions, found.trend.half_life)
    return dataclasses.replace(found, trend=dataclasses.replace(found.trend, newest=newest, per_user=per_user))


def tune_trend(later: MixScores, warm: MixScores, start: Tuning, sample: Sample) -> Tuning:
    """Finds the trend that best predicts the interactions after one time.

    Two rules preserve personal lists: the score on users' last interactions may fall by MAX_LOSS at most, and the
    smallest weight is taken whose score is ENOUGH of the best one's.
    """

    def score(scores: MixScores, shape: tuple[float, float], away: float | None, weight: float) -> np.ndarray:
        return scores.score(start.mix, scores.trend(shape, weight, away)).objective

    newness = TREND_NEWNESS if sample.created is not None else TREND_NEWNESS[:1]
    shapes = [(half_life, new) for new in newness for half_life in TREND_HALF_LIVES]
    scored = [score(later, shape, None, SHAPING_WEIGHT) for shape in shapes]
    shape = shapes[max(range(len(shapes)), key=lambda place: float(scored[place].mean()))]
    minimum = (1 - MAX_LOSS) * float(warm.score(start.mix).objective.mean())
    without = later.score(start.mix)
    found: dict[tuple[float, float | None], float] = {}
    for away in TREND_AWAY:
        for weight in TREND_WEIGHTS:
            objective = score(later, shape, away, weight)
            better = gains(objective, without.objective, TREND_ERRORS)
            if better and score(warm, shape, away, weight).mean() >= minimum:
                found[weight, away] = float(objective.mean())
    figures, tasks = {"later": _figures(without)}, {"later": later, "warm": warm}
    if not found:
        return _with_figures(start, figures)
    enough = ENOUGH * max(found.values())
    best = min((point for point in found if found[point] >= enough), key=lambda point: (point[0], -found[point]))
    with_trend = {name: scores.score(start.mix, scores.trend(shape, *best)) for name, scores in tasks.items()}
    figures |= {f"{name}_with_trend": _figures(score) for name, score in with_trend.items()}
    whole = make_trend(sample.interactions, sample.created, shape, *best)
    return _with_figures(dataclasses.replace(start, trend=whole), figures)


def _for_content(names: list[str]) -> list[str]:
    return [name for name in names if name not in NOT_CONTENT] or names


def _with_figures(found: Tuning, figures: Mapping[str, Any]) -> Tuning:
    return dataclasses.replace(found, validation={**found.validation, **figures})


def _figures(score: Score) -> dict[str, Any]:
    """Means; "users" counts a user once in every fold with a target."""
    means = {"recall": float(score.recall.mean()), "ndcg": float(score.ndcg.mean())}
    return {name: round(mean, 6) for name, mean in means.items()} | {"users": len(score.recall)}

"""Automatic tuning: every scale and weight of the embeddings, found on validation parts inside the training data.

    1. own factors and recency    the last fifth of each user's history
    2. decoded factors, content   posts in five folds, each told from content alone
    3. the mixing of the blocks   the last fifth again, among all posts

Each step is a coordinate descent over a small grid for recall@20 + nDCG@10 (`search.descend`). Where there is too
little to validate on (`tuning_tasks`), the defaults of `tuned` stay.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from transforms.sample import Block, Sample
from transforms.search import descend, gains
from transforms.tuned import Content, Decoded, Mix, Own, Tuning
from transforms.tuning_scores import DecodedScores, MixScores, OwnScores
from transforms.tuning_tasks import ColdTask, Score, WarmTask, cold_task, warm_task

NUM_FACTORS = 128
# When posts were made says what is likely to be liked, but neighbours in time are no content to put on a list.
NOT_CONTENT = frozenset({"time"})

OWN_K = (16, 24, 32, 48, 64, 96, 128, 192, 256)
OWN_L = (0.3, 1.0, 3.0, 10.0, 30.0)
OWN_C = (0.0, 0.15, 0.25)
RECENCY = (None, 1.0, 0.5, 0.25, 0.125, 0.0625)
DECODED: Mapping[str, tuple[Any, ...]] = {"k": (32, 64, 128), "e": (1.0, 1.5, 2.0), "lam": (3.0, 10.0, 30.0)}
WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0)
CONTENT_B = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
MIX = {
    "rho": (0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
    "aD": (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
    "n0": (0.0, 2.0, 5.0, 20.0),
    "delta": (0.0, 0.5, 1.0, 2.0),
}
# Modalities that are tried alone as a start.
_MAX_SINGLE = 12


def tune(sample: Sample, seed: int, num_factors: int = NUM_FACTORS) -> Tuning:
    """The best settings for the sample. Deterministic; `seed` only starts the factorisation.

    Args:
      num_factors: F, how many factors there will be; no k is larger.
    """
    content = {name: block for name, block in sample.content.items() if block.present.any()}
    warm, cold = warm_task(sample, num_factors, seed), cold_task(sample, num_factors, seed)
    own, half_life, figures = tune_own(warm, num_factors)
    decoded, chosen = default_blocks(sample, num_factors)
    if cold is not None and content:
        decoded, chosen, more = tune_content(cold, content, half_life, num_factors)
        figures |= more
    mix = Mix()
    if warm is not None:
        names = [*(["rho"] if chosen is not None else []), *(["aD"] if decoded is not None else []), "n0", "delta"]
        mix, more = tune_mix(MixScores(warm, content, own, half_life, decoded, chosen), names)
        figures |= more
    figures |= {"users": sample.interactions.num_users, "posts": sample.interactions.num_posts}
    return Tuning(own, half_life, decoded, chosen, mix, figures)


def default_blocks(sample: Sample, num_factors: int) -> tuple[Decoded | None, Content | None]:
    """What is taken without validation: every modality alike, and for content the one that most posts have."""
    names = [name for name in sample.content if sample.coverage[name] > 0]
    if not names:
        return None, None
    decoded = None
    if len(sample.interactions):
        decoded = Decoded(k=min(Decoded.k, num_factors), weights=dict.fromkeys(names, 1.0))
    modality = max(_for_content(names), key=lambda name: sample.coverage[name])
    return decoded, Content(modality)


def tune_own(task: WarmTask | None, num_factors: int) -> tuple[Own, float | None, dict[str, Any]]:
    """(own, recency, figures): the shape of the own block, and how fast interactions fade in profiles."""
    start = Own(k=min(Own.k, num_factors))
    if task is None:
        return start, None, {}
    scores = OwnScores(task)
    # Together: a k is only as good as its l.
    shapes = [(k, l) for k in OWN_K if k <= num_factors for l in OWN_L]  # noqa: E741

    def make(point: Mapping[str, Any]) -> Own:
        k, l = point["shape"]  # noqa: E741
        return Own(k, l, point["c"])

    found = descend(
        {"shape": shapes, "recency": RECENCY, "c": OWN_C},
        {"shape": (start.k, start.l), "recency": None, "c": start.c},
        lambda point: scores.score(make(point), point["recency"]).objective,
    )
    own, half_life = make(found.point), found.point["recency"]
    return own, half_life, {"own": _figures(scores.score(own, half_life))}


def tune_content(
    task: ColdTask, content: Mapping[str, Block], half_life: float | None, num_factors: int
) -> tuple[Decoded | None, Content, dict[str, Any]]:
    """(decoded, content, figures): the map from content to factors, and the content that stands beside them."""
    scores = DecodedScores(task, content, half_life)
    decoded = _tune_decoded(scores, list(content), num_factors)
    alone = {name: scores.score_content(name) for name in _for_content(list(content))}
    modality = max(alone, key=lambda name: float(alone[name].objective.mean()))
    both = scores.both(decoded, modality)
    found = descend({"b": CONTENT_B}, {"b": CONTENT_B[0]}, lambda point: both.score(point["b"]).objective)
    figures = {f"content.{name}": _figures(score) for name, score in alone.items()}
    if decoded is not None:
        figures["decoded"] = _figures(scores.score(decoded))
    figures["cold"] = _figures(both.score(found.point["b"]))
    return decoded, Content(modality, found.point["b"]), figures


def _tune_decoded(scores: DecodedScores, names: list[str], num_factors: int) -> Decoded | None:
    def make(point: Mapping[Any, Any]) -> Decoded:
        return Decoded(point["k"], point["e"], point["lam"], {name: point["weight", name] for name in names})

    def score(point: Mapping[Any, Any]) -> np.ndarray:
        found = scores.score(make(point)).objective
        return found if any(point["weight", name] for name in names) else np.zeros_like(found)

    default: dict[Any, Any] = {"k": min(Decoded.k, num_factors), "e": Decoded.e, "lam": Decoded.lam}
    alone = names[:_MAX_SINGLE] if len(names) > 1 else []
    starts = [default | {("weight", name): 1.0 for name in names}]
    starts += [default | {("weight", name): float(name == single) for name in names} for single in alone]
    reached = [score(start) for start in starts]
    best = max(range(len(starts)), key=lambda place: float(reached[place].mean()))
    start = starts[best] if gains(reached[best], reached[0]) else starts[0]
    grid: dict[Any, Any] = {("weight", name): WEIGHTS for name in names}
    grid |= {name: tuple(v for v in values if name != "k" or v <= num_factors) for name, values in DECODED.items()}
    found = descend(grid, start, score)
    return make(found.point) if found.score > 0 else None


def tune_mix(scores: MixScores, names: list[str]) -> tuple[Mix, dict[str, Any]]:
    """(mix, figures): how much each block counts; `names` are those of MIX that make a difference."""
    found = descend(
        {name: MIX[name] for name in names},
        dataclasses.asdict(Mix()),
        lambda point: scores.score(Mix(**point)).objective,
    )
    mix = Mix(**found.point)
    return mix, {"warm": _figures(scores.score(mix))}


def _for_content(names: list[str]) -> list[str]:
    return [name for name in names if name not in NOT_CONTENT] or names


def _figures(score: Score) -> dict[str, Any]:
    """Means; "users" counts a user in every fold where there is something to find."""
    means = {"recall": float(score.recall.mean()), "ndcg": float(score.ndcg.mean())}
    return {name: round(mean, 6) for name, mean in means.items()} | {"users": len(score.recall)}

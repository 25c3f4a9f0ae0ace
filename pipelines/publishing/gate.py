"""The gate: the decision to publish a run, from its evaluation and that of the last published run."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

# Measures in which a run must not be significantly worse.
MEASURES = ("recall@20", "ndcg@10")
OURS, POPULAR = "fusefeed", "popular"
# With fewer users the intervals are too wide to decide anything.
MIN_USERS = 30
# Half the width of a 95% interval in standard errors.
_HALF_WIDTH = 1.959964

Interval = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Decision:
    """Decision to publish a run or not.

    Attributes:
      passed: publish.
      reason: why not, or a note, in one line; "" if there is nothing to note.
      refused: the run is worse; with --no_gate it is published anyway.
    """

    passed: bool
    reason: str = ""
    refused: bool = False


def decide(
    evaluation: Mapping[str, Any] | None,
    last_published: Mapping[str, Any] | None,
    tolerance: float = 0.05,
    no_gate: bool = False,
) -> Decision:
    """Refuses a run that is worse than popularity, or than the last published one by more than `tolerance`.

    Worse means significantly worse: the 95% interval of the difference from popularity (of the same users) lies below
    0; the last run's measure less the tolerance is above ours by more than the 95% interval of their difference.

    Args:
      evaluation: evaluation.json of this run; None if there is none.
      last_published: that of the newest published run before it; None if there is none.
      tolerance: relative, in [0, 1].
      no_gate: publish in any case.
    """
    if not 0 <= tolerance <= 1:
        raise ValueError(f"gate_tolerance must be in [0, 1], got {tolerance}")
    nothing = nothing_to_compare(evaluation)
    if nothing or evaluation is None:
        return Decision(True, f"the gate compared nothing: {nothing}")
    reason = worse_than_popularity(evaluation) or worse_than_before(evaluation, last_published, tolerance)
    if reason:
        return Decision(no_gate, f"{reason}; published anyway (--no_gate)" if no_gate else reason, True)
    return Decision(True, not_comparable(evaluation, last_published))


def nothing_to_compare(evaluation: Mapping[str, Any] | None) -> str:
    """Reason why an evaluation has no measurements to compare; "" if it has."""
    if evaluation is None:
        return "no backtest was run (--no_evaluate)"
    if "methods" not in evaluation:
        return "; ".join(evaluation.get("notes", [])) or "nothing was measured"
    users = evaluation["about"]["users"]
    return f"only {users} test users, fewer than {MIN_USERS}" if users < MIN_USERS else ""


def worse_than_popularity(evaluation: Mapping[str, Any]) -> str:
    """The measure in which the run is significantly worse than popularity; "" if in none."""
    methods = evaluation["methods"]
    for name in MEASURES:
        if methods[POPULAR]["lead"][name]["high"] < 0:
            ours, theirs = (methods[method]["measures"][name]["mean"] for method in (OURS, POPULAR))
            return f"worse than popularity: {name} {ours:.4f}, popularity {theirs:.4f}"
    return ""


def not_comparable(evaluation: Mapping[str, Any], last: Mapping[str, Any] | None) -> str:
    """Reason why the run cannot be compared with the last published one; "" if it can or if there is none."""
    if last is None:
        return ""
    nothing = nothing_to_compare(last)
    if nothing:
        return f"not compared with the last published run: {nothing}"
    ours, theirs = (
        tuple(one["split"].get(key) for key in ("kind", "fraction", "days", "seed", "cold_posts"))
        for one in (evaluation, last)
    )
    return "" if ours == theirs else "not compared with the last published run: its backtest used another split"


def worse_than_before(evaluation: Mapping[str, Any], last: Mapping[str, Any] | None, tolerance: float) -> str:
    """The measure in which the run is worse than the last published one by more than the tolerance; "" if in none."""
    if last is None or not_comparable(evaluation, last):
        return ""
    for name in MEASURES:
        now, before = (one["methods"][OURS]["measures"][name] for one in (evaluation, last))
        allowed = (1 - tolerance) * before["mean"]
        if allowed - now["mean"] > noise_of(now, before, 1 - tolerance):
            return (
                f"worse than the last published run ({last.get('run', 'unnamed')}) by more than "
                f"{tolerance:.0%}: {name} {now['mean']:.4f}, before {before['mean']:.4f}"
            )
    return ""


def noise_of(now: Interval, before: Interval, share: float = 1) -> float:
    """Half the 95% interval of the difference between a mean and `share` times an independent one."""
    return _HALF_WIDTH * math.hypot(standard_error(now), share * standard_error(before))


def standard_error(interval: Interval) -> float:
    """The standard error of a mean with this 95% interval."""
    return (interval["high"] - interval["low"]) / (2 * _HALF_WIDTH)

import copy
from typing import Any

import pytest

from pipelines.publishing.gate import decide


def interval(mean: float, half: float = 0.01) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def evaluation(
    recall: float = 0.2, popular: float = 0.1, half: float = 0.01, run: str = "2026-01-30"
) -> dict[str, Any]:
    def measures(mean: float) -> dict[str, Any]:
        return {"recall@20": interval(mean, half), "ndcg@10": interval(mean, half)}

    return {
        "run": run,
        "split": {"kind": "time", "fraction": 0.2, "days": 0.0, "seed": 0, "cut": run},
        "about": {"users": 500},
        "methods": {
            "fusefeed": {"measures": measures(recall)},
            "popular": {"measures": measures(popular), "lead": measures(recall - popular)},
        },
    }


def change(value: dict[str, Any], *path: str, to: Any) -> dict[str, Any]:
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return changed


@pytest.mark.parametrize(
    ("now", "before", "passed"),
    [
        (evaluation(0.2), None, True),
        (evaluation(0.2, 0.1), evaluation(0.2), True),
        (evaluation(0.08, 0.1), None, False),  # worse than popularity
        (evaluation(0.095, 0.1), None, True),  # within noise
        (evaluation(0.2), evaluation(0.24), False),
        (evaluation(0.2), evaluation(0.215), True),  # within 5% and noise
        (evaluation(0.2, half=1e-6), evaluation(0.2104), True),  # within 5% alone
        (evaluation(0.2, half=1e-6), evaluation(0.2107, half=1e-6), False),
        (evaluation(0.2, half=0.05), evaluation(0.24, half=0.05), True),  # within noise alone
        (evaluation(0.3), evaluation(0.2), True),
    ],
)
def test_the_gate(now: dict[str, Any], before: dict[str, Any] | None, passed: bool) -> None:
    decision = decide(now, before)
    assert (decision.passed, decision.refused) == (passed, not passed)
    assert bool(decision.reason) != passed
    assert "\n" not in decision.reason
    overridden = decide(now, before, no_gate=True)
    assert overridden.passed and overridden.refused != passed
    assert overridden.reason.endswith("(--no_gate)") != passed


def test_either_measure_can_refuse() -> None:
    worse = change(evaluation(), "methods", "popular", "lead", "ndcg@10", to=interval(-0.05))
    assert decide(worse, None).reason.startswith("worse than popularity: ndcg@10 ")
    worse = change(evaluation(), "methods", "fusefeed", "measures", "ndcg@10", to=interval(0.1))
    reason = decide(worse, evaluation(run="2026-01-29")).reason
    assert reason == "worse than the last published run (2026-01-29) by more than 5%: ndcg@10 0.1000, before 0.2000"


def test_the_tolerance_is_what_is_asked_for() -> None:
    now, before = evaluation(0.18, half=1e-6), evaluation(0.2, half=1e-6)
    assert decide(now, before, tolerance=0.11).passed
    assert not decide(now, before, tolerance=0.09).passed
    with pytest.raises(ValueError, match=r"gate_tolerance must be in \[0, 1\], got 2"):
        decide(now, before, tolerance=2)


def test_nothing_to_compare_passes_with_a_note() -> None:
    for nothing, why in (
        (None, "no backtest was run (--no_evaluate)"),
        ({"run": "r", "split": {}, "notes": ["nothing lies before the cut"]}, "nothing lies before the cut"),
        (change(evaluation(0.01), "about", "users", to=29), "only 29 test users, fewer than 30"),
    ):
        decision = decide(nothing, evaluation())
        assert decision.passed and not decision.refused
        assert decision.reason == f"the gate compared nothing: {why}"


def test_another_split_is_no_measure() -> None:
    for last in (
        change(evaluation(0.9), "split", "kind", to="user"),
        change(evaluation(0.9), "split", "fraction", to=0.1),
        change(evaluation(0.9), "split", "cold_posts", to={"posts": 3, "digest": "a"}),
        change(evaluation(0.9), "about", "users", to=3),
    ):
        decision = decide(evaluation(0.2), last)
        assert decision.passed and decision.reason.startswith("not compared with the last published run: ")
    assert decide(evaluation(0.2), change(evaluation(0.2), "split", "cut", to="another day")).reason == ""

"""Collection of the step counters of a stage's pipelines."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apache_beam.runners.runner import PipelineResult

Steps = dict[str, dict[str, int]]
_gathered: contextvars.ContextVar[Steps | None] = contextvars.ContextVar("steps", default=None)


@contextlib.contextmanager
def gather() -> Iterator[Steps]:
    """Gives a dict, label -> counter -> number, that `add` fills while the block runs."""
    steps: Steps = {}
    token = _gathered.set(steps)
    try:
        yield steps
    finally:
        _gathered.reset(token)


def add(result: "PipelineResult") -> None:
    """Adds the counters of a finished pipeline; steps with the same label are summed over pipelines."""
    from transforms.tables import step_metrics

    steps = _gathered.get()
    if steps is None:
        return
    for label, counters in step_metrics.read_steps(result).items():
        before = steps.setdefault(label, dict.fromkeys(counters, 0))
        for name, number in counters.items():
            before[name] += number

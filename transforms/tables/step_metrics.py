"""Input, output and cost of every step as Beam metrics, available during and after the run.

Metrics count attempts: a retried bundle counts twice. Exact counts are in `counts`.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.runners.runner import PipelineResult
from apache_beam.utils.windowed_value import WindowedValue

from transforms.tables.spill import SpilledPiece

NAMESPACE = "fusefeed"
# Elements are blocks, mostly. Time is that of the step itself, without the steps that its output goes to.
COUNTERS = ("elements_in", "rows_in", "bytes_in", "elements_out", "rows_out", "bytes_out", "rejects", "milliseconds")
REJECTS = "rejects"  # the tag of reject rows, everywhere
_LIBRARIES = ("apache_beam", "tensorflow_transform", "tfx_bsl")
_NANOSECONDS = 1_000_000
# The composite transform that `with_outputs` makes of a single step.
_WithOutputs = type(beam.Map(len).with_outputs())


def meter(pipeline: beam.Pipeline) -> None:
    """Adds the counters in COUNTERS, under its label, to each of the project's ParDos in a pipeline before it runs.

    Steps inside transforms of libraries (Reshuffle, the analyzers of tensorflow-transform) are left as they are. A DoFn
    of ours must not use parameters that Beam fills in (`beam.DoFn.TimestampParam`, state, timers).
    """
    pipeline.visit(_Meter())


def read_steps(result: PipelineResult) -> dict[str, dict[str, int]]:
    """Step metrics of a finished pipeline: label -> counter -> number; empty if the runner has no metrics."""
    try:
        counters = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]
    except NotImplementedError:
        return {}
    steps: dict[str, dict[str, int]] = {}
    for each in counters:
        if each.key.metric.name in COUNTERS:
            steps.setdefault(each.key.step, dict.fromkeys(COUNTERS, 0))[each.key.metric.name] = int(each.result)
    return steps


def size(element: Any) -> tuple[int, int]:
    """(rows, bytes) of an element: of the blocks, arrays and bytes in it, at any nesting depth."""
    if isinstance(element, pa.RecordBatch):
        return element.num_rows, element.nbytes
    if isinstance(element, np.ndarray):
        return 0, element.nbytes
    if isinstance(element, bytes | str):
        return 0, len(element)
    if isinstance(element, SpilledPiece):
        return 0, element.num_bytes
    if isinstance(element, Mapping):
        element = element.values()
    elif not isinstance(element, tuple | list):
        return 0, 0
    rows = num_bytes = 0
    for each in element:
        more_rows, more_bytes = size(each)
        rows, num_bytes = rows + more_rows, num_bytes + more_bytes
    return rows, num_bytes


class _Meter(PipelineVisitor):
    """Wraps the DoFn of every step that is part of a composite transform of ours."""

    def visit_transform(self, transform_node: AppliedPTransform) -> None:
        step = transform_node.transform
        if isinstance(step, beam.ParDo) and not _of_library(transform_node.parent):
            step.fn = step.dofn = _Metered(step.fn)


def _of_library(node: AppliedPTransform | None) -> bool:
    if node is not None and isinstance(node.transform, _WithOutputs):
        node = node.parent
    return node is not None and type(node.transform).__module__.split(".")[0] in _LIBRARIES


class _Metered(beam.DoFn):
    """Wraps another DoFn and counts its elements."""

    def __init__(self, fn: beam.DoFn) -> None:
        self.fn = fn
        self.counters = {name: Metrics.counter(NAMESPACE, name) for name in COUNTERS}
        self.nanoseconds = 0

    def setup(self) -> None:
        self.fn.setup()

    def start_bundle(self) -> None:
        self.fn.start_bundle()

    def process(self, element: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        self._count("in", element)
        return self._outputs(lambda: self.fn.process(element, *args, **kwargs))

    def finish_bundle(self) -> Iterator[Any]:
        return self._outputs(self.fn.finish_bundle)

    def teardown(self) -> None:
        self.fn.teardown()

    def _outputs(self, call: Callable[[], Iterable[Any] | None]) -> Iterator[Any]:
        """The outputs of a call, counted; time that downstream steps take between two of them is excluded."""
        began = time.monotonic_ns()
        for output in call() or ():
            self._spend(began)
            self._count("out", output)
            yield output
            began = time.monotonic_ns()
        self._spend(began)

    def _count(self, way: str, element: Any) -> None:
        tag = None
        if isinstance(element, beam.pvalue.TaggedOutput):
            tag, element = element.tag, element.value
        if isinstance(element, WindowedValue):
            element = element.value
        rows, num_bytes = size(element)
        self.counters[f"elements_{way}"].inc()
        self.counters[f"rows_{way}"].inc(rows)
        self.counters[f"bytes_{way}"].inc(num_bytes)
        if tag == REJECTS:
            self.counters["rejects"].inc(rows)

    def _spend(self, began: int) -> None:
        milliseconds, self.nanoseconds = divmod(self.nanoseconds + time.monotonic_ns() - began, _NANOSECONDS)
        self.counters["milliseconds"].inc(milliseconds)

"""Concurrent processing of elements: pyarrow and numpy release the GIL, while a bundle alone uses one core."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any, TypeVar, cast

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

NUM_THREADS = min(2, os.cpu_count() or 1)
_T = TypeVar("_T")


def ahead(source: Iterator[_T]) -> Iterator[_T]:
    """The items of `source`, prefetched by one in a thread; up to two are in memory."""
    end = object()
    with futures.ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, source, end)
        while (made := coming.result()) is not end:
            coming = pool.submit(next, source, end)
            yield cast(_T, made)


class FlatMapInThreads(beam.DoFn):
    """As `beam.FlatMap(function, **arguments)` for elements in the global window; declare the output type with
    `with_output_types`.

    Processes up to NUM_THREADS elements concurrently, with outputs in input order. These elements and their outputs are
    in memory, so elements have to be of bounded size. No Beam metrics in the function: a thread has none.
    """

    def __init__(self, function: Callable[..., Iterable[Any]], **arguments: Any) -> None:
        super().__init__()
        self._function = function
        self._arguments = arguments

    def default_label(self) -> str:
        """The function's name, as `beam.FlatMap` has it."""
        return self._function.__name__

    def start_bundle(self) -> None:
        """Starts the threads."""
        self._pool = futures.ThreadPoolExecutor(NUM_THREADS)
        self._held: collections.deque[futures.Future[list[Any]]] = collections.deque()

    def process(self, element: Any) -> Iterator[Any]:
        """Submits the element to a thread and yields finished outputs, waiting if too many are pending."""
        self._held.append(self._pool.submit(self._call, element))
        while self._held and (len(self._held) > NUM_THREADS or self._held[0].done()):
            yield from self._held.popleft().result()

    def _call(self, element: Any) -> list[Any]:
        return list(self._function(element, **self._arguments))

    def finish_bundle(self) -> Iterator[Any]:
        """Yields the remaining outputs."""
        while self._held:
            for value in self._held.popleft().result():
                yield _in_window(value)
        self._pool.shutdown()


def _in_window(value: Any) -> Any:
    if isinstance(value, pvalue.TaggedOutput):
        return pvalue.TaggedOutput(value.tag, _in_window(value.value))
    return WindowedValue(value, MIN_TIMESTAMP, (GlobalWindow(),))

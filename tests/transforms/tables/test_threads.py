import threading
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam import pvalue
from apache_beam.testing.util import assert_that, equal_to

from transforms.tables import threads

NewPipeline = Callable[[], beam.Pipeline]


def _halves(number: int, more: int) -> Iterator[Any]:
    yield number // 2 + more
    if number % 2:
        yield pvalue.TaggedOutput("odd", number)


def test_all_outputs_come_in_their_windows(new_pipeline: NewPipeline) -> None:
    with new_pipeline() as pipeline:
        found = (
            pipeline
            | beam.Create(range(20), reshuffle=False)
            | beam.ParDo(threads.FlatMapInThreads(_halves, more=1)).with_outputs("odd", main="halves")
        )
        # Grouping fails where an element has no window.
        halves = found.halves | beam.WithKeys(0) | "GroupHalves" >> beam.GroupByKey() | beam.MapTuple(lambda _, v: [*v])
        assert_that(halves, equal_to([[n // 2 + 1 for n in range(20)]]), label="HalvesInOrder")
        assert_that(found.odd, equal_to(list(range(1, 20, 2))), label="Odd")


def test_elements_are_worked_on_together_and_few_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "NUM_THREADS", 2)
    together, begun = threading.Barrier(2, timeout=30), []

    def meet(number: int) -> list[int]:
        begun.append(number)
        together.wait()
        return [number]

    work = threads.FlatMapInThreads(meet)
    work.start_bundle()
    given = []
    for number in range(8):
        given += list(work.process(number))
        assert number + 1 - len(given) <= 2
    rest = [value.value for value in work.finish_bundle()]
    assert given + rest == list(range(8)) and sorted(begun) == list(range(8))


def test_an_error_in_a_thread_is_the_bundles() -> None:
    def divide(number: int) -> list[float]:
        return [1 / number]

    work = threads.FlatMapInThreads(divide)
    work.start_bundle()
    with pytest.raises(ZeroDivisionError):
        list(work.process(0))
        list(work.finish_bundle())


def test_ahead_gives_the_same_and_makes_one_more_than_is_worked_on() -> None:
    made, worked_on = [], threading.Event()

    def source() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            if number == 1:
                worked_on.set()
            yield number

    given = []
    for number in threads.ahead(source()):
        if number == 0:
            assert worked_on.wait(timeout=30)  # the next is made while this one is worked on
        given.append(number)
        assert len(made) <= number + 2
    assert given == [0, 1, 2, 3]


def test_an_error_ahead_comes_after_what_was_made() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    coming = threads.ahead(source())
    assert next(coming) == 1
    with pytest.raises(OSError, match="gone"):
        next(coming)

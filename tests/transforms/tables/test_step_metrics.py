import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability import fn_api_runner
from apache_beam.testing.util import assert_that, equal_to

from transforms.tables import blocks, shuffle, step_metrics

BLOCKS = [pa.record_batch({"id": ["a", "b", "c"]}), pa.record_batch({"id": ["a", "d"]})]


class Repeat(beam.DoFn):
    """Gives a block as often as the side input says, and the rows with an "a" as rejects; sleeps 20 ms."""

    def setup(self) -> None:
        self.in_bundle = 0

    def start_bundle(self) -> None:
        self.in_bundle = 0

    def process(self, block: pa.RecordBatch, times: int) -> Iterator[Any]:
        time.sleep(0.02)
        self.in_bundle += 1
        for _ in range(times):
            yield block
        yield beam.pvalue.TaggedOutput("rejects", block.slice(0, 1))

    def finish_bundle(self) -> Iterator[Any]:
        number = beam.utils.windowed_value.WindowedValue(self.in_bundle, -1, [beam.window.GlobalWindow()])
        yield beam.pvalue.TaggedOutput("seen", number)


class Double(beam.PTransform):
    def expand(self, rows: beam.PCollection) -> Any:
        times = rows.pipeline | "Times" >> beam.Create([2])
        return rows | "Repeat" >> beam.ParDo(Repeat(), beam.pvalue.AsSingleton(times)).with_outputs(
            "rejects", "seen", main="rows"
        )


@pytest.fixture(scope="module")
def steps() -> dict[str, dict[str, int]]:
    """The counters of a pipeline that has run, its outputs checked."""
    pipeline = beam.Pipeline(runner=fn_api_runner.FnApiRunner())
    made = pipeline | beam.Create(BLOCKS) | "Double" >> Double()
    grouped = made.rows | shuffle.GroupBlocks("id", 1) | "Block" >> beam.Map(lambda part: part[1])
    assert_that(grouped | "Rows" >> beam.Map(lambda block: block.num_rows), equal_to([10]), "rows")
    assert_that(made.rejects | "Ids" >> beam.FlatMap(_ids), equal_to(["a", "a"]), "rejects")
    assert_that(made.seen | beam.CombineGlobally(sum), equal_to([2]), "the bundles of a step begin and end")
    slow = grouped | "Slow" >> beam.Map(lambda block: time.sleep(0.05))
    assert_that(slow, equal_to([None]), "slow")
    step_metrics.meter(pipeline)
    result = pipeline.run()
    result.wait_until_finish()
    return step_metrics.read_steps(result)


def _ids(block: pa.RecordBatch) -> list[str]:
    ids: list[str] = block.column("id").to_pylist()
    return ids


def test_a_step_counts_rows_bytes_and_rejects(steps: dict[str, dict[str, int]]) -> None:
    [label] = [each for each in steps if each.startswith("Double/Repeat")]
    repeat = steps[label]
    assert (repeat["elements_in"], repeat["rows_in"]) == (2, 5)
    assert repeat["bytes_in"] == sum(block.nbytes for block in BLOCKS)
    assert repeat["rejects"] == 2
    assert repeat["rows_out"] == 2 * 5 + 2
    assert repeat["bytes_out"] == 2 * repeat["bytes_in"] + sum(block.slice(0, 1).nbytes for block in BLOCKS)


def test_what_a_shuffle_sends_is_counted_in_bytes(steps: dict[str, dict[str, int]]) -> None:
    sent = 2 * sum(len(blocks.to_ipc(block)) for block in BLOCKS)
    assert steps["GroupBlocks/SplitByKey"]["bytes_out"] == sent
    assert steps["GroupBlocks/Concat"]["rows_out"] == 10


def test_time_is_that_of_the_step_alone(steps: dict[str, dict[str, int]]) -> None:
    [repeat] = [counters for label, counters in steps.items() if label.startswith("Double/Repeat")]
    assert repeat["milliseconds"] >= 40
    assert steps["Slow"]["milliseconds"] >= 50
    # What comes before does not count the sleep of what comes after it in the same bundle.
    assert steps["Block"]["milliseconds"] < steps["Slow"]["milliseconds"]


def test_steps_of_libraries_are_left_out(steps: dict[str, dict[str, int]]) -> None:
    assert not [label for label in steps if "CombineGlobally" in label or "Create" in label]


def test_no_step_uses_parameters_that_the_counting_does_not_hand_on() -> None:
    folder = Path(step_metrics.__file__).parents[1]
    users = [path.name for path in folder.rglob("*.py") if re.search(r"DoFn\.\w+Param\b", path.read_text())]
    assert users == ["step_metrics.py"]  # its docstring


def test_size_counts_what_is_nested() -> None:
    nested = {"part": (3, BLOCKS[0]), "sums": [np.zeros((4, 2), np.float32), b"abc"], "none": None}
    assert step_metrics.size(nested) == (3, BLOCKS[0].nbytes + 32 + 3)

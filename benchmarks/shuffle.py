"""Interactions grouped by user through the block shuffle of a Beam pipeline, beside pyarrow's group_by in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.harness import OURS, Benchmark, Facts, Ratio, Run, Side, size

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 10_000_000
BLOCK_ROWS = 100_000
AGGREGATES = [("post_id", "list"), ("created_at", "max")]
# The workers are threads of this process: the elements of the pipeline are numbers of blocks that lie here.
_blocks: "list[pa.RecordBatch]" = []
_totals: list[Facts] = []


def prepare(folder: Path, scale: float) -> Mapping[str, int]:
    """One Parquet file of interactions."""
    import pyarrow.parquet as pq

    number = size(ROWS, scale, least=1000)
    users = size(number, 1 / 50)
    pq.write_table(data.interactions(number, users, users), folder / "interactions.parquet")
    return {"interactions": number, "users": users}


def ours(folder: Path) -> Run:
    """GroupBlocks in a pipeline of the stages' runner, then pyarrow's group_by within each part."""
    import apache_beam as beam
    import pyarrow as pa

    from pipelines.command_line.options import Options
    from pipelines.stage import runner
    from pipelines.stage.part_sizes import ROWS_PER_PART
    from transforms.tables import shuffle

    table = _load(folder)
    _blocks.extend(table.to_batches(BLOCK_ROWS))
    num_parts = max(1, table.num_rows // ROWS_PER_PART)

    def run() -> Facts:
        _totals.clear()
        with runner.new_pipeline(Options(output=str(folder))) as root:
            _ = (
                root
                | beam.Create(range(len(_blocks)))
                | "Block" >> beam.Map(_block).with_output_types(pa.RecordBatch)
                | shuffle.GroupBlocks("user_id", num_parts)
                | "GroupByUser" >> beam.Map(_group)
            )
        return {name: sum(total[name] for total in _totals) for name in ("users", "rows", "sum")}

    return run


def _block(number: int) -> "pa.RecordBatch":
    return _blocks[number]


def _group(part: "tuple[int, pa.RecordBatch]") -> None:
    import pyarrow as pa

    _totals.append(_facts(pa.Table.from_batches([part[1]])))


def pyarrow(folder: Path) -> Run:
    """group_by of the whole table, with pyarrow's threads."""
    table = _load(folder)
    return lambda: _facts(table)


def _load(folder: Path) -> "pa.Table":
    import pyarrow.parquet as pq

    return pq.read_table(folder / "interactions.parquet")


def _facts(table: "pa.Table") -> Facts:
    """Users, rows and the sum of each user's latest time, computed from the grouping."""
    import pyarrow as pa
    import pyarrow.compute as pc

    grouped = table.group_by("user_id").aggregate(AGGREGATES)
    rows = pc.sum(pc.list_value_length(grouped["post_id_list"])).as_py()
    latest = pc.sum(pc.divide(grouped["created_at_max"].cast(pa.int64()), 1_000_000)).as_py()
    return {"users": grouped.num_rows, "rows": rows, "sum": latest}


BENCHMARK = Benchmark(
    name="shuffle",
    title="interactions grouped by user through the block shuffle",
    prepare=prepare,
    sides=(Side(OURS, ours), Side("pyarrow", pyarrow)),
    ratios=(
        Ratio("time", against=("pyarrow",), at_most=3.0),
        Ratio("peak", at_most=3.0, full_scale_only=True),
    ),
    agree=("users", "rows", "sum"),
)

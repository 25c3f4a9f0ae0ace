"""Few rows of a run's tables, for its summary; read a row group at a time."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transforms.tables import files

if TYPE_CHECKING:
    import pyarrow as pa


def reject_codes(directory: str, inputs: Mapping[str, str]) -> dict[str, Counter[str]]:
    """Input -> how many of its rows were rejected with each code, from rejects/ingest.

    Args:
      directory: of the run.
      inputs: path of a file -> the input that it belongs to.
    """
    import pyarrow as pa

    found: dict[str, Counter[str]] = {name: Counter() for name in inputs.values()}
    for block in _row_groups(files.join(directory, "rejects", "ingest"), ["source", "code"]):
        counted = pa.Table.from_batches([block]).group_by(["source", "code"]).aggregate([([], "count_all")])
        for row in counted.to_pylist():
            if row["source"] in inputs:
                found[inputs[row["source"]]][row["code"]] += row["count_all"]
    return found


def first_recommendations(directory: str, number: int) -> list[dict[str, Any]]:
    """The first recommendation of so many users or fewer, spread over the first row group of recommendations/."""
    import pyarrow.compute as pc

    columns = ["user_id", "rank", "post_id", "reason", "because_post_id"]
    block = next(_row_groups(files.join(directory, "recommendations"), columns), None)
    if block is None:
        return []
    best = block.filter(pc.equal(block.column("rank"), 1))
    number = min(number, best.num_rows)
    rows: list[dict[str, Any]] = best.take([place * best.num_rows // number for place in range(number)]).to_pylist()
    return rows


def texts(directory: str, post_ids: Collection[str]) -> dict[str, str | None]:
    """Texts of a few posts, by id; of the other posts only the ids are read, and the row groups that have one."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from transforms.tables import parquet

    wanted = pa.array(sorted(post_ids), pa.string())
    found: dict[str, str | None] = {}
    for path in parquet.list_files(files.join(directory, "posts")):
        ids = parquet.read_file(path, ["post_id"]).column("post_id")
        rows = np.flatnonzero(pc.is_in(ids, value_set=wanted).to_numpy(zero_copy_only=False))
        for _, block in parquet.read_row_groups(path, rows, rows + 1, ["post_id", "text"]):
            chosen = block.filter(pc.is_in(block.column("post_id"), value_set=wanted))
            found.update(zip(chosen.column("post_id").to_pylist(), chosen.column("text").to_pylist(), strict=True))
        if len(found) == len(wanted):
            break
    return found


def _row_groups(directory: str, columns: Sequence[str]) -> "Iterator[pa.RecordBatch]":
    import numpy as np

    from transforms.tables import parquet

    first, last = np.array([0]), np.array([np.iinfo(np.int64).max])
    for path in parquet.list_files(directory):
        for _, block in parquet.read_row_groups(path, first, last, columns):
            yield block

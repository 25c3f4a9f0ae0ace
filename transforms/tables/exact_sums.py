"""Order-independent sums of weights by post: fixed-point, in whole numbers of a small unit."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_UNIT = 2.0**-32

SCHEMA = pa.schema([pa.field("post_id", pa.string(), nullable=False), pa.field("units", pa.int64(), nullable=False)])


def sum_by_post(post_id: pa.Array, weight: np.ndarray) -> pa.RecordBatch:
    """Sums of [n] weights by post, a block of SCHEMA: each post once. A sum may be up to 2^31."""
    units = pa.array(np.rint(weight / _UNIT).astype(np.int64))
    return merge(pa.RecordBatch.from_arrays([post_id, units], schema=SCHEMA))


def merge(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The block of SCHEMA with the sums of each post, one row per post."""
    sums = pa.table(rows).group_by("post_id").aggregate([("units", "sum")])
    return pa.RecordBatch.from_arrays(
        [sums.column(name).combine_chunks() for name in ("post_id", "units_sum")], schema=SCHEMA
    )


def totals(post_id: pa.Array, rows: pa.RecordBatch) -> np.ndarray:
    """The sums of these posts, [n] float64, 0 for those that are not in `rows` (a block of SCHEMA)."""
    sums = merge(rows)
    units = sums.column("units").take(pc.index_in(post_id, value_set=sums.column("post_id")))
    found: np.ndarray = pc.fill_null(units, 0).to_numpy(zero_copy_only=False) * _UNIT
    return found

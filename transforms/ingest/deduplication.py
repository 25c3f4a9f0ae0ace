"""Removal of duplicate rows; the result does not depend on the order in which they arrive."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.ingest.canonical import SEQUENCE, Table


def dedupe(table: Table, block: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of a part in the table's schema and order, without duplicates.

    Of rows that are equal in `table.same` the one with the newest `created_at` remains (null is oldest), and of those
    the one that was read last (files in the order of their paths, then lines).
    """
    rows = last_of_same(table, block)
    # Only the columns of the order are copied twice.
    keys = block.select(list(table.order)).take(pa.array(rows))
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in table.order]).to_numpy()
    ordered = block.select(table.schema.names).take(pa.array(rows[order]))
    return pa.RecordBatch.from_arrays(ordered.columns, schema=table.schema)


def last_of_same(table: Table, block: pa.RecordBatch) -> np.ndarray:
    """Indices of the rows without duplicates, ascending: int64."""
    codes = [_codes(block.column(name)) for name in table.same]
    groups = codes[0]
    for more in codes[1:]:
        groups = np.unique(groups * (int(more.max(initial=0)) + 1) + more, return_inverse=True)[1]
    if len(groups) == 0 or pc.count_distinct(pa.array(groups)).as_py() == len(groups):
        return np.arange(len(groups))
    order = np.lexsort((block.column(SEQUENCE).to_numpy(), *_times(block), groups))
    last = np.append(np.diff(groups[order]) != 0, True)
    return np.sort(order[last])


def _codes(column: pa.Array) -> np.ndarray:
    """Numbers that are equal where the values are (null equals null): [n] int64."""
    encoded = pc.dictionary_encode(column, null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _times(block: pa.RecordBatch) -> list[np.ndarray]:
    if "created_at" not in block.schema.names:
        return []
    times = block.column("created_at").cast(pa.int64())
    return [pc.fill_null(times, np.iinfo(np.int64).min).to_numpy(zero_copy_only=False)]

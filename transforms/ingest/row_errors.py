"""Errors of rows, and the rejects made of them."""

import numpy as np
import pyarrow as pa

from transforms.tables import rejects

STAGE = "ingest"


class RowErrors:
    """Error of each row. Of several faults the one with the lowest rank stands, of those the first found.

    The ranks are what makes a row's code the same on whatever road its faults were found: -2 for what is to be
    forgotten, -1 for the line as a whole, then the columns in the order of the table.
    """

    def __init__(self, num_rows: int) -> None:
        self.faults = np.zeros(num_rows, np.int16)
        self.ranks = np.full(num_rows, np.iinfo(np.int16).max, np.int16)
        self.causes: list[tuple[str, str]] = [("", "")]

    @property
    def good(self) -> np.ndarray:
        """Mask of the rows without a fault: [n] bool."""
        return self.faults == 0

    def reject(self, bad: np.ndarray, code: str, message: str, rank: int = -1) -> None:
        """Marks the rows that are bad ([n] bool)."""
        if bad.any():
            worse = bad & (self.ranks > rank)
            self.faults[worse] = self._cause(code, message)
            self.ranks[worse] = rank

    def reject_row(self, row: int, code: str, message: str) -> None:
        """Marks one row as a whole."""
        self.faults[row] = self._cause(code, message)
        self.ranks[row] = -1

    def _cause(self, code: str, message: str) -> int:
        if (code, message) not in self.causes:
            self.causes.append((code, message))
        return self.causes.index((code, message))

    def to_block(self, source: str, numbers: np.ndarray, ids: pa.Array | None, by_record: bool) -> pa.RecordBatch:
        """The rejects: `numbers` ([n] int64) are records or lines, `ids` the rows' ids as far as they are known."""
        rows = np.flatnonzero(~self.good)
        causes = [self.causes[fault] for fault in self.faults[rows]]
        where = pa.array(numbers[rows], pa.int64())
        return rejects.reject_block(
            source=[source] * len(rows),
            stage=STAGE,
            code=[code for code, _ in causes],
            message=[message for _, message in causes],
            line=None if by_record else where,
            record=where.cast(pa.string()) if by_record else None,
            id=None if ids is None else ids.take(pa.array(rows)),
        )

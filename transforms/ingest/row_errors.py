"""Errors of rows, and the rejects made of them."""

import numpy as np
import pyarrow as pa

from transforms.tables import rejects

STAGE = "ingest"


class RowError(Exception):
    """One row cannot be used; its arguments are the reject code and the message."""


class RowErrors:
    """Error of each row: of several the one with the lowest rank, of those the first found.

    The rank makes a row's code independent of the order in which its errors are found: -2 for rows to erase, -1 for the
    line as a whole, then the columns in the order of the table.
    """

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows
        self._errors = np.zeros(num_rows, np.int16)
        self._ranks = np.full(num_rows, np.iinfo(np.int16).max, np.int16)
        # (code, message) -> its number in _errors
        self._numbers: dict[tuple[str, str], int] = {("", ""): 0}

    @property
    def good(self) -> np.ndarray:
        """Mask of the rows without an error: [n] bool."""
        return self._errors == 0

    def reject(self, bad: np.ndarray, code: str, message: str, rank: int = -1) -> None:
        """Marks the rows that are bad ([n] bool)."""
        if bad.any():
            worse = bad & (self._ranks > rank)
            self._errors[worse] = self._number(code, message)
            self._ranks[worse] = rank

    def reject_row(self, row: int, code: str, message: str) -> None:
        """Marks one row as a whole."""
        self._errors[row] = self._number(code, message)
        self._ranks[row] = -1

    def _number(self, code: str, message: str) -> int:
        return self._numbers.setdefault((code, message), len(self._numbers))

    def to_block(self, source: str, numbers: np.ndarray, ids: pa.Array | None, by_record: bool) -> pa.RecordBatch:
        """The rejects: `numbers` ([n] int64) are records or lines, `ids` the rows' ids as far as they are known."""
        rows = np.flatnonzero(~self.good)
        known = list(self._numbers)
        errors = [known[number] for number in self._errors[rows]]
        where = pa.array(numbers[rows], pa.int64())
        return rejects.reject_block(
            source=[source] * len(rows),
            stage=STAGE,
            code=[code for code, _ in errors],
            message=[message for _, message in errors],
            line=None if by_record else where,
            record=where.cast(pa.string()) if by_record else None,
            id=None if ids is None else ids.take(pa.array(rows)),
        )

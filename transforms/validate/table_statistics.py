"""Statistics of some rows of a table: some kilobytes, however many rows there are."""

import dataclasses
import typing
from collections.abc import Iterable, Mapping

from transforms.tables import counts
from transforms.validate import feature_moments
from transforms.validate.feature_moments import FeatureMoments

K = typing.TypeVar("K")


@dataclasses.dataclass
class TableStatistics:
    """Statistics of some rows of a table.

    Attributes:
      rows: their number.
      key_sum: the sum of the hashes of their keys modulo 2^64, the same for the same keys in any order.
      nulls: rows in which a column is null, or a list without elements.
      values: rows with each value of a column; null counts for none.
      moments: by modality, of the rows with it.
      norms: rows by bin of the norm of their embedding; norm 0 is in no bin.
      widths: of a column's vectors; several are a fault.
      faults: rows that violate the specification, by fault.
      latest: rows, values and moments of the rows of the last day; None where these are not separated.
    """

    rows: int = 0
    key_sum: int = 0
    nulls: dict[str, int] = dataclasses.field(default_factory=dict)
    values: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    moments: dict[str, FeatureMoments] = dataclasses.field(default_factory=dict)
    norms: dict[int, int] = dataclasses.field(default_factory=dict)
    widths: dict[str, set[int]] = dataclasses.field(default_factory=dict)
    faults: dict[str, int] = dataclasses.field(default_factory=dict)
    latest: "TableStatistics | None" = None


def merge(tables: Iterable[TableStatistics]) -> TableStatistics:
    """Statistics of all rows together."""
    total = TableStatistics()
    for one in tables:
        total.rows += one.rows
        total.key_sum = (total.key_sum + one.key_sum) % (1 << 64)
        total.nulls = sum_counts(total.nulls, one.nulls)
        total.norms = sum_counts(total.norms, one.norms)
        total.faults = sum_counts(total.faults, one.faults)
        for column, counted in one.values.items():
            total.values[column] = counts.field_counts(sum_counts(total.values.get(column, {}), counted))
        for column, widths in one.widths.items():
            total.widths[column] = total.widths.get(column, set()) | widths
        if one.latest is not None:
            total.latest = merge([total.latest or TableStatistics(), one.latest])
        for modality, moments in one.moments.items():
            if modality in total.moments and len(total.moments[modality].mean) != len(moments.mean):
                continue  # a fault: files with vectors of several widths
            found = [total.moments[modality]] if modality in total.moments else []
            total.moments[modality] = feature_moments.merge([*found, moments])
    return total


def sum_counts(one: Mapping[K, int], other: Mapping[K, int]) -> dict[K, int]:
    """Sums of two counts, by key."""
    return {key: one.get(key, 0) + other.get(key, 0) for key in [*one, *(key for key in other if key not in one)]}

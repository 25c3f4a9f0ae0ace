"""Statistics of a run, for the comparison with the next run: numbers and lists of numbers, as JSON."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from transforms.validate import norm_histogram
from transforms.validate.feature_moments import FeatureMoments
from transforms.validate.table_specs import TABLE_SPECS
from transforms.validate.table_statistics import TableStatistics

# Significant digits: sums in another order are equal.
DIGITS = 6


def statistics(found: Mapping[str, TableStatistics], made_with: Mapping[str, str]) -> dict[str, Any]:
    """Summary statistics of all tables.

    Returns:
      rows: of each table.
      nulls: by table and column, rows without a value, or with a list without elements.
      values: by table and column, rows with each value.
      modalities: by modality: `rows` that have it; `mean` and `deviation`, a number for each of its own.
      norms: by table of embeddings: `rows` with a norm above 0, and quantiles of their norms.
      latest: rows, values and modalities of the rows of the last day alone, where these are separated.
      made_with: settings that must be equal for two runs' statistics to be comparable, by modality or table.
    """
    latest = {name: table.latest for name, table in found.items() if table.latest is not None}
    return {
        **described(found),
        "nulls": {name: table.nulls for name, table in sorted(found.items()) if TABLE_SPECS[name].nulls},
        "norms": {name: _quantiles(table.norms) for name, table in sorted(found.items()) if TABLE_SPECS[name].norms},
        "latest": described(latest),
        "made_with": dict(sorted(made_with.items())),
    }


def described(found: Mapping[str, TableStatistics]) -> dict[str, Any]:
    """The `rows`, `values` and `modalities` of `statistics`, of some rows of the tables."""
    return {
        "rows": {name: table.rows for name, table in sorted(found.items())},
        "values": {name: table.values for name, table in sorted(found.items()) if TABLE_SPECS[name].counted},
        "modalities": {
            modality: describe(moments)
            for _, table in sorted(found.items())
            for modality, moments in sorted(table.moments.items())
        },
    }


def scalars(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(name, value) of what is one number in `statistics`, named as drift.compare does; shares are of 1."""
    for table, columns in found["nulls"].items():
        for column, number in columns.items():
            yield f"{table} without {column}", number / max(found["rows"][table], 1)
    for modality, one in found["modalities"].items():
        yield f"posts with {modality}", one["rows"] / max(found["rows"]["posts"], 1)
    for table, one in found["norms"].items():
        for quantile in norm_histogram.QUANTILES:
            yield f"{quantile} of the norms of {table}", one[quantile]


def describe(moments: FeatureMoments) -> dict[str, Any]:
    """Rows, means and standard deviations."""
    deviation = np.sqrt(moments.squares / max(moments.rows, 1))
    return {"rows": moments.rows, "mean": _rounded(moments.mean), "deviation": _rounded(deviation)}


def _quantiles(counted: Mapping[int, int]) -> dict[str, float]:
    found = {name: _round(value) for name, value in norm_histogram.quantiles(counted).items()}
    return {"rows": sum(counted.values()), **found}


def _rounded(values: np.ndarray) -> list[float]:
    return [_round(value) for value in values.tolist()]


def _round(value: float) -> float:
    return round(value, DIGITS - 1 - math.floor(math.log10(abs(value)))) if value else 0.0

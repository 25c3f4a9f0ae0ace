"""Drift of a run's statistics from the previous run's, and detection of jumps.

A statistic jumps where it has moved by more than a limit that matters in practice and by more than noise would move
it, NOISE standard errors. Both are given in a unit in which noise depends on numbers of rows alone, so that one limit
serves all values:

- shares (rows without a value, posts with a modality): Cohen's h, the difference of 2 asin sqrt(share), .2 is what
  Cohen (1988) calls small: .5 to .6, .9 to .95, .01 to 0.
- numbers of rows and norms: the logarithm of the ratio, for the noise of rows the difference of their square roots.
- features: the means of a modality, each number's difference in standard deviations (Cohen's d), the root of the mean
  square over all numbers; .5 is what Cohen (1988) calls medium. Their spread: the median ratio of the deviations.
- values (languages, kinds): the population stability index; .25 is the usual limit of a major shift (Siddiqi 2006,
  Credit Risk Scorecards), and its noise is that of chi square (Yurdakul and Naranjo 2020).
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import scipy.special

# With some hundred statistics a night, noise alone exceeds this (two-sided 6e-5) in less than one night of a hundred;
# and a jump has to exceed the limit too.
NOISE = 4.0
_TAIL = math.erfc(NOISE / math.sqrt(2))
SHARE = 0.2
ROWS = math.log(2.0)
NORM = math.log(1.5)
MEANS = 0.5
SPREAD = math.log(2.0)
VALUES = 0.25
# Maximum difference of one number of a modality, in standard deviations: a constant one that changes is no jump.
MOST = 3.0
# With fewer rows the spread, which noise is estimated from, is too uncertain.
MIN_ROWS = 30
# Values with a smaller share of the rows in both runs count together.
RARE = 0.01
# Tables whose number of rows is compared; those of the others follow.
TABLES = ("posts", "interactions", "users", "user_embeddings", "recommendations", "similar_posts")
OTHER = "(other)"
# Prefix of the statistics of the last day's rows.
LATEST = "last day: "
# Key and value of `made_with`: the space of the embeddings, and an encoder that is switched off.
EMBEDDINGS, OFF = "embeddings", "none"

Statistics = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One statistic of two runs.

    Attributes:
      statistic: its name.
      before: of the earlier run; 0 or 1 where the statistic is a distance from it or a ratio.
      now: of this run.
      low: smallest value that is no jump.
      high: largest value that is no jump.
      size: its change, in limits: a jump is beyond 1.
      most: for a distance between shares, the value whose share changed most, in words.
    """

    statistic: str
    before: float
    now: float
    low: float
    high: float
    size: float
    most: str = ""

    @property
    def jumped(self) -> bool:
        """True if it has moved by more than its limit."""
        return self.size > 1


def compare(before: Statistics, now: Statistics) -> Iterator[Comparison]:
    """Every statistic that both runs have and that is comparable."""
    different = set(not_comparable(before, now))
    off = {name for one in (before, now) for name, how in one["made_with"].items() if how == OFF}
    yield from _described(before, now, different, off)
    for table, columns in now["nulls"].items():
        for column in sorted(columns.keys() & before["nulls"].get(table, {}).keys()):
            old, new = before["nulls"][table][column], columns[column]
            yield from _share(f"{table} without {column}", old, before["rows"][table], new, now["rows"][table])
    if EMBEDDINGS not in different:
        for table in sorted(now["norms"].keys() & before["norms"].keys()):
            yield from _norms(table, before["norms"][table], now["norms"][table])
    for one in _described(before["latest"], now["latest"], different, off):
        yield dataclasses.replace(one, statistic=f"{LATEST}{one.statistic}")


def _described(before: Statistics, now: Statistics, different: set[str], off: set[str]) -> Iterator[Comparison]:
    """Compares rows, values and modalities, but for features made in another way and encoders that are off."""
    for table in TABLES:
        if table in before["rows"] and table in now["rows"] and table not in different:
            yield _rows(f"rows of {table}", before["rows"][table], now["rows"][table])
    for table, columns in now["values"].items():
        for column in sorted(columns.keys() & before["values"].get(table, {}).keys()):
            yield from _values(f"values of {table}.{column}", before["values"][table][column], columns[column])
    absent: dict[str, Any] = {"rows": 0}
    for modality in sorted(before["modalities"].keys() | now["modalities"].keys()):
        old, new = (one["modalities"].get(modality, absent) for one in (before, now))
        if modality not in off:
            sizes = old["rows"], before["rows"]["posts"], new["rows"], now["rows"]["posts"]
            yield from _share(f"posts with {modality}", *sizes)
        if modality not in different:
            yield from _features(modality, old, new)


def not_comparable(before: Statistics, now: Statistics) -> dict[str, str]:
    """Statistics both runs have but computed differently, hence not comparable: name -> "HOW, was HOW"."""
    old, new = before["made_with"], now["made_with"]
    both = sorted(old.keys() & new.keys())
    return {name: f"{new[name]}, was {old[name]}" for name in both if new[name] != old[name]}


def _share(name: str, before: int, of_before: int, now: int, of_now: int) -> Iterator[Comparison]:
    """Compares before / of_before with now / of_now; nothing where one of them is of no rows."""
    if not of_before or not of_now:
        return
    old, new = before / of_before, now / of_now
    angles = 2 * math.asin(math.sqrt(old)), 2 * math.asin(math.sqrt(new))
    limit = max(SHARE, NOISE * _error(of_before, of_now))
    low, high = (math.sin(min(max(angle, 0), math.pi) / 2) ** 2 for angle in (angles[0] - limit, angles[0] + limit))
    yield Comparison(name, old, new, low, high, abs(angles[1] - angles[0]) / limit)


def _rows(name: str, before: int, now: int) -> Comparison:
    """Compares numbers of rows, by their ratio and, for noise, as Poisson counts, whose square roots have error .5."""
    root, noise = math.sqrt(before), NOISE * math.sqrt(0.5)
    ratio = abs(math.log(max(now, 0.5) / max(before, 0.5)))
    low, high = min(before / 2, max(root - noise, 0) ** 2), max(2 * before, (root + noise) ** 2)
    return Comparison(name, before, now, low, high, min(ratio / ROWS, abs(math.sqrt(now) - root) / noise))


def _norms(table: str, before: Mapping[str, float], now: Mapping[str, float]) -> Iterator[Comparison]:
    """Compares quantiles. The error of one is taken from the spread, as of a normal distribution of logarithms.

    Nothing of fewer than MIN_ROWS.
    """
    if min(before["rows"], now["rows"]) < MIN_ROWS:
        return
    # 3.29 deviations lie between the 5th and the 95th percentile; the error of a median is 1.25 times that of a mean,
    # of these two 2.11 times.
    spread = max(math.log(one["p95"] / one["p5"]) for one in (before, now)) / 3.29
    for quantile, times in (("p5", 2.11), ("median", 1.25), ("p95", 2.11)):
        limit = max(NORM, NOISE * times * spread * _error(before["rows"], now["rows"]))
        old, new = before[quantile], now[quantile]
        size = abs(math.log(new / old)) / limit
        name = f"{quantile} of the norms of {table}"
        yield Comparison(name, old, new, old * math.exp(-limit), old * math.exp(limit), size)


def _features(modality: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Comparison]:
    """Compares means and spreads of a modality of the same width; nothing of fewer than MIN_ROWS."""
    if min(before["rows"], now["rows"]) < MIN_ROWS or len(before["mean"]) != len(now["mean"]):
        return
    (mean, deviation), (new_mean, new_deviation) = (
        (np.array(one["mean"]), np.array(one["deviation"])) for one in (before, now)
    )
    # Variation below the stored digits counts as none.
    least = 1e-5 * np.maximum(abs(mean), abs(new_mean)) + 1e-30
    deviations = np.maximum(deviation, least), np.maximum(new_deviation, least)
    pooled = np.sqrt((deviations[0] ** 2 + deviations[1] ** 2) / 2)
    moved = np.minimum(abs(new_mean - mean) / pooled, MOST)
    error = _error(before["rows"], now["rows"])
    distance, limit = float(np.sqrt((moved**2).mean())), max(MEANS, NOISE * error)
    yield Comparison(f"means of {modality}, in deviations", 0.0, distance, 0.0, limit, distance / limit)
    varied = np.maximum(deviation, new_deviation) > least
    ratio = float(np.median((deviations[1] / deviations[0])[varied])) if varied.any() else 1.0
    limit = max(SPREAD, NOISE * error)
    yield Comparison(
        f"spread of {modality}, as a ratio", 1.0, ratio, math.exp(-limit), math.exp(limit), abs(math.log(ratio)) / limit
    )


def _values(name: str, before: Mapping[str, int], now: Mapping[str, int]) -> Iterator[Comparison]:
    """Compares how rows spread over values, by the population stability index; nothing where there are none."""
    rows = [sum(counts.values()) for counts in (before, now)]
    if not all(rows):
        return
    frequent = [
        value
        for value in sorted(before.keys() | now.keys())
        if value != OTHER and max(before.get(value, 0) / rows[0], now.get(value, 0) / rows[1]) >= RARE
    ]
    counted = []
    for counts, whole in zip((before, now), rows, strict=True):
        known = [counts.get(value, 0) for value in frequent]
        counted.append(np.array([*known, whole - sum(known)]))
    # Half a row more for each value: none is then too little for a logarithm.
    shares = [(numbers + 0.5) / (numbers + 0.5).sum() for numbers in counted]
    parts = (shares[1] - shares[0]) * np.log(shares[1] / shares[0])
    index, place = float(parts.sum()), int(parts.argmax())
    shares_text = (f"{numbers[place] / whole:.3f}" for numbers, whole in zip(counted, rows, strict=True))
    most = f"{[*frequent, OTHER][place]} from {' to '.join(shares_text)}"
    noise = float(scipy.special.chdtri(max(len(frequent), 1), _TAIL)) * (1 / rows[0] + 1 / rows[1])
    limit = max(VALUES, noise)
    yield Comparison(name, 0.0, index, 0.0, limit, index / limit, most)


def _error(before: float, now: float) -> float:
    """The standard error of the difference of two means of so many rows with deviation 1."""
    return math.sqrt(1 / before + 1 / now)

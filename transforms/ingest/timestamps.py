"""Times as posts carry them (ISO 8601, epoch numbers, Arrow timestamps) -> microseconds since 1970 in UTC."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.ingest.scalar_columns import NUMBER, Converted
from transforms.tables import blocks, schemas

# 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z: what Python, Java and Parquet readers can show.
FIRST_MICROS = -62_135_596_800_000_000
LAST_MICROS = 253_402_300_799_999_999

# An epoch number is in seconds below 1e11 (the year 5138), then in ms, us and ns: each 1000 times as large.
_SECONDS_BELOW, _MILLIS_BELOW, _MICROS_BELOW = 10**11, 10**14, 10**17
# From here on a double no longer holds every nanosecond, so that an integer must not have been read as one.
INEXACT_FROM = float(_MICROS_BELOW)

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MICROS_A_DAY = 86_400_000_000
_INTEGER = r"^[+-]?(?:[0-9]{1,18}|[0-8][0-9]{18})$"
_ZONED = r"(?:[Zz]|[+-]\d\d(?::?\d\d)?)$"
_ISO = (
    r"^(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"
    r"(?:[Tt ](?P<hour>\d\d)(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?)?)?"
    r" ?(?:[Zz]|UTC|GMT|(?P<sign>[+-])(?P<zone_hour>\d\d)(?::?(?P<zone_minute>\d\d))?)?$"
)


def to_timestamps(column: pa.Array) -> Converted:
    """A column of any type as (timestamp[us, UTC], [n] bool: which values are no time).

    Strings are ISO 8601 (no zone means UTC, digits after the microseconds are cut off) or epoch numbers; numbers are
    seconds, milliseconds, microseconds or nanoseconds by their magnitude. Null and "" are null.
    """
    kind = column.type
    if pa.types.is_string(kind):
        return _from_strings(column)
    present = blocks.valid(column)
    if pa.types.is_timestamp(kind):
        return _scaled(column.cast(pa.int64()), _PER_SECOND[kind.unit], present)
    if pa.types.is_date(kind):
        return _scaled(column.cast(pa.timestamp("s")).cast(pa.int64()), 1, present)
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return _finish(*_from_integers(_filled(column.cast(pa.int64()))), present)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind) or kind == pa.uint64():
        floats = pc.if_else(pc.is_nan(doubles := column.cast(pa.float64(), safe=False)), None, doubles)
        return _finish(*_from_floats(_filled(floats)), blocks.valid(floats))
    return pa.nulls(len(column), schemas.TIMESTAMP), present


def _filled(column: pa.Array) -> np.ndarray:
    return pc.fill_null(column, 0).to_numpy(zero_copy_only=False)


def _finish(micros: np.ndarray, bad: np.ndarray, present: np.ndarray) -> Converted:
    bad = present & (bad | (micros < FIRST_MICROS) | (micros > LAST_MICROS))
    return pa.array(micros, mask=bad | ~present).cast(schemas.TIMESTAMP), bad


def _scaled(column: pa.Array, per_second: int, present: np.ndarray) -> Converted:
    """Counts of 1/per_second as microseconds; those that would overflow are bad."""
    values = _filled(column)
    if per_second > 10**6:
        return _finish(values // (per_second // 10**6), np.zeros(len(values), bool), present)
    factor = 10**6 // per_second
    bad = (values < FIRST_MICROS // factor) | (values > LAST_MICROS // factor)
    return _finish(np.where(bad, 0, values) * factor, bad, present)


def _from_integers(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = np.abs(values)
    factor = np.select([size < _SECONDS_BELOW, size < _MILLIS_BELOW], [10**6, 10**3], 1)
    micros = np.where((size < _MICROS_BELOW) & (size >= 0), values * factor, values // 1000)
    return micros, np.zeros(len(values), bool)


def _from_floats(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = np.abs(values)
    factor = np.select([size < _SECONDS_BELOW, size < _MILLIS_BELOW], [1e6, 1e3], 1.0)
    with np.errstate(invalid="ignore", over="ignore"):
        micros = np.where(size < _MICROS_BELOW, np.rint(values * factor), np.floor(values / 1e3))
    bad = ~(np.abs(micros) < 2.0**62)
    return np.where(bad, 0.0, micros).astype(np.int64), bad


def _from_strings(column: pa.Array) -> Converted:
    fast = _cast(column)
    if fast is not None:
        return _scaled(fast.cast(pa.int64()), 10**6, blocks.valid(fast))
    column = pc.utf8_trim_whitespace(column)
    column = pc.if_else(pc.equal(column, ""), None, column)
    present = blocks.valid(column)
    micros, bad = _from_iso(column)
    for pattern, kind, convert in ((_INTEGER, pa.int64(), _from_integers), (NUMBER, pa.float64(), _from_floats)):
        numeric = pc.fill_null(pc.match_substring_regex(column, pattern), False).to_numpy(zero_copy_only=False) & bad
        if numeric.any():
            texts = pc.utf8_ltrim(column.filter(pa.array(numeric)), "+")
            micros[numeric], bad[numeric] = convert(_filled(texts.cast(kind)))
    return _finish(micros, bad, present)


def _cast(column: pa.Array) -> pa.Array | None:
    """The strings by Arrow's parser, for plain ISO 8601, all with a zone or all without; None for others."""
    some = column.drop_null()
    if not len(some):
        return pa.nulls(len(column), schemas.TIMESTAMP)
    zoned = pc.match_substring_regex(some[:1], _ZONED)[0].as_py() and len(some[0].as_py()) > len("2020-01-01")
    try:
        return column.cast(schemas.TIMESTAMP if zoned else pa.timestamp("us"))
    except pa.ArrowInvalid:
        return None


def _from_iso(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(microseconds [n] int64, what is not ISO 8601 [n] bool); null is not."""
    parts = pc.extract_regex(column, _ISO)
    matched = blocks.valid(parts)

    def number(name: str) -> np.ndarray:
        texts = pc.fill_null(pc.struct_field(parts, name), "")
        return pc.if_else(pc.equal(texts, ""), "0", texts).cast(pa.int64()).to_numpy(zero_copy_only=False)

    fraction = pc.utf8_rpad(pc.utf8_slice_codeunits(pc.fill_null(pc.struct_field(parts, "fraction"), ""), 0, 6), 6, "0")
    days, in_calendar = _days(number("year"), number("month"), number("day"))
    hour, minute, second = number("hour"), number("minute"), number("second")
    zone_hour, zone_minute = number("zone_hour"), number("zone_minute")
    sign = pc.fill_null(pc.struct_field(parts, "sign"), "")
    zone = (zone_hour * 60 + zone_minute) * np.where(pc.equal(sign, "-").to_numpy(zero_copy_only=False), -1, 1)
    good = matched & in_calendar & (hour < 24) & (minute < 60) & (second < 60) & (zone_hour < 24) & (zone_minute < 60)
    seconds = (hour * 60 + minute - zone) * 60 + second
    micros = days * _MICROS_A_DAY + seconds * 10**6 + fraction.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return micros, ~good


def _days(year: np.ndarray, month: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Days since 1970-01-01 in the proleptic Gregorian calendar, and which dates there are."""
    good = (month >= 1) & (month <= 12)
    months = (year - 1970) * 12 + np.where(good, month, 1) - 1
    first, following = (
        m.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) for m in (months, months + 1)
    )
    return first + day - 1, good & (day >= 1) & (day <= following - first)

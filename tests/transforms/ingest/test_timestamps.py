import datetime

import numpy as np
import pyarrow as pa
import pytest

from transforms.ingest import timestamps

UTC = datetime.UTC


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2024-05-06T07:08:09Z", "2024-05-06T07:08:09+00:00"),
        ("2024-05-06T07:08:09", "2024-05-06T07:08:09+00:00"),
        ("2024-05-06 07:08:09.5", "2024-05-06T07:08:09.500000+00:00"),
        ("2024-05-06T07:08:09.123456789Z", "2024-05-06T07:08:09.123456+00:00"),
        ("2024-05-06T07:08:09+02:00", "2024-05-06T05:08:09+00:00"),
        ("2024-05-06T07:08:09-0530", "2024-05-06T12:38:09+00:00"),
        ("2024-05-06T00:08+02", "2024-05-05T22:08:00+00:00"),
        ("2024-05-06T07:08:09 UTC", "2024-05-06T07:08:09+00:00"),
        (" 2024-05-06 ", "2024-05-06T00:00:00+00:00"),
        ("2024-02-29", "2024-02-29T00:00:00+00:00"),
        ("0001-01-01", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999+00:00"),
        ("1700000000", "2023-11-14T22:13:20+00:00"),
        ("1700000000.25", "2023-11-14T22:13:20.250000+00:00"),
        ("1700000000123", "2023-11-14T22:13:20.123000+00:00"),
        ("1700000000123456", "2023-11-14T22:13:20.123456+00:00"),
        ("1700000000123456789", "2023-11-14T22:13:20.123456+00:00"),
        ("1.7e9", "2023-11-14T22:13:20+00:00"),
        ("-1", "1969-12-31T23:59:59+00:00"),
        ("", None),
    ],
)
def test_strings(given: str, expected: str | None) -> None:
    # Alone, and among others that Arrow's own parser does not take.
    for among in ([given], [given, "x"], ["2024-01-01T00:00:00Z", given], ["1", given]):
        found, bad = timestamps.to_timestamps(pa.array(among))
        value = found[among.index(given)].as_py()
        assert (value.isoformat() if value else None) == expected
        assert not bad[among.index(given)]


@pytest.mark.parametrize(
    "given",
    [
        *("yesterday", "2024-02-30", "2023-02-29", "2024-13-01", "2024-00-01", "2024-01-01T24:00:00Z"),
        *("2024-01-01T00:60:00", "2024-01-01T00:00:60Z", "0000-01-01", "10000-01-01", "-2024-01-01", "0000-12-31T23Z"),
        *("2024-01-01T00:00:00+24:00", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "1e400", "nan"),
        *("9" * 30, "1 2", "0x10", "٢٠٢٤-٠١-٠١"),
    ],
)
def test_what_is_no_time(given: str) -> None:
    for among in ([given], [given, "2024-01-01T00:00:00Z"], ["2024-01-01", given]):
        found, bad = timestamps.to_timestamps(pa.array(among))
        assert found[among.index(given)].as_py() is None
        assert bad.tolist() == [value == given for value in among]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (
            pa.array([1_700_000_000, None, 2**62, -(2**63)]),
            [1_700_000_000, None, 4611686018.427387, -9223372036.854776],
        ),
        (pa.array([2**63, 1], pa.uint64()), [9223372036.854775, 1]),
        (pa.array([1.5, float("nan"), float("inf"), 1e30]), [1.5, None, "bad", "bad"]),
        (pa.array([1, 2**60], pa.timestamp("s")), [1, "bad"]),
        (pa.array([1500], pa.timestamp("ms", tz="Asia/Tokyo")), [1.5]),
        (pa.array([1_999], pa.timestamp("ns")), [0.000001]),
        (pa.array([1], pa.date32()), [86400]),
        (pa.array([86_400_000], pa.date64()), [86400]),
        (pa.array([True, None]), ["bad", None]),
        (pa.array([[1], None]), ["bad", None]),
    ],
)
def test_numbers_and_arrow_times(column: pa.Array, expected: list[float | str | None]) -> None:
    found, bad = timestamps.to_timestamps(column)
    assert bad.tolist() == [value == "bad" for value in expected]
    micros = found.cast(pa.int64()).to_pylist()
    for value, micro in zip(expected, micros, strict=True):
        assert micro is None if value in (None, "bad") else abs(micro - float(value) * 1e6) < 3


def test_agrees_with_python_on_random_times() -> None:
    random = np.random.default_rng(0)
    micros = random.integers(timestamps.FIRST_MICROS, timestamps.LAST_MICROS, 2000)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=UTC)
    moments = [epoch + datetime.timedelta(microseconds=int(value)) for value in micros]
    found, bad = timestamps.to_timestamps(pa.array([moment.isoformat() for moment in moments] + ["1"]))
    assert not bad.any()
    assert found.to_pylist()[:-1] == moments

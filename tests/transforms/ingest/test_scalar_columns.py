from typing import Any

import pyarrow as pa
import pytest

from transforms.ingest import scalar_columns

INF, NAN = float("inf"), float("nan")
BAD = "<bad>"


def _shown(converted: scalar_columns.Converted) -> list[Any]:
    return [BAD if wrong else value for value, wrong in zip(converted[0].to_pylist(), converted[1], strict=True)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            ["a", "", None, "é", "a\nb", "a\x7f", "a\u0085", "x" * 512, "x" * 513],
            ["a", None, None, "é", BAD, BAD, BAD, "x" * 512, BAD],
        ),
        ([2**63 - 1, -5, None], ["9223372036854775807", "-5", None]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        ([1.0, 1.5, None, NAN, 2.0**53, INF], ["1", BAD, None, BAD, BAD, BAD]),
        ([True, None], [BAD, None]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array(["a"], pa.large_string()), ["a"]),
    ],
)
def test_ids(given: Any, expected: list[Any]) -> None:
    column = given if isinstance(given, pa.Array) else pa.array(given)
    assert _shown(scalar_columns.to_ids(scalar_columns.plain(column))) == expected


def test_flags() -> None:
    assert _shown(scalar_columns.to_flags(pa.array([True, None, False]))) == [True, False, False]
    assert _shown(scalar_columns.to_flags(pa.array([1, 0, None, 2]))) == [True, False, False, BAD]
    assert _shown(scalar_columns.to_flags(pa.array([1.0, 0.5]))) == [True, BAD]
    given = ["true", " FALSE", "Yes", "0", "", None, "maybe"]
    assert _shown(scalar_columns.to_flags(pa.array(given))) == [True, False, True, False, False, False, BAD]
    assert _shown(scalar_columns.to_flags(pa.array([[1], None]))) == [BAD, False]


def test_numbers() -> None:
    given = ["1.5", " -2", "+3e2", ".5", "nan", "", None, "x", "inf", "1e999", "0x1"]
    expected = [1.5, -2.0, 300.0, 0.5, None, None, None, BAD, BAD, BAD, BAD]
    assert _shown(scalar_columns.to_numbers(pa.array(given))) == expected
    assert _shown(scalar_columns.to_numbers(pa.array([1.5, NAN, INF, None]))) == [1.5, None, BAD, None]
    assert _shown(scalar_columns.to_numbers(pa.array([1, None]))) == [1.0, None]
    assert _shown(scalar_columns.to_numbers(pa.array([True, None]))) == [BAD, None]


def test_texts_and_words() -> None:
    assert _shown(scalar_columns.to_strings(pa.array([" a ", "", None]))) == [" a ", "", None]
    assert _shown(scalar_columns.to_words(pa.array([" a ", " ", None]))) == ["a", None, None]
    assert _shown(scalar_columns.to_strings(pa.array([1, None]))) == [BAD, None]


def test_a_missing_kind_is_a_rating_where_there_is_a_value() -> None:
    found = scalar_columns.to_kinds(
        pa.array([" LIKE", None, "", None]), pa.array([False, True, False, False]).to_numpy(False)
    )
    assert _shown(found) == ["like", "rating", "view", "view"]

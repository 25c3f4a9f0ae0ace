from typing import Any

import pyarrow as pa
import pytest

from transforms.ingest import list_columns

NAN = float("nan")
BAD = "<bad>"
MAP = pa.map_(pa.string(), pa.list_(pa.float64()))


def _shown(converted: list_columns.Converted) -> list[Any]:
    return [BAD if wrong else value for value, wrong in zip(converted[0].to_pylist(), converted[1], strict=True)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([["#b", "a", " b ", None, "", "#", "##c"], None, [], [None]], [["b", "a", "c"], None, None, None]),
        (
            ["#a b,c|d;a", "", None, '["x y", 5, null]', "[broken"],
            [["a", "b", "c", "d"], None, None, ["x y", "5"], BAD],
        ),
        (pa.array([["a"], ["b", "a"]], pa.large_list(pa.large_string())), [["a"], ["b", "a"]]),
        (pa.array([["a", "b"], None], pa.list_(pa.string(), 2)), [["a", "b"], None]),
        ([[1, 2], None], [["1", "2"], None]),
        ([[1.5], None, []], [BAD, None, None]),
        ([5, None], [BAD, None]),
    ],
)
def test_tags(given: Any, expected: list[Any]) -> None:
    column = given if isinstance(given, pa.Array) else pa.array(given)
    assert _shown(list_columns.to_tags(column)) == expected
    # A slice begins somewhere in its parent's buffers.
    assert _shown(list_columns.to_tags(column.slice(1))) == expected[1:]


def test_phrases_keep_their_spaces() -> None:
    assert _shown(list_columns.to_phrases(pa.array(["machine learning, cats"]))) == [["machine learning", "cats"]]


def test_id_lists() -> None:
    assert _shown(list_columns.to_id_lists(pa.array([["a", "a\n"[:1]], ["b\x01"], None]))) == [["a"], BAD, None]
    assert _shown(list_columns.to_id_lists(pa.array([[1, 2]]))) == [["1", "2"]]


def test_media() -> None:
    def entry(kind: str | None, uri: str | None, alt: str | None = None) -> dict[str, str | None]:
        return {"kind": kind, "uri": uri, "alt": alt}

    given = pa.array([[{"kind": " Image", "uri": "x"}, None, {"kind": "", "uri": None}], None, []])
    assert _shown(list_columns.to_media(given)) == [[entry("image", "x"), entry(None, None)], None, None]
    assert _shown(list_columns.to_media(pa.array([["a.png"], None]))) == [[entry(None, "a.png")], None]
    cells = ['[{"kind":"VIDEO","uri":"v","alt":"t"}]', '{"uri":"y"}', "a b.jpg", "", "[1]", '{"uri":1}', None]
    assert _shown(list_columns.to_media(pa.array(cells))) == [
        [entry("video", "v", "t")],
        [entry(None, "y")],
        [entry(None, "a b.jpg")],
        None,
        BAD,
        BAD,
        None,
    ]
    assert _shown(list_columns.to_media(pa.array([[{"uri": 1}], [{"uri": None}]]))) == [BAD, [entry(None, None)]]
    assert _shown(list_columns.to_media(pa.array([[1], None, []]))) == [BAD, None, None]
    assert _shown(list_columns.to_media(pa.array([1, None]))) == [BAD, None]


def test_vectors() -> None:
    structs = pa.array([{"b": [1, 2], "a": [3, None]}, {"b": [1, 2]}, {"a": None, "b": []}, None, {"a": [4]}])
    assert _shown(list_columns.to_vectors(structs)) == [BAD, [("b", [1.0, 2.0])], None, None, [("a", [4.0])]]
    assert _shown(list_columns.to_vectors(structs.slice(1))) == [[("b", [1.0, 2.0])], None, None, [("a", [4.0])]]
    maps = pa.array([[("b", [1.0]), ("a", [2.0]), ("b", [3.0])], None, [], [("a", [NAN])], [("a", [1e39])]], MAP)
    assert _shown(list_columns.to_vectors(maps)) == [[("a", [2.0]), ("b", [3.0])], None, None, BAD, BAD]
    assert _shown(list_columns.to_vectors(maps.slice(2))) == [None, BAD, BAD]
    cells = ['{"a":[1,2.5]}', "", None, '{"a":["x"]}', '{"a":[true]}', "[1]", "{", '{"a":5}', '{"a":null}']
    assert _shown(list_columns.to_vectors(pa.array(cells))) == [
        [("a", [1.0, 2.5])],
        None,
        None,
        BAD,
        BAD,
        BAD,
        BAD,
        BAD,
        None,
    ]
    assert _shown(list_columns.to_vectors(pa.array([{"a": ["x"]}, {"a": []}, {"a": None}]))) == [BAD, None, None]
    assert _shown(list_columns.to_vectors(pa.array([{"a": 5}, {"a": None}]))) == [BAD, None]
    assert _shown(list_columns.to_vectors(pa.array([[1.0], None]))) == [BAD, None]
    assert _shown(list_columns.to_vectors(pa.array([{}, None], pa.struct([])))) == [None, None]

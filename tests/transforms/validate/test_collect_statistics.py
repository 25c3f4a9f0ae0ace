"""What is counted of tables, against the obvious in-memory answer, and the rows that violate a specification."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.util import assert_that, equal_to

from transforms.tables import blocks, parquet, schemas
from transforms.validate import collect_statistics, feature_moments, file_statistics, norm_histogram
from transforms.validate.feature_moments import FeatureMoments
from transforms.validate.file_statistics import FileStatistics
from transforms.validate.table_statistics import TableStatistics, merge

NewPipeline = Callable[[], beam.Pipeline]


def write(directory: Path, rows: pa.RecordBatch, schema: pa.Schema, *cuts: int) -> str:
    """A table in as many files as there are cuts and one."""
    for part, (start, stop) in enumerate(zip((0, *cuts), (*cuts, rows.num_rows), strict=True)):
        parquet.write_file(parquet.part_path(str(directory), part), rows.slice(start, stop - start), schema)
    return str(directory)


def statistics_of(table: str, directory: str, since: int = 0) -> TableStatistics:
    found = []
    for path in parquet.list_files(directory):
        with parquet.open_file(path) as source:
            made = FileStatistics(table, pq.ParquetFile(source), since)
            list(made.read())
            found.append(made.statistics)
    return merge(found)


def block(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    return schemas.conform(pa.RecordBatch.from_pylist(rows), schema)


def embeddings(vectors: np.ndarray, ids: list[str]) -> pa.RecordBatch:
    columns = {"post_id": pa.array(ids), "embedding": blocks.numpy_to_vectors(vectors)}
    return schemas.conform(pa.RecordBatch.from_pydict(columns), schemas.item_embeddings(vectors.shape[1]))


def ranked(*rows: tuple[str, int]) -> pa.RecordBatch:
    return block(
        [{"user_id": u, "rank": r, "post_id": "p", "score": 1.0, "reason": "popular"} for u, r in rows],
        schemas.RECOMMENDATIONS,
    )


def test_rows_without_a_value_and_languages_are_counted(tmp_path: Path) -> None:
    rows = [
        {"post_id": "a", "sensitive": False, "lang": "pt-BR", "hashtags": ["x", "y"], "text": "t"},
        {"post_id": "b", "sensitive": False, "lang": "pt", "hashtags": [], "media": [{"kind": None, "uri": "u"}]},
        {"post_id": "c", "sensitive": False, "lang": "de", "vectors": [("clip", [1.0, 2.0])]},
        {"post_id": "d", "sensitive": True, "media": []},
    ]
    found = statistics_of("posts", write(tmp_path, pa.RecordBatch.from_pylist(rows, schemas.POSTS), schemas.POSTS, 3))
    assert found.rows == 4
    assert found.values == {"lang": {"pt": 2, "de": 1}}
    assert found.nulls == {
        **dict.fromkeys(("author_id", "created_at", "reply_to", "repost_of", "labels"), 4),
        **{"text": 3, "lang": 1, "hashtags": 3, "media": 3, "vectors": 3},
    }
    assert found.faults == {}


def test_an_empty_table_is_counted(tmp_path: Path) -> None:
    found = statistics_of("users", write(tmp_path, schemas.empty(schemas.USERS), schemas.USERS))
    assert (found.rows, found.key_sum, found.faults) == (0, 0, {})
    assert set(found.nulls.values()) == {0}


def test_moments_and_words_of_features_do_not_depend_on_the_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(100, 3, size=(50, 4)).astype(np.float32)
    present = rng.random(50) < 0.6
    schema = schemas.features({"image": 4})
    counts = [None if i % 5 == 0 else [1] * (i % 5) + [2] for i in range(50)]
    terms = [each and [str(j) for j in range(len(each))] for each in counts]
    columns = {
        "post_id": [f"p{i}" for i in range(50)],
        "text_terms": pa.array(terms, pa.list_(pa.string())),
        "text_counts": pa.array(counts, pa.list_(pa.int32())),
        "image": blocks.numpy_to_optional(vectors, present),
    }
    rows = schemas.conform(pa.RecordBatch.from_pydict(columns), schema)
    for name, cuts in (("one", ()), ("several", (1, 20, 33))):
        found = statistics_of("features", write(tmp_path / name, rows, schema, *cuts))
        image, text = found.moments["image"], found.moments["text"]
        assert (image.rows, text.rows) == (present.sum(), 40)
        np.testing.assert_allclose(image.mean, vectors[present].mean(axis=0, dtype=float))
        np.testing.assert_allclose(image.squares / image.rows, vectors[present].astype(float).var(axis=0))
        words = [sum(each) for each in counts if each]
        np.testing.assert_allclose((text.mean[0], text.squares[0] / 40), (np.mean(words), np.var(words)))


def test_moments_of_nothing_change_nothing() -> None:
    some = feature_moments.moments_of(np.array([[1.0, 5.0], [3.0, 5.0]]))
    nothing = feature_moments.moments_of(np.empty((0, 2)))
    for found in (feature_moments.merge([nothing, some]), feature_moments.merge([some, nothing])):
        assert found.rows == 2
        np.testing.assert_array_equal([found.mean, found.squares], [[2, 5], [2, 0]])
    both: FeatureMoments = feature_moments.merge([nothing, nothing])
    assert both.rows == 0 and not both.mean.any()


def test_norms_are_counted_in_bins(tmp_path: Path) -> None:
    vectors = np.array([[3, 4], [0, 0], [0, 5], [0.5, 0]], np.float32)
    found = statistics_of(
        "item_embeddings", write(tmp_path, embeddings(vectors, list("abcd")), schemas.item_embeddings(2), 2)
    )
    per = norm_histogram.BINS_PER_DOUBLING
    assert found.norms == {int(np.floor(np.log2(5) * per)): 2, -per: 1}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_faults(tmp_path: Path, bad: float) -> None:
    vectors = np.ones((4, 3), np.float32)
    vectors[[1, 3], 2] = bad
    directory = write(tmp_path, embeddings(vectors, list("abcd")), schemas.item_embeddings(3), 2)
    found = statistics_of("item_embeddings", directory)
    assert found.faults == {"embedding is not finite": 2}
    assert sum(found.norms.values()) == 2


def test_scores_that_are_not_finite_are_faults(tmp_path: Path) -> None:
    rows = ranked(("a", 1), ("a", 2)).set_column(3, schemas.RECOMMENDATIONS.field("score"), pa.array([1, np.nan], "f4"))
    found = statistics_of("recommendations", write(tmp_path, rows, schemas.RECOMMENDATIONS))
    assert found.faults == {"score is not finite": 1}


def test_vectors_of_another_width_are_faults(tmp_path: Path) -> None:
    schema = schemas.features({"image": 2})
    rows = [{"post_id": "a", "image": [1.0, 2.0]}, {"post_id": "b", "image": [1.0]}, {"post_id": "c"}]
    found = statistics_of("features", write(tmp_path, pa.RecordBatch.from_pylist(rows, schema), schema))
    assert found.faults == {"image is not a vector of 2 numbers": 1}
    assert found.moments["image"].rows == 1


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ([("a", 1), ("a", 2), ("b", 1), ("c", 1), ("c", 2), ("c", 3)], 0),
        ([("a", 1), ("a", 3)], 1),
        ([("a", 2), ("a", 3)], 1),
        ([("a", 1), ("a", 1)], 1),
        ([("a", 1), ("b", 2)], 1),
        ([("a", 0), ("a", 1)], 1),
    ],
)
def test_ranks_count_from_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[str, int]], wrong: int
) -> None:
    directory = write(tmp_path, ranked(*rows), schemas.RECOMMENDATIONS)
    for read_rows in (1, 2, 100):  # runs go on over the blocks that are read
        monkeypatch.setattr(file_statistics, "READ_ROWS", read_rows)
        faults = statistics_of("recommendations", directory).faults
        assert faults == ({"rank does not count from 1 for each user_id": wrong} if wrong else {})


def test_another_schema_is_a_fault_and_nothing_else_is_read(tmp_path: Path) -> None:
    schema = schemas.USERS.set(3, pa.field("lang", pa.int64()))
    found = statistics_of("users", write(tmp_path, schemas.empty(schema), schema))
    assert found.faults == {"column lang is int64, not string": 0}


def test_keys_that_stand_twice_are_found_wherever_they_are(new_pipeline: NewPipeline, tmp_path: Path) -> None:
    def users(*ids: str) -> pa.RecordBatch:
        return pa.RecordBatch.from_pylist([{"user_id": each} for each in ids], schemas.USERS)

    ids = [f"u{i}" for i in range(40)]
    directories = {
        "users": write(tmp_path / "users", users(*ids, "u3", "u3", "u7"), schemas.USERS, 10, 41),
        # The same words are other keys in another table; a list's user is one key, and here stands in two places.
        "user_embeddings": write(
            tmp_path / "embeddings",
            schemas.conform(
                pa.RecordBatch.from_pydict(
                    {
                        "user_id": pa.array(ids),
                        "embedding": blocks.numpy_to_vectors(np.ones((40, 2))),
                        "num_interactions": [1] * 40,
                        "source": ["both"] * 40,
                    }
                ),
                schemas.user_embeddings(2),
            ),
            schemas.user_embeddings(2),
        ),
        "recommendations": write(
            tmp_path / "lists", ranked(("a", 1), ("a", 2), ("b", 1), ("a", 1)), schemas.RECOMMENDATIONS
        ),
    }
    expected: list[tuple[str, dict[str, int]]] = [
        ("users", {"user_id stands more than once": 5}),
        ("user_embeddings", {}),
        ("recommendations", {"user_id stands more than once": 2}),
    ]
    with new_pipeline() as root:
        made = root | collect_statistics.CollectStatistics(directories, 3, 0)
        assert_that(made | beam.MapTuple(lambda table, statistics: (table, statistics.faults)), equal_to(expected))


def test_the_sum_of_keys_is_that_of_a_set(tmp_path: Path) -> None:
    sums = []
    for number, ids in enumerate((list("abc"), list("cab"), list("abd"))):
        vectors = np.ones((3, 2), np.float32)
        directory = write(tmp_path / str(number), embeddings(vectors, ids), schemas.item_embeddings(2), number % 3)
        sums.append(statistics_of("item_embeddings", directory).key_sum)
    assert sums[0] == sums[1] != sums[2]


def test_rows_of_the_last_day_are_described_apart(tmp_path: Path) -> None:
    def at(day: int, hour: int) -> datetime.datetime:
        return datetime.datetime(2026, 1, day, hour, tzinfo=datetime.UTC)

    times = [at(1, 0), at(30, 11), at(30, 12), at(31, 0), None, at(31, 12)]
    posts = [
        {"post_id": str(i), "sensitive": False, "created_at": time, "lang": "de" if i < 3 else "en"}
        for i, time in enumerate(times)
    ]
    schema = schemas.features({"image": 1})
    features = [
        {"post_id": str(i), "created_at": time, "image": [float(i)] if i != 3 else None} for i, time in enumerate(times)
    ]
    directory = write(tmp_path / "posts", pa.RecordBatch.from_pylist(posts, schemas.POSTS), schemas.POSTS, 1, 4)
    empty = write(tmp_path / "interactions", schemas.empty(schemas.INTERACTIONS), schemas.INTERACTIONS)
    since = collect_statistics.last_day(directory, empty)
    assert since == at(30, 12).timestamp() * 1e6
    latest = statistics_of("posts", directory, since).latest
    assert latest is not None
    assert (latest.rows, latest.values) == (3, {"lang": {"de": 1, "en": 2}})
    of_features = statistics_of(
        "features", write(tmp_path / "f", pa.RecordBatch.from_pylist(features, schema), schema), since
    )
    assert of_features.moments["image"].rows == 5 and of_features.latest is not None
    image = of_features.latest.moments["image"]
    assert (image.rows, image.mean[0]) == (2, 3.5)
    assert collect_statistics.last_day(empty) < 0  # nothing has a time

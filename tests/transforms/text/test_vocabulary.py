from collections.abc import Callable

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that, equal_to

from transforms.text import vocabulary
from transforms.text.vocabulary import SelectVocabulary, Vocabulary

NewPipeline = Callable[[], beam.Pipeline]


def _part(number: int, rows: list[list[str] | None]) -> tuple[int, pa.RecordBatch]:
    return number, pa.RecordBatch.from_pydict({"text_terms": pa.array(rows, pa.list_(pa.string()))})


def _rows(block: pa.RecordBatch) -> list[tuple[str, int]]:
    return [(row["term"], row["posts"]) for row in block.to_pylist()]


def test_the_most_frequent_terms_are_kept_and_ties_go_by_term(new_pipeline: NewPipeline) -> None:
    with new_pipeline() as pipeline:
        found = (
            pipeline
            | beam.Create([_part(0, [["a", "b"], None, ["a", "c"]]), _part(1, [["a", "b", "日"], ["c"]]), _part(2, [])])
            | SelectVocabulary(vocabulary_size=3)
            | beam.Map(_rows)
        )
        assert_that(found, equal_to([[("a", 3), ("c", 2), ("b", 2)]]))


def test_rare_and_very_common_terms_are_dropped(new_pipeline: NewPipeline) -> None:
    rows: list[list[str] | None] = [["every", f"only{i}", f"group{i % 10}"] for i in range(100)]
    with new_pipeline() as pipeline:
        found = (
            pipeline | beam.Create([_part(0, rows[:37]), _part(1, rows[37:])]) | SelectVocabulary() | beam.Map(_rows)
        )
        assert_that(found, equal_to([[(f"group{i}", 10) for i in range(9, -1, -1)]]))


def test_no_text_gives_an_empty_vocabulary(new_pipeline: NewPipeline) -> None:
    with new_pipeline() as pipeline:
        found = pipeline | beam.Create([_part(0, [None, None])]) | SelectVocabulary() | beam.Map(_rows)
        assert_that(found, equal_to([[]]))


def test_small_corpora_keep_terms_of_one_post() -> None:
    assert vocabulary.frequency_range(3) == (1, 10)
    assert vocabulary.frequency_range(99) == (1, 49)
    assert vocabulary.frequency_range(1000) == (2, 500)


def test_sparse_rows_are_tf_idf_of_length_one() -> None:
    terms = pa.array([["a", "b", "x"], None, ["b"], ["x"]], pa.list_(pa.string()))
    counts = pa.array([[1, 3, 1], None, [2], [5]], pa.list_(pa.int32()))
    rows = vocabulary.sparse_rows(terms, counts, Vocabulary(pa.array(["a", "b"]), np.array([9, 4]), 9)).toarray()
    first = np.array([1.0, (1 + np.log(3)) * (np.log(10 / 5) + 1)])
    np.testing.assert_allclose(rows, [first / np.linalg.norm(first), [0, 0], [0, 1], [0, 0]], rtol=1e-12)


def test_bad_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="vocabulary_size must be at least 1, got 0"):
        SelectVocabulary(vocabulary_size=0)

import numpy as np
import pytest

from transforms.validate import feature_moments, norm_histogram, run_statistics
from transforms.validate.table_statistics import TableStatistics


def test_quantiles_of_norms_are_known_to_a_percent() -> None:
    lengths = np.exp(np.random.default_rng(0).normal(0, 2, 20_000))
    found = norm_histogram.quantiles(norm_histogram.count(lengths[:, None].astype(np.float32)))
    expected = np.quantile(lengths, [0.05, 0.5, 0.95])
    np.testing.assert_allclose([found[name] for name in ("p5", "median", "p95")], expected, rtol=0.015)


def test_of_no_norms_there_are_no_quantiles() -> None:
    assert norm_histogram.quantiles({}) == {"p5": 0.0, "median": 0.0, "p95": 0.0}


def test_statistics_are_plain_numbers_by_name() -> None:
    moments = {"image": feature_moments.moments_of(np.array([[1 / 3, 0.0], [1.0, 0.0]]))}
    found = run_statistics.statistics(
        {
            "posts": TableStatistics(
                rows=4,
                nulls={"text": 1},
                values={"lang": {"de": 3}},
                latest=TableStatistics(rows=1, values={"lang": {}}),
            ),
            "features": TableStatistics(rows=4, moments=moments),
            "item_embeddings": TableStatistics(rows=4, norms={0: 1}),
        },
        {"image": "opencv"},
    )
    assert found == {
        "rows": {"features": 4, "item_embeddings": 4, "posts": 4},
        "nulls": {"posts": {"text": 1}},
        "values": {"posts": {"lang": {"de": 3}}},
        "modalities": {"image": {"rows": 2, "mean": [0.666667, 0.0], "deviation": [0.333333, 0.0]}},
        "norms": {"item_embeddings": {"rows": 1, "p5": 1.00543, "median": 1.00543, "p95": 1.00543}},
        "latest": {"rows": {"posts": 1}, "values": {"posts": {"lang": {}}}, "modalities": {}},
        "made_with": {"image": "opencv"},
    }
    scalars = dict(run_statistics.scalars(found))
    assert scalars["posts without text"] == 0.25 and scalars["posts with image"] == 0.5
    assert scalars["median of the norms of item_embeddings"] == pytest.approx(1.00543)

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from transforms.embed import trend
from transforms.embed.parameters import Trend
from transforms.tables import schemas

LATELY = Trend(half_life=7.0, newness=2.0, weight=3.0, away=30.0, newest=100.0, per_user=1.0)


def test_times_are_days_since_1970() -> None:
    times = pa.array([0, 43_200_000_000, None], schemas.TIMESTAMP)
    np.testing.assert_array_equal(trend.to_days(times), [0, 0.5, np.nan])


def test_what_has_no_time_is_infinitely_old_and_the_future_is_now() -> None:
    assert trend.ages(np.array([90.0, 120.0, np.nan]), 100.0).tolist() == [10, 0, np.inf]


def test_level_grows_slowly_and_is_zero_where_nobody_likes_anything() -> None:
    assert trend.level(np.array([0.0, 2.0, 6.0]), 2.0) == pytest.approx([0, np.log(2), np.log(4)])
    assert trend.level(np.zeros(2), 0.0).tolist() == [0, 0]


def test_a_post_counts_while_it_is_new() -> None:
    made = np.array([100.0, 130.0, 93.0, 86.0, np.nan])
    assert trend.newness(made, LATELY) == pytest.approx([2, 2, 1, 0.5, 0])


def test_the_weight_of_users_fades_while_they_are_away() -> None:
    last = np.array([100.0, 140.0, 70.0, 40.0, 0.0, np.nan])
    expected = [3, 3, 3 / 2, 3 / 16, 3 * 0.5 ** (100 / 9), 0]
    assert trend.weights_of_users(last, LATELY) == pytest.approx(np.array(expected), abs=2e-3)
    always = dataclasses.replace(LATELY, away=None)
    assert trend.weights_of_users(last, always).tolist() == [3, 3, 3, 3, 3, 0]
    assert trend.weights_of_users(last, None).tolist() == [0] * 6

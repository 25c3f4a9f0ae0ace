import datetime

import numpy as np
import pyarrow as pa

from transforms.evaluate import split_rules

DAY = 86_400_000_000


def test_the_newest_days_or_the_newest_share_are_held_out() -> None:
    times = np.arange(100) * DAY
    read = lambda: iter([times[:50], times[50:]])  # noqa: E731
    by_days = split_rules.by_time(read, share=0.2, days=10, seed=1, until=5)
    assert by_days == split_rules.Split("time", 0.2, 1, 89 * DAY, 5)
    assert split_rules.by_time(read, share=0.2, days=0, seed=1, until=5).cut == 79 * DAY
    assert split_rules.by_time(lambda: iter([]), share=0.2, days=10, seed=1, until=5) == split_rules.Split(
        "user", 0.2, 1
    )


def test_posts_are_new_when_made_after_the_cut() -> None:
    created = pa.array([1, 2, 3, None], pa.timestamp("us", tz="UTC"))
    assert split_rules.Split("time", cut=2).is_new(created).tolist() == [False, False, True, False]
    assert not split_rules.Split("user", cut=2).is_new(created).any()


def test_the_cold_share_is_exact_and_the_same_for_everybody() -> None:
    ids = pa.array([f"p{i}" for i in range(1003)])
    pieces = [ids.slice(0, 400), ids.slice(400)]
    split = split_rules.by_post(lambda: (split_rules.cold_codes(piece, 3) for piece in pieces), share=0.2, seed=3)
    cold = split.is_cold(ids)
    assert cold.sum() == 200
    assert split.is_cold(ids.slice(500)).tolist() == cold[500:].tolist()
    other = split_rules.by_post(lambda: iter([split_rules.cold_codes(ids, 4)]), share=0.2, seed=4)
    assert 20 < (other.is_cold(ids) & cold).sum() < 70
    assert not split_rules.by_post(lambda: iter([]), share=0.2, seed=3).is_cold(ids).any()
    assert not split_rules.Split("time").is_cold(ids).any()


def test_cold_posts_can_be_named() -> None:
    split = split_rules.Split("cold", cold_posts=pa.array(["b", "x"]))
    assert split.is_cold(pa.array(["a", "b", "c"])).tolist() == [False, True, False]
    assert split == split_rules.Split("cold", cold_posts=pa.array(["b", "x"]))
    assert split != split_rules.Split("cold", cold_posts=pa.array(["b"]))


def test_times_are_utc() -> None:
    assert split_rules.time_of(DAY) == datetime.datetime(1970, 1, 2, tzinfo=datetime.UTC)

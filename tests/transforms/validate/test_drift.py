"""Statistics of small worlds drawn at random: noise is no jump, a real shift is one."""

import math
from typing import Any

import numpy as np
import pytest

from transforms.validate import drift, feature_moments, norm_histogram, run_statistics
from transforms.validate.drift import Comparison
from transforms.validate.table_statistics import TableStatistics

LANGUAGES = ("de", "en", "es", "fr", "ja", "th")
SHARES = (0.3, 0.4, 0.1, 0.1, 0.08, 0.02)


def world(
    rng: np.random.Generator,
    posts: int,
    *,
    languages: tuple[float, ...] = SHARES,
    with_image: float = 0.6,
    without_text: float = 0.1,
    shift: float = 0.0,
    spread: float = 1.0,
    norm: float = 1.0,
    users: int | None = None,
    made_with: dict[str, str] | None = None,
) -> dict[str, Any]:
    users = max(posts // 4, 1) if users is None else users
    spoken = rng.multinomial(posts, languages)
    images = rng.normal(shift, spread, size=(rng.binomial(posts, with_image), 12)) * np.arange(1, 13) + 5
    lengths = {name: norm * np.exp(rng.normal(0, 0.5, (rows, 1))) for name, rows in (("i", posts), ("u", users))}
    found = {
        "posts": TableStatistics(
            rows=posts,
            nulls={"text": int(rng.binomial(posts, without_text)), "created_at": 0},
            values={"lang": dict(zip(LANGUAGES, spoken.tolist(), strict=True))},
        ),
        "interactions": TableStatistics(rows=20 * users, values={"kind": {"like": 3 * users, "view": 17 * users}}),
        "features": TableStatistics(rows=posts, moments={"image": feature_moments.moments_of(images)}),
        "item_embeddings": TableStatistics(rows=posts, norms=norm_histogram.count(lengths["i"])),
        "user_embeddings": TableStatistics(rows=users, norms=norm_histogram.count(lengths["u"])),
    }
    return run_statistics.statistics(found, made_with or {"image": "opencv", "embeddings": "a space"})


def compare(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Comparison]:
    return {one.statistic: one for one in drift.compare(before, now)}


def jumps(before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    return {name for name, one in compare(before, now).items() if one.jumped}


@pytest.mark.parametrize("posts", [3, 20, 60, 300, 3000])
def test_noise_is_no_jump(posts: int) -> None:
    rng = np.random.default_rng(posts)
    found = [jumps(world(rng, posts), world(rng, posts)) for _ in range(60)]
    assert found == [set()] * 60
    if posts > 100:
        assert len(compare(world(rng, posts), world(rng, posts))) == 16


NORMS = {
    f"{quantile} of the norms of {table}" for quantile in ("p5", "median", "p95") for table in ("item_embeddings",)
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"languages": (0.1, 0.1, 0.1, 0.1, 0.3, 0.3)}, {"values of posts.lang"}),
        ({"with_image": 0.3}, {"posts with image"}),
        ({"without_text": 0.5}, {"posts without text"}),
        ({"shift": 1.0}, {"means of image, in deviations"}),
        ({"spread": 0.3}, {"spread of image, as a ratio"}),
        ({"norm": 2.5}, {name.replace("item", kind) for name in NORMS for kind in ("item", "user")}),
        ({"users": 150}, {"rows of interactions", "rows of user_embeddings"}),
    ],
)
def test_a_shift_is_a_jump(change: dict[str, Any], expected: set[str]) -> None:
    rng = np.random.default_rng(0)
    assert jumps(world(rng, 2000), world(rng, 2000, **change)) == expected


def test_what_moves_little_in_practice_is_no_jump_in_however_many_rows() -> None:
    rng = np.random.default_rng(0)
    languages = (0.27, 0.39, 0.12, 0.12, 0.07, 0.03)
    little: dict[str, Any] = {"languages": languages, "with_image": 0.65, "shift": 0.1, "spread": 1.2, "norm": 1.2}
    assert jumps(world(rng, 100_000), world(rng, 130_000, **little)) == set()


@pytest.mark.parametrize(
    ("before", "now", "rows", "jumped"),
    [
        (0.5, 0.58, 10_000, False),
        (0.5, 0.62, 10_000, True),
        (0.9, 0.97, 10_000, True),
        (0.02, 0.0, 10_000, True),
        (0.0, 0.02, 10_000, True),
        (0.0, 0.005, 10_000, False),
        (0.02, 0.0, 100, False),
        (0.5, 0.62, 100, False),
        (1.0, 0.0, 3, False),
        (1.0, 0.0, 10, True),
        (1.0, 1.0, 10_000, False),
    ],
)
def test_shares(before: float, now: float, rows: int, jumped: bool) -> None:
    (one,) = drift._share("a share", round(before * rows), rows, round(now * rows), rows)
    assert one.jumped is jumped
    assert one.low <= before <= one.high
    assert (one.low <= now <= one.high) is not jumped
    assert (one.before, one.now) == (pytest.approx(before), pytest.approx(now))


def test_shares_of_no_rows_are_not_compared() -> None:
    assert not list(drift._share("a share", 0, 0, 5, 10))
    assert not list(drift._values("values", {}, {"de": 100}))


@pytest.mark.parametrize(
    ("before", "now", "jumped"),
    [
        *((1000, 1900, False), (1000, 2100, True), (1000, 450, True), (10, 30, False), (4, 1, False)),
        *((5, 0, False), (100, 0, True), (0, 5, False), (0, 20, True), (0, 0, False)),
    ],
)
def test_numbers_of_rows(before: int, now: int, jumped: bool) -> None:
    one = drift._rows("rows", before, now)
    assert (one.jumped, not one.low <= now <= one.high) == (jumped, jumped)


def test_the_population_stability_index_is_the_one_of_the_books() -> None:
    """Of shares (.5, .3, .2) and (.4, .3, .3): .1 ln(.5 / .4) + .1 ln(.3 / .2)."""
    before, now = {"a": 500_000, "b": 300_000, "c": 200_000}, {"a": 400_000, "b": 300_000, "c": 300_000}
    (one,) = drift._values("values", before, now)
    assert one.now == pytest.approx(0.1 * math.log(0.5 / 0.4) + 0.1 * math.log(0.3 / 0.2), rel=1e-4)
    assert (one.low, one.high, one.jumped) == (0, drift.VALUES, False)
    assert one.most == "c from 0.200 to 0.300"


def test_many_rare_values_count_together() -> None:
    rare = {f"a{i}": 1 for i in range(500)}
    (one,) = drift._values("values", {"de": 100_000} | rare, {"de": 100_000} | {f"b{i}": 1 for i in range(500)})
    assert one.now == pytest.approx(0, abs=1e-6)


def features(rows: int, mean: list[float], deviation: list[float]) -> dict[str, Any]:
    return {"rows": rows, "mean": mean, "deviation": deviation}


def test_a_number_that_never_varied_counts_with_the_others() -> None:
    before = features(1000, [0.0] * 99 + [7.0], [1.0] * 99 + [0.0])
    now = features(1000, [0.0] * 99 + [8.0], [1.0] * 99 + [0.0])
    means, spread = drift._features("image", before, now)
    assert means.now == pytest.approx(drift.MOST / 10) and not means.jumped
    assert spread.now == 1 and not spread.jumped


def test_rounding_of_a_number_that_never_varied_is_nothing() -> None:
    means, spread = drift._features("image", features(100, [1e6], [0.0]), features(100, [1e6 + 1], [0.0]))
    assert means.now < 0.15 and spread.now == 1


def test_vectors_that_all_become_equal_jump() -> None:
    _, spread = drift._features("image", features(100, [1.0, 2.0], [1.0, 1.0]), features(100, [1.0, 2.0], [0.0, 0.0]))
    assert spread.jumped and spread.now < 1e-3


def test_what_was_made_in_another_way_is_said_and_not_compared() -> None:
    rng = np.random.default_rng(0)
    before = world(rng, 2000)
    made_with = {"image": "keras:x", "embeddings": "another space"}
    now = world(rng, 2000, shift=9, norm=9, with_image=0.3, made_with=made_with)
    assert drift.not_comparable(before, now) == {
        "image": "keras:x, was opencv",
        "embeddings": "another space, was a space",
    }
    assert jumps(before, now) == {"posts with image"}
    assert not {name for name in compare(before, now) if "norms" in name or "of image" in name}
    off = world(rng, 2000, with_image=0, made_with={"image": drift.OFF, "embeddings": "a space"})
    assert jumps(before, off) == set()


def test_a_modality_that_is_gone_jumps() -> None:
    rng = np.random.default_rng(0)
    before, now = world(rng, 2000), world(rng, 2000, made_with={"embeddings": "a space"})
    now["modalities"] = {}
    assert jumps(before, now) == {"posts with image"}
    assert compare(before, now)["posts with image"].now == 0


def test_a_day_that_is_unlike_the_day_before_jumps_in_a_table_that_is_hardly_moved() -> None:
    """Of 50,000 posts each run has 600 new ones; those of the last run have no picture and are in one language."""
    rng = np.random.default_rng(0)
    before, now = world(rng, 50_000), world(rng, 50_600)
    assert jumps(before | {"latest": world(rng, 600)}, now | {"latest": world(rng, 620)}) == set()
    broken = world(rng, 620, with_image=0, languages=(1, 0, 0, 0, 0, 0))
    found = jumps(before | {"latest": world(rng, 600)}, now | {"latest": broken})
    assert found == {"last day: posts with image", "last day: values of posts.lang"}
    nothing = world(rng, 0) | {"modalities": {}}
    assert "last day: rows of posts" in jumps(before | {"latest": world(rng, 600)}, now | {"latest": nothing})

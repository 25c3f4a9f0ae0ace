import numpy as np
import pytest

from transforms.embed import formulas
from transforms.embed.parameters import Content, Decoded, Mix, Own, Trend, Tuning
from transforms.linalg.vectors import unit_rows

RNG = np.random.default_rng(0)
NUM_POSTS, RANK, CONTENT = 40, 6, 5
FACTORS = RNG.standard_normal((NUM_POSTS, RANK)).astype(np.float32)
SINGULAR = np.array([6.0, 5, 4, 3, 2, 1])
DEGREE = np.concatenate([np.zeros(5), RNG.integers(1, 9, NUM_POSTS - 5)]).astype(float)
TOLD = RNG.standard_normal((NUM_POSTS, RANK)).astype(np.float32)
ROWS = unit_rows(RNG.standard_normal((NUM_POSTS, CONTENT)))


def test_own_block_against_the_formula() -> None:
    block = formulas.own_block(
        np.ones((2, 3)), np.array([4.0, 2, 1]), np.array([16.0, 0]), Own(rank=2, shrinkage=1.0, degree_power=0.25)
    )
    assert block[0] == pytest.approx([2 * 16 / 20, 2 * 4 / 8])
    assert block[1].tolist() == [0, 0]


def test_blocks_are_as_wide_as_there_are_factors() -> None:
    assert formulas.own_block(FACTORS, SINGULAR, DEGREE, Own(rank=64)).shape == (NUM_POSTS, RANK)
    assert formulas.decoded_block(TOLD, SINGULAR, k=64, e=2).shape == (NUM_POSTS, RANK)
    none = np.zeros((NUM_POSTS, 0))
    assert formulas.own_block(none, np.zeros(0), np.zeros(NUM_POSTS), Own()).shape == (NUM_POSTS, 0)
    assert formulas.decoded_block(none, np.zeros(0), k=64, e=2).shape == (NUM_POSTS, 0)


def test_decoded_block_grows_with_the_singular_values() -> None:
    assert formulas.decoded_block(np.ones((1, 3)), np.array([4.0, 2, 1]), k=2, e=1.5).tolist() == [
        [2, pytest.approx(2**0.5)]
    ]


def test_recency_halves_what_counts() -> None:
    recency = np.array([0, 0.25, 0.5], np.float32)
    assert formulas.recency_weights(recency, 0.25).tolist() == [1, 0.5, 0.25]
    assert formulas.recency_weights(recency, None).tolist() == [1, 1, 1]


def test_a_post_without_interactions_stands_in_a_profile_by_its_decoded_factors() -> None:
    widths = formulas.Widths(4, 3, CONTENT)
    added = formulas.profile_vectors(FACTORS, TOLD[:, :4], ROWS, DEGREE, widths)
    own, decoded, content = widths.slices
    np.testing.assert_allclose(added[0, own], TOLD[0, :4])
    np.testing.assert_allclose(added[0, decoded], TOLD[0, :3])
    np.testing.assert_allclose(added[-1, own], FACTORS[-1, :4] * DEGREE[-1] ** -0.25, rtol=1e-6)
    np.testing.assert_allclose(added[:, content], ROWS, rtol=1e-6)
    without = formulas.profile_vectors(FACTORS, TOLD[:, :0], ROWS, DEGREE, formulas.Widths(4, 0, CONTENT))
    assert not without[0, :4].any()


def test_the_inner_product_is_the_weighted_sum_of_blocks_standardized_for_each_user() -> None:
    mix, b = Mix(cold_weight=0.3, warm_weight=0.2), 0.7
    trend, weight = RNG.random(NUM_POSTS), RNG.random(7)
    own = formulas.own_block(FACTORS, SINGULAR, DEGREE, Own(rank=4))
    decoded = formulas.decoded_block(TOLD, SINGULAR, k=3, e=2)
    widths = formulas.Widths(4, 3, CONTENT)
    profiles = formulas.profile_vectors(FACTORS, TOLD, ROWS, DEGREE, widths)[:7]
    covariances = tuple(one.covariance() for one in formulas.block_moments(own, decoded, ROWS, DEGREE))
    scores = (
        formulas.user_vectors(profiles, covariances, b, mix, weight)
        @ formulas.item_vectors(own, decoded, ROWS, DEGREE, trend, mix).T
    )

    def standardized(block: slice, items: np.ndarray, among: np.ndarray) -> np.ndarray:
        raw = profiles[:, block] @ items.T
        return raw / raw[:, among].std(axis=1, keepdims=True)

    everyone = np.ones(NUM_POSTS, bool)
    expected = standardized(widths.slices[0], own, DEGREE > 0)
    expected += standardized(widths.slices[1], decoded, everyone) * np.where(DEGREE > 0, 0.2, 0.3)
    expected += standardized(widths.slices[2], ROWS, everyone) * 0.7 * 0.3 + np.outer(weight, trend)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def test_a_user_with_nothing_is_zeros_and_one_with_content_alone_is_not() -> None:
    covariances = (np.eye(2), np.eye(1), np.eye(2))
    users = formulas.user_vectors(np.array([[0.0] * 5, [0, 0, 0, 3, 4]]), covariances, 0.5, Mix(cold_weight=0.4), 7)
    assert users.tolist() == [[0] * 6, pytest.approx([0, 0, 0, 0.6 * 0.2, 0.8 * 0.2, 7])]


def test_a_block_that_tells_nothing_apart_is_left_out() -> None:
    users = formulas.user_vectors(np.ones((1, 3)), (np.eye(1), np.zeros((1, 1)), np.eye(1)), 1.0, Mix(cold_weight=1))
    assert users.tolist() == [[1, 0, 1, 0]]


def test_moments_of_parts_add_up() -> None:
    whole = formulas.block_moments(FACTORS, TOLD, ROWS, DEGREE)
    halves = [
        formulas.block_moments(*(a[rows] for a in (FACTORS, TOLD, ROWS, DEGREE))) for rows in (slice(20), slice(20, 40))
    ]
    for index, moments in enumerate(whole):
        one, other = halves[0][index], halves[1][index]
        summed = formulas.VectorMoments(one.rows + other.rows, one.total + other.total, one.outer + other.outer)
        np.testing.assert_allclose(summed.covariance(), moments.covariance())
    np.testing.assert_allclose(whole[0].covariance(), np.cov(FACTORS[5:].T, bias=True), rtol=1e-5)
    np.testing.assert_allclose(whole[1].covariance(), np.cov(TOLD.T, bias=True), rtol=1e-5)


def test_tuning_survives_its_file() -> None:
    found = Tuning(
        Own(48, 3.0, 0.15),
        0.125,
        None,
        Decoded(32, 1.5, 3.0, {"text": 0.3}),
        Content("text", 0.2),
        Mix(cold_weight=0.5),
        Trend(7.0, 0.5, 1.5, None, 19_000.25, 2.5),
    )
    assert Tuning.from_dict(found.to_dict()) == found
    assert Tuning.from_dict(Tuning().to_dict()) == Tuning()
    written = found.to_dict()
    assert written["own"] == {"rank": 48, "shrinkage": 3.0, "degree_power": 0.15}
    assert written["decoded"] == {"k": 32, "e": 1.5, "lam": 3.0, "weights": {"text": 0.3}}
    assert written["content"] == {"modality": "text", "b": 0.2}
    assert written["mix"] == {"cold_weight": 0.5, "warm_weight": 0.1}
    assert written["trend"] == {
        **{"half_life": 7.0, "newness": 0.5, "weight": 1.5, "away": None},
        **{"newest": 19_000.25, "per_user": 2.5},
    }
    del written["content_recency"]
    assert Tuning.from_dict(written).content_recency == 0.125

from collections.abc import Callable

import numpy as np
import pytest

from transforms.linalg import selection
from transforms.search import bfloat16


def vectors_of(kind: str, num: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((num, width)).astype(np.float32)
    if kind == "close":
        return (1 + 1e-3 * made).astype(np.float32)
    if kind == "spread":
        return made * np.exp(4 * rng.standard_normal((num, width))).astype(np.float32)
    return made * np.float32({"tiny": 1e-9, "huge": 1e9}.get(kind, 1.0))


def in_float64(queries: np.ndarray, posts: np.ndarray) -> np.ndarray:
    scores: np.ndarray = queries.astype(np.float64) @ posts.astype(np.float64).T
    return scores


@pytest.mark.parametrize("kind", ["normal", "close", "spread", "tiny", "huge"])
@pytest.mark.parametrize("width", [1, 7, 128, 700])
def test_no_score_is_further_from_its_product_than_the_error(kind: str, width: int) -> None:
    queries, posts = vectors_of(kind, 40, width, 1), vectors_of(kind, 300, width, 2)
    some, many = bfloat16.rounded(queries), bfloat16.rounded(posts)
    bits = bfloat16.products(bfloat16.tensor(some.bits), bfloat16.tensor(many.bits))
    assert bits.shape == (40, 300) and bits.dtype == np.int16
    scores = in_float64(queries, posts)
    error = np.broadcast_to(bfloat16.error(some, many)[:, None], scores.shape)
    positive = bits > 0
    assert positive.any()
    # From below, as what k posts reach is told; and from above, as who can win is.
    assert (bfloat16.least(bits)[positive] <= (scores + error)[positive]).all()
    bounds = selection.round_down(scores - error)
    asked = bounds >= bfloat16.SMALLEST
    assert (bits[asked] >= bfloat16.bits_below(bounds[asked])).all()
    # And it says something, where posts are about as long.
    if kind != "spread" and width > 1:
        assert np.median(error / np.outer(some.norms, many.norms)) < 0.01


def test_vectors_are_rounded_to_the_nearest_and_what_is_lost_is_told() -> None:
    # 1 + 2^-7 is the next number after 1.
    vectors = np.array([[1 + 2**-9, -1 - 2**-9 * 3], [2.0, 1e-3]], np.float32)
    found = bfloat16.rounded(vectors)
    assert bfloat16.to_float32(found.bits)[0].tolist() == [1, -1 - 2**-7]
    lost = [[2**-9, 2**-9], [0, float(vectors[1, 1]) - float(bfloat16.to_float32(found.bits)[1, 1])]]
    assert found.errors == pytest.approx(np.linalg.norm(lost, axis=1))
    assert found.norms == pytest.approx(np.linalg.norm(vectors.astype(np.float64), axis=1))


def test_bits_have_the_order_of_positive_numbers_and_negative_ones_are_below() -> None:
    numbers = np.array([-1e30, -1.0, -1e-30, 1e-30, 0.5, 1.0, 1.5, 1e30], np.float32)
    bits = bfloat16.bits_below(numbers)
    assert (bits[:3] < 0).all() and (np.diff(bits[3:]) > 0).all()
    assert (bfloat16.to_float32(bits[3:]) <= numbers[3:]).all()


def test_little_is_looked_at_in_vain_where_scores_are_large_beside_the_lengths_of_vectors() -> None:
    queries, posts = vectors_of("normal", 600, 128, 1), vectors_of("normal", 20_000, 128, 2)
    assert 0 < bfloat16.surplus(queries, posts, 100) < 0.005
    # Where a long part of all queries meets hardly anything of the posts, rounding it hides the scores.
    queries[:, 0] += 10_000
    posts[:, 0] = 0.01 + 1e-4 * posts[:, 0]
    assert bfloat16.surplus(queries, posts, 100) > 0.5
    # Nobody knows what there is to beat.
    assert bfloat16.surplus(-np.abs(queries), np.abs(posts), 100) == 1
    assert bfloat16.surplus(queries, posts[:50], 100) == 1


@pytest.fixture
def spending(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], bfloat16.Worth]:
    def make(faster: bool) -> bfloat16.Worth:
        monkeypatch.setattr(bfloat16, "is_faster", lambda: faster)
        return bfloat16.Worth()

    return make


def test_it_is_worth_it_after_much_has_been_multiplied(spending: Callable[[bool], bfloat16.Worth]) -> None:
    worth = spending(True)
    assert not worth.spend(1e9)
    assert worth.spend(1e12) and worth.spend(0)


def test_it_is_never_worth_it_where_it_is_not_faster(spending: Callable[[bool], bfloat16.Worth]) -> None:
    worth = spending(False)
    assert not worth.spend(1e12)


def test_a_library_that_sums_in_bfloat16_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bfloat16._sums_in_float32()

    def summed_in_bfloat16(queries: object, posts: object) -> np.ndarray:
        left, right = np.asarray(queries).astype(np.float32), np.asarray(posts).astype(np.float32)
        total = np.zeros((len(left), len(right)), np.float32)
        for i in range(left.shape[1]):
            total = bfloat16.to_float32(bfloat16.rounded(total + np.outer(left[:, i], right[:, i])).bits)
        return bfloat16.rounded(total).bits

    monkeypatch.setattr(bfloat16, "products", summed_in_bfloat16)
    assert not bfloat16._sums_in_float32()

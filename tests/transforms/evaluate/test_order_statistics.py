from collections.abc import Iterator

import numpy as np
import pytest

from transforms.evaluate import order_statistics


def reader(*pieces: np.ndarray) -> order_statistics.ReadNumbers:
    def read() -> Iterator[np.ndarray]:
        yield from pieces

    return read


@pytest.mark.parametrize(
    "numbers",
    [
        np.random.default_rng(0).integers(-(2**50), 2**50, 500),
        np.random.default_rng(1).integers(0, 9, 500),
        np.array([2**62, -(2**40), 5, 5, 5, 2**62 - 1]),
        np.array([7]),
    ],
)
def test_order_statistics_are_those_of_sorting(numbers: np.ndarray) -> None:
    read = reader(np.empty(0, np.int64), *np.array_split(numbers, 3))
    ordered = np.sort(numbers)
    for rank in {0, len(numbers) // 3, len(numbers) // 2, len(numbers) - 1}:
        assert order_statistics.order_statistic(read, rank) == ordered[rank]
    assert order_statistics.span(read) == (ordered[0], ordered[-1], len(numbers))


def test_at_most_the_share_lies_after_the_cut() -> None:
    times = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    assert order_statistics.newest_share(reader(times), 0.3) == 7
    assert order_statistics.newest_share(reader(times), 0.19) == 9  # both nines or none
    assert order_statistics.newest_share(reader(times), 0.2) == 8


def test_there_is_no_rank_beyond_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"rank must be in \[0, 2\), got 2"):
        order_statistics.order_statistic(reader(np.array([1, 2])), 2)
    assert order_statistics.span(reader()) == (0, 0, 0)

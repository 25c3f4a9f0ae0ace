"""Exact order statistics of more numbers than fit into memory, by a few passes."""

from collections.abc import Callable, Iterator

import numpy as np

# Reads the numbers anew each time it is called, in blocks of [n] int64.
ReadNumbers = Callable[[], Iterator[np.ndarray]]

_NUM_BINS = 1 << 16


def span(read: ReadNumbers) -> tuple[int, int, int]:
    """(smallest, largest, how many); (0, 0, 0) where there is none."""
    low, high, count = 0, 0, 0
    for numbers in read():
        if len(numbers):
            least, most = int(numbers.min()), int(numbers.max())
            low, high = (least, most) if not count else (min(low, least), max(high, most))
            count += len(numbers)
    return low, high, count


def order_statistic(read: ReadNumbers, rank: int) -> int:
    """The number of that rank from the smallest (0), by histograms of ever smaller ranges.

    Four passes at most: each narrows the range to a 2^16th.

    Raises:
      ValueError: there are not so many numbers.
    """
    low, high, count = span(read)
    if not 0 <= rank < count:
        raise ValueError(f"rank must be in [0, {count}), got {rank}")
    while high > low:
        width = -(-(high - low + 1) // _NUM_BINS)
        found = np.zeros(_NUM_BINS, np.int64)
        for numbers in read():
            inside = numbers[(numbers >= low) & (numbers <= high)]
            found += np.bincount((inside - low) // width, minlength=_NUM_BINS)
        before = np.cumsum(found)
        place = int(np.searchsorted(before, rank, side="right"))
        rank -= int(before[place] - found[place])
        low, high = low + place * width, min(low + (place + 1) * width - 1, high)
    return low


def newest_share(read: ReadNumbers, share: float) -> int:
    """The earliest time after which at most `share` of all times lie.

    Raises:
      ValueError: there is no time.
    """
    _, _, count = span(read)
    return order_statistic(read, count - 1 - int(share * count))

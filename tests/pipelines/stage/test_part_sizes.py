import pytest

from pipelines.command_line.options import RunError
from pipelines.stage import part_sizes


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(0, 1), (50_000, 1), (50_001, 2), (10_000_000, 200), (1_000_000_000, 2_000), (100_000_000_000, 20_000)],
)
def test_parts_grow_when_they_are_many(rows: int, expected: int) -> None:
    assert part_sizes.parts_of(rows) == expected
    assert rows / expected <= part_sizes.MAX_ROWS_PER_PART
    # A part is cut into as many pieces as there are parts.
    assert rows <= 50_000 or rows / expected / expected >= part_sizes.ROWS_PER_PIECE * 0.99


def test_what_no_worker_could_hold_is_refused() -> None:
    with pytest.raises(RunError, match="a table has 100,000,200,000 rows, more than 100,000,000,000"):
        part_sizes.parts_of(100_000_200_000)

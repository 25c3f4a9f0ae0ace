import numpy as np
import pytest

from transforms.linalg import runs


@pytest.mark.parametrize(
    ("values", "starts", "places"),
    [
        ([], [], []),
        ([5], [0], [0]),
        ([2, 2, 7, 7, 7, 1], [0, 2, 5], [0, 1, 0, 1, 2, 0]),
        ([1, 2, 1], [0, 1, 2], [0, 0, 0]),
        ([-1, -1], [0], [0, 1]),
    ],
)
def test_groups_of_equal_values(values: list[int], starts: list[int], places: list[int]) -> None:
    found = np.array(values, np.int64)
    assert runs.starts_of(found).tolist() == starts
    assert runs.sizes_of(runs.starts_of(found), len(found)).tolist() == np.diff([*starts, len(values)]).tolist()
    assert runs.places_in_runs(found).tolist() == places


def test_groups_of_sizes_some_of_them_empty() -> None:
    assert runs.places_in(np.array([2, 0, 3, 0])).tolist() == [0, 1, 0, 1, 2]
    assert runs.places_in(np.empty(0, np.int64)).tolist() == []


def test_mean_ranks_are_shared_by_equal_values_of_a_group() -> None:
    groups, values = np.array([1, 0, 1, 1, 0, 1]), np.array([5, 2, 3, 5, 1, 9])
    assert runs.mean_ranks(groups, values).tolist() == [1.5 / 4, 0.5, 0, 1.5 / 4, 0, 0.75]
    assert runs.mean_ranks(np.zeros(2, int), np.array([0.5, 0.5])).tolist() == [0.25, 0.25]
    assert runs.mean_ranks(np.empty(0, int), np.empty(0)).tolist() == []

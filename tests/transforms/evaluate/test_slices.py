import numpy as np

from tests.transforms.evaluate.test_set_fixtures import make_held_out
from transforms.evaluate import slices

HISTORY = np.array([[1, 1, 1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]])
TARGETS = np.array([[0, 0, 0, 0, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0, 1, 0]])


def test_slices_are_parts_of_users_and_of_targets() -> None:
    held_out = make_held_out(HISTORY, TARGETS, HISTORY[:1])
    image = np.array([False, False, True, False, False, True, False, False])
    found = {
        name: targets.toarray().astype(int).tolist() for name, targets in slices.slices(held_out, {"image": image})
    }
    nothing, first, second = [0] * 8, TARGETS[0].tolist(), TARGETS[1].tolist()
    assert found["new users"] == [nothing, second]
    assert found["other users"] == [first, nothing]
    assert found["warm posts"] == [nothing, [0, 1, 0, 0, 0, 0, 0, 0]]
    assert found["cold posts"] == [first, [0, 0, 0, 0, 0, 0, 1, 0]]
    assert found["posts with image"] == [[0, 0, 0, 0, 0, 1, 0, 0], nothing]
    # every third post is German: 0, 3, 6
    assert found["language de"] == [[0, 0, 0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0, 1, 0]]
    assert found["language en"] == [[0, 0, 0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]]
    assert list(found)[-2:] == ["language de", "language en"]  # as many targets: by name


def test_one_language_is_no_slice() -> None:
    held_out = make_held_out(HISTORY, np.eye(8)[[6, 3]], HISTORY[:1])
    assert not [name for name, _ in slices.slices(held_out, {}) if name.startswith("language")]

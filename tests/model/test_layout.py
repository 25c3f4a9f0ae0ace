import numpy as np
import pytest

from model.layout import Layout, Modality


def test_a_layout_goes_through_json_and_back() -> None:
    value = {
        "modalities": [{"name": "text", "offset": 0, "width": 2}, {"name": "x", "offset": 2, "width": 1}],
        "width": 3,
    }
    layout = Layout.from_dict(value)
    assert layout.to_dict() == value
    assert layout.names == ("text", "x")
    np.testing.assert_array_equal(layout.membership, [[1, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ((), "at least one modality"),
        ((Modality("a", 0, 0),), "width of modality a must be at least 1, got 0"),
        ((Modality("a", 0, 2), Modality("b", 3, 1)), "offset of modality b must be 2, got 3"),
        ((Modality("a", 0, 1), Modality("a", 1, 1)), "distinct"),
        ((Modality("collaborative", 0, 1), Modality("a", 1, 1)), "modality collaborative must be the last"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(modalities: tuple[Modality, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layout(modalities)


def test_a_layout_whose_width_is_not_the_sum_is_refused() -> None:
    with pytest.raises(ValueError, match="width of the layout must be 2"):
        Layout.from_dict({"modalities": [{"name": "a", "offset": 0, "width": 2}], "width": 5})


def test_directories_of_modalities_stay_below_their_parent() -> None:
    assert Modality("clip", 0, 1).directory == "clip"
    for name in ("..", "a/b", "C:\\x", "."):
        assert not set(Modality(name, 0, 1).directory) & set("./\\:")


def test_content_predicts_factors_if_there_are_both() -> None:
    alone = Layout((Modality("collaborative", 0, 3),))
    both = Layout((Modality("a", 0, 2), Modality("collaborative", 2, 3)))
    assert [layout.predicts_factors for layout in (alone, both, Layout((Modality("a", 0, 2),)))] == [False, True, False]
    assert both.narrowed(1).to_dict()["modalities"][1] == {"name": "collaborative", "offset": 2, "width": 1}

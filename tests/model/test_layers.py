from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from keras import ops

from model.encoders import AffineEncoder, ResidualEncoder
from model.layers import Corruption, Standardize


def test_what_stands_in_a_missing_modality_is_never_seen(new_layout: Callable[..., Any]) -> None:
    layer = Standardize(new_layout(a=2, b=1).to_dict())
    layer.mean.assign([1, 2, 3])
    layer.scale.assign([2, 2, 10])
    fused = np.array([[3, 0, 7], [np.nan, np.inf, 13]], np.float32)
    rows = ops.convert_to_numpy(layer(fused, np.array([[1, 0], [0, 1]], np.float32)))
    np.testing.assert_array_equal(rows, [[1, -1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.inverse(rows))[0, :2], [3, 0])


def test_corruption_masks_and_adds_noise_only_while_training(new_layout: Callable[..., Any]) -> None:
    random = np.random.default_rng(0)
    mask = (random.random((5000, 3)) < 0.7).astype(np.float32)
    layout = new_layout(a=4, b=1, c=16)
    rows = np.zeros((5000, 21), np.float32)
    layer = Corruption(layout.to_dict(), [0.0, 0.4, 0.9], noise=[0.25, 0.5, 0], seed=7)
    same, same_mask = layer(rows, mask, training=False)
    np.testing.assert_array_equal(ops.convert_to_numpy(same), rows)
    np.testing.assert_array_equal(ops.convert_to_numpy(same_mask), mask)
    noisy, left = (ops.convert_to_numpy(v) for v in layer(rows, mask, training=True))
    assert set(np.unique(left)) == {0, 1}
    assert (left <= mask).all()
    np.testing.assert_array_equal(left.any(axis=1), mask.any(axis=1))
    np.testing.assert_array_equal(left[:, 0], mask[:, 0])
    two = (mask[:, 0] == 1) & (mask[:, 1] == 1)
    assert left[two, 1].mean() == pytest.approx(0.6, abs=0.03)
    for index, modality in enumerate(layout.modalities):
        block = noisy[:, modality.columns]
        assert (block[left[:, index] == 0] == 0).all()
        assert block[left[:, index] == 1].std() == pytest.approx([0.25, 0.5, 0][index], rel=0.05)


def test_an_encoder_starts_linear_and_rows_with_less_keep_their_length(new_layout: Callable[..., Any]) -> None:
    layout = new_layout(a=3, b=3)
    layer = ResidualEncoder(layout.to_dict(), latent=6, hidden=8, dropout=0.5, seed=0)
    layer.linear.assign(np.eye(6))
    layer.usual.assign(2)
    block = np.array([1, 2, 2], np.float32)
    rows = np.stack([np.r_[block, block], np.r_[block, 0, 0, 0], np.zeros(6)]).astype(np.float32)
    code = ops.convert_to_numpy(layer(rows, np.array([[1, 1], [1, 0], [0, 0]], np.float32)))
    np.testing.assert_allclose(code[0], rows[0], rtol=1e-6)
    assert np.linalg.norm(code[1]) == pytest.approx(np.linalg.norm(code[0]), rel=1e-6)
    np.testing.assert_array_equal(code[2], 0)


def test_a_row_without_any_modality_has_the_code_zero_whatever_was_learned(new_layout: Callable[..., Any]) -> None:
    layer = ResidualEncoder(new_layout(a=2, b=2).to_dict(), latent=3, hidden=4, dropout=0.0, seed=0)
    layer.inner.bias.assign(np.ones(4))
    layer.outer.kernel.assign(np.ones((4, 3)))
    rows = np.zeros((2, 4), np.float32)
    code = ops.convert_to_numpy(layer(rows, np.array([[0, 0], [1, 0]], np.float32)))
    np.testing.assert_array_equal(code[0], 0)
    assert (code[1] != 0).all()


def test_columns_past_the_layout_are_dropped(new_layout: Callable[..., Any]) -> None:
    layer = Standardize(new_layout(a=1, b=2).to_dict())
    rows = layer(np.array([[1, 2, 3, np.nan]], np.float32), np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(ops.convert_to_numpy(rows), [[1, 2, 3]])


def test_an_affine_encoder_is_the_linear_map_it_is_given(new_layout: Callable[..., Any]) -> None:
    layer = AffineEncoder(new_layout(a=2, b=1).to_dict(), latent=2, hidden=4, dropout=0.5, seed=0)
    layer.linear.assign([[1, 0], [0, 1], [1, 1]])
    layer.offset.assign([[0, 0], [5, 0]])
    layer.bias.assign([0, 3])
    rows = np.array([[1, 2, 4], [1, 2, 0], [0, 0, 0]], np.float32)
    code = ops.convert_to_numpy(layer(rows, np.array([[1, 1], [1, 0], [0, 0]], np.float32)))
    np.testing.assert_array_equal(code, [[10, 9], [1, 5], [0, 0]])

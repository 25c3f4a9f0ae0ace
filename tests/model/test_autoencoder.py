from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from model.autoencoder import Autoencoder, ModalityErrors
from model.ridge import LinearAutoencoder, Scales
from model.statistics import TrainingMoments


@pytest.fixture
def model(new_layout: Callable[..., Any]) -> Autoencoder:
    """Of a layout a=2, b=2, and its moments those of unit modalities around 0."""
    return Autoencoder(
        layout=new_layout(a=2, b=2).to_dict(),
        latent=2,
        hidden=3,
        dropout=0.1,
        noise=0.1,
        modality_dropout=[0.5, 0.5],
        modality_weights=[1, 3],
    )


@pytest.fixture
def inputs() -> dict[str, np.ndarray]:
    fused = np.array([[1, 2, 3, 4], [5, 6, 0, 0], [0, 0, 0, 0]], np.float32)
    return {"fused": fused, "mask": np.array([[1, 1], [1, 0], [0, 0]], np.float32)}


def _nothing() -> LinearAutoencoder:
    """Of 4 columns, 2 modalities and 2 latent numbers: answers with the mean."""
    scales = Scales(units=[1.0, 1.0], noise=[0.0, 0.0], is_input=[1.0, 1.0], penalty=1.0)
    return LinearAutoencoder(np.zeros((4, 2)), np.zeros((2, 2)), np.zeros(2), np.zeros((2, 4)), scales)


def _numpy(values: Any) -> Any:
    return {name: ops.convert_to_numpy(value) for name, value in values.items()}


def test_a_model_starts_as_principal_components(model: Autoencoder, inputs: dict[str, np.ndarray]) -> None:
    moments = TrainingMoments(np.array([1.0, 1, 0, 0]), np.array([2.0, 4]), np.array([2, 1]), 2.0, np.ones(4))
    components = np.array([[1.0, 0, 0, 0], [0, 0, 0, 1]])
    model.initialize_pca(moments, components)
    found = _numpy(model(inputs))
    np.testing.assert_allclose(found["latent"][0], [0, 1], atol=1e-6)
    np.testing.assert_allclose(found["decoded"][0], [0, 0, 0, 1], atol=1e-6)
    decoded = ops.convert_to_numpy(model.decode(found["latent"]))
    np.testing.assert_allclose(decoded[0], [1, 1, 0, 4], atol=1e-6)
    kernel, bias = model.decoder_weights("b")
    np.testing.assert_allclose(found["latent"] @ kernel + bias, decoded[:, 2:], atol=1e-6)


def test_the_loss_is_over_what_is_there(model: Autoencoder, inputs: dict[str, np.ndarray]) -> None:
    decoded = np.array([[1, 1, 3, 2], [5, 6, 9, 9], [9, 9, 9, 9]], np.float32)
    loss = model.compute_loss(inputs, inputs, {"decoded": decoded})
    # Row 0: a errs by 1, b by 4 (weight 3); row 1: a by 0; nothing else is there. Weights: 1 + 3 + 1.
    assert float(loss) == pytest.approx((1 + 3 * 4 + 0) / 5)
    nothing = {"fused": inputs["fused"], "mask": np.zeros((3, 2), np.float32)}
    assert float(model.compute_loss(nothing, nothing, {"decoded": decoded})) == 0


def test_modalities_masked_while_training_still_count(model: Autoencoder, inputs: dict[str, np.ndarray]) -> None:
    inputs = {name: np.repeat(values[:1], 200, axis=0) for name, values in inputs.items()}
    input_mask = _numpy(model(inputs, training=True))["input_mask"]
    assert (input_mask == 0).sum() > 0 and (input_mask.max(axis=1) == 1).all()
    decoded = np.zeros((200, 4), np.float32)
    assert float(model.compute_loss(inputs, inputs, {"decoded": decoded, "input_mask": input_mask})) == pytest.approx(
        (5 + 3 * 25) / 4
    )


def test_errors_of_inputs_and_of_masked_modalities_are_separate() -> None:
    metric = ModalityErrors(["a", "b"])
    one = np.ones((2, 2), np.float32)
    metric.update_state(0.5 * one, 2 * one, one, np.array([[1, 1], [0, 1]], np.float32))
    metric.update_state(1.5 * one, 2 * one, one, np.array([[1, 1], [1, 1]], np.float32))
    found = {name: float(value) for name, value in metric.result().items()}
    assert found == pytest.approx(
        {"error_a": 3.5 / 6, "error_b": 0.5, "predicted_error_a": 0.25, "predicted_error_b": np.nan}, nan_ok=True
    )


def test_a_model_is_saved_and_loaded_by_keras(
    model: Autoencoder, inputs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    model.set_weights([random.random(weight.shape).astype(np.float32) for weight in model.get_weights()])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    for name, values in _numpy(model(inputs)).items():
        np.testing.assert_array_equal(_numpy(loaded(inputs))[name], values)


def test_a_model_that_predicts_factors_is_saved_and_loaded_by_keras(
    new_layout: Callable[..., Any], inputs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    input_scales = {"units": [0.5, 0.25], "noise": [0.1, 0.2], "is_input": [1.0, 1.0]}
    layout = new_layout(a=2, collaborative=2).to_dict()
    model = Autoencoder(layout, 3, 4, 0.1, 0.0, [0.2, 0.7], [1, 3], input_scales=input_scales)
    random = np.random.default_rng(0)
    model.set_weights([random.random(weight.shape).astype(np.float32) for weight in model.get_weights()])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config()["input_scales"] == input_scales
    for name, values in _numpy(model(inputs)).items():
        np.testing.assert_array_equal(_numpy(loaded(inputs))[name], values)


def test_the_loss_does_not_depend_on_the_units(new_layout: Callable[..., Any], inputs: dict[str, np.ndarray]) -> None:
    layout = new_layout(a=2, collaborative=2).to_dict()
    moments = TrainingMoments(np.array([1.0, 1, 0, 0]), np.array([2.0, 4]), np.array([2, 1]), 2.0, np.ones(4))
    losses = []
    for units in ([1.0, 1.0], [0.5, 0.1]):
        input_scales = {"units": units, "noise": [0.0, 0.0], "is_input": [1.0, 1.0]}
        model = Autoencoder(layout, 2, 3, 0.0, 0.0, [0, 0], [1, 3], input_scales=input_scales)
        model.initialize_linear(moments, _nothing())
        losses.append(float(model.compute_loss(inputs, inputs, model(inputs))))
    assert losses[0] == pytest.approx(losses[1])
    # Row 0: a is (0, 1) / 2 off its mean, b (3, 4) / 4; row 1: a (4, 5) / 2.
    assert losses[0] == pytest.approx((1 / 4 + 3 * 25 / 16 + 41 / 4) / (1 + 3 + 1))

import json
import pickle
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.transforms.media.media_fixtures import clouds, corners
from transforms.media.keras_image_encoder import KerasImageEncoder


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that gives the mean of each channel of what it is shown."""
    inputs = keras.Input((32, 48, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    path = tmp_path_factory.mktemp("models") / "pooled.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def convolved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with weights, an open input size and a map [n, h, w, 5] for an output."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(5, 3, strides=2, activation="relu")(inputs))
    path = tmp_path_factory.mktemp("models") / "convolved.keras"
    model.save(path)
    model.export(path.with_suffix(""))
    return path


def test_pixels_are_rgb_and_scaled(pooled: Path) -> None:
    picture = np.zeros((50, 70, 3), np.uint8)
    picture[...] = (10, 100, 200)  # blue, green, red
    encoder = KerasImageEncoder(str(pooled))
    assert encoder.width == 3
    assert np.allclose(encoder.encode([picture]), [[(200 - 127) / 128, (100 - 127) / 128, (10 - 127) / 128]])
    raw = KerasImageEncoder(f"{pooled}?scale=1&offset=0")
    assert np.allclose(raw.encode([picture]), [[200, 100, 10]])


def test_sidecar_sets_the_scaling(pooled: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(pooled.read_bytes())
    Path(f"{path}.json").write_text(json.dumps({"mean": [200, 100, 0], "std": [1, 2, 5]}))
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[...] = (10, 100, 210)
    assert np.allclose(KerasImageEncoder(str(path)).encode([picture]), [[10, 0, 2]])
    Path(f"{path}.json").write_text(json.dumps({"average": 3}))
    with pytest.raises(ValueError, match="size, mean and std, got average"):
        KerasImageEncoder(str(path))


def test_rows_do_not_depend_on_the_batch(convolved: Path) -> None:
    pictures = [clouds(60 + 10 * seed, 90, seed) for seed in range(19)]
    encoder = KerasImageEncoder(f"{convolved}?size=40")
    together = encoder.encode(pictures)
    assert together.shape == (19, 5) and together.dtype == np.float32
    for index in (0, 7, 18):
        assert np.array_equal(encoder.encode(pictures[index : index + 1])[0], together[index])
    assert encoder.encode([]).shape == (0, 5)


def test_saved_model_gives_the_same_as_keras_file(convolved: Path) -> None:
    pictures = [clouds(), corners()]
    from_file = KerasImageEncoder(f"{convolved}?size=40").encode(pictures)
    from_folder = KerasImageEncoder(f"{convolved.with_suffix('')}?size=40").encode(pictures)
    assert np.abs(from_file).max() > 0
    assert np.allclose(from_file, from_folder, atol=1e-5)


def test_encoder_travels_to_workers(pooled: Path) -> None:
    encoder = KerasImageEncoder(str(pooled))
    expected = encoder.encode([corners()])
    sent = pickle.dumps(encoder)
    assert len(sent) < 2000
    assert np.array_equal(pickle.loads(sent).encode([corners()]), expected)


@pytest.mark.parametrize(
    ("query", "message"),
    [("?scale=0", "scale not 0"), ("?scale=x", "scale must be a number, got x"), ("?gain=1", "option gain must be")],
)
def test_bad_options_are_refused(pooled: Path, query: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KerasImageEncoder(f"{pooled}{query}")


def test_missing_and_broken_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no .*none\.keras"):
        KerasImageEncoder(str(tmp_path / "none.keras"))
    (tmp_path / "broken.keras").write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot be loaded"):
        KerasImageEncoder(str(tmp_path / "broken.keras")).encode([corners()])
    flat = keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)])
    flat.save(tmp_path / "flat.keras")
    with pytest.raises(ValueError, match=r"needs an input \[n, h, w, 3\]"):
        KerasImageEncoder(str(tmp_path / "flat.keras")).encode([corners()])


def test_trained_network(shared_data: Path) -> None:
    path = shared_data.parent / "models" / "efficientnet_lite0.keras"
    if not path.exists():
        pytest.skip("the trained network is not beside this checkout")
    encoder = KerasImageEncoder(str(path))
    same, near, far = encoder.encode([clouds(), clouds(300, 225), corners()])
    assert encoder.width == same.shape[0] == 1280
    assert np.linalg.norm(same - near) < 0.5 * np.linalg.norm(same - far)

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from model import export as export_module
from model.autoencoder import Autoencoder
from model.export import export

READER = """
import json, sys
import numpy as np
import tensorflow as tf
directory, out = sys.argv[1:]
rows = np.load(out + ".npz")
encoder = tf.saved_model.load(directory + "/encoder").signatures["serving_default"]
latent = encoder(fused=tf.constant(rows["fused"]), mask=tf.constant(rows["mask"]))["latent"]
decoders = json.load(open(directory + "/model.json"))["paths"]["decoders"]
blocks = {}
for name, path in decoders.items():
    decoder = tf.saved_model.load(directory + "/" + path).signatures["serving_default"]
    blocks[name] = decoder(latent=latent)["values"].numpy()
one = encoder(fused=tf.constant(rows["fused"][:1]), mask=tf.constant(rows["mask"][:1]))["latent"]
assert "model" not in sys.modules and "keras" not in sys.modules, "the reader must not need them"
np.savez(out, latent=latent.numpy(), one=one.numpy(), **blocks)
"""


@pytest.fixture
def model(new_layout: Callable[..., Any]) -> Autoencoder:
    keras.utils.set_random_seed(3)
    layout = new_layout(**{"text": 3, "a/b": 2})
    made = Autoencoder(layout.to_dict(), 4, 5, 0.1, 0.1, [0.3, 0.3], [1, 1])
    random = np.random.default_rng(0)
    made.set_weights([random.normal(size=weight.shape).astype(np.float32) for weight in made.get_weights()])
    made.encoder.usual.assign(2)
    return made


def test_a_process_without_keras_3_or_this_package_reads_it(model: Autoencoder, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    fused, mask = random.normal(size=(7, 5)).astype(np.float32), np.array([[1, 1]] * 5 + [[1, 0], [0, 0]], np.float32)
    export(model, str(tmp_path / "model"), {})
    np.savez(tmp_path / "rows.npz", fused=fused, mask=mask)
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", READER, str(tmp_path / "model"), str(tmp_path / "rows")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read = np.load(tmp_path / "rows.npz")
    latent = np.asarray(model.encode(fused, mask))
    assert read["latent"].dtype == np.float32
    np.testing.assert_allclose(read["latent"], latent, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(read["one"], latent[:1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(read["latent"][6], 0)
    decoded = np.asarray(model.decode(latent))
    np.testing.assert_allclose(read["text"], decoded[:, :3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(read["a/b"], decoded[:, 3:], rtol=1e-4, atol=1e-5)


def test_an_earlier_model_is_replaced_and_nothing_else_is_left(model: Autoencoder, tmp_path: Path) -> None:
    for number in (1, 2):
        export(model, str(tmp_path / "model"), {"number": number})
    described = json.loads((tmp_path / "model" / "model.json").read_text())
    assert described["number"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    loaded = keras.models.load_model(tmp_path / "model" / described["paths"]["autoencoder"])
    assert loaded.get_config() == model.get_config()


def test_a_directory_with_other_content_is_left_alone(model: Autoencoder, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="output_dir must be new, empty or an earlier model"):
        export(model, str(tmp_path / "model"), {})
    assert (tmp_path / "model" / "thesis.txt").read_text() == "years of work"


def test_an_export_that_fails_leaves_the_earlier_model(model: Autoencoder, tmp_path: Path) -> None:
    export(model, str(tmp_path / "model"), {"number": 1})
    with pytest.raises(ValueError, match="JSON"):
        export(model, str(tmp_path / "model"), {"number": float("nan")})
    assert json.loads((tmp_path / "model" / "model.json").read_text())["number"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert export_module.ENCODER in os.listdir(tmp_path / "model")

"""Export of a trained autoencoder as files that load with TensorFlow alone, without Keras or this package."""

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from model.autoencoder import Autoencoder

ENCODER = "encoder"
DECODERS = "decoders"
DESCRIPTION = "model.json"
WARM_START = "warm_start.npz"


def export(
    model: Autoencoder,
    output_dir: str,
    description: Mapping[str, Any],
    fused_width: int | None = None,
    warm_start: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes a model directory atomically.

    - encoder/: SavedModel, signature serving_default: fused [n, D], mask [n, M] -> latent [n, L], all float32.
    - decoders/NAME/: SavedModel, serving_default: latent [n, L] float32 -> values [n, width] float32, in the units of
      the fused vector. For the collaborative modality width is that of the leading factors that were used, not
      its whole block. NAME is percent-encoded where it has characters that a file system may not take.
    - autoencoder.keras: the complete model for Keras 3 (import model.autoencoder before loading it).
    - model.json: the description.
    - warm_start.npz: initial weights for a later training (see model.warm_start), if given.

    Args:
      model: the model.
      output_dir: local. An empty directory or an earlier model is replaced.
      description: content of model.json besides the paths.
      fused_width: D; default the model's own width. The model uses the leading columns.
      warm_start: the arrays of warm_start.npz.

    Raises:
      ValueError: the directory contains something else.
    """
    output_dir = os.path.abspath(output_dir)
    check_replaceable(output_dir)
    os.makedirs(os.path.dirname(output_dir), exist_ok=True)
    temporary = f"{output_dir}-{uuid.uuid4().hex}.tmp"
    try:
        _write(model, temporary, description, fused_width or model.layout.width)
        if warm_start:
            np.savez(os.path.join(temporary, WARM_START), **warm_start)  # type: ignore[arg-type]
        shutil.rmtree(output_dir, ignore_errors=True)
        os.rename(temporary, output_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_replaceable(output_dir: str) -> None:
    """Raises ValueError if the directory contains something other than a model, which must not be replaced."""
    if not os.path.exists(output_dir):
        return
    if not os.path.isdir(output_dir) or (os.listdir(output_dir) and DESCRIPTION not in os.listdir(output_dir)):
        raise ValueError(f"output_dir must be new, empty or an earlier model, got {output_dir} with other content")


def _write(model: Autoencoder, directory: str, description: Mapping[str, Any], fused_width: int) -> None:
    os.makedirs(directory)
    _save(_encoder(model, fused_width), os.path.join(directory, ENCODER))
    decoders = {}
    for modality in model.layout.modalities:
        decoders[modality.name] = f"{DECODERS}/{modality.directory}"
        kernel, bias = model.decoder_weights(modality.name)
        _save(_linear(kernel, bias), os.path.join(directory, decoders[modality.name]))
    model.save(os.path.join(directory, "autoencoder.keras"))
    paths = {"encoder": ENCODER, "decoders": decoders, "autoencoder": "autoencoder.keras"}
    with open(os.path.join(directory, DESCRIPTION), "w", encoding="utf-8") as out:
        json.dump({**description, "paths": paths}, out, indent=1, sort_keys=True, allow_nan=False)
        out.write("\n")


def _encoder(model: Autoencoder, fused_width: int) -> tf.Module:
    # Holds the variables alone: Keras objects in a SavedModel would be looked at by whichever Keras loads it.
    module = tf.Module()
    layers = (model.standardize, model.encoder)
    module.weights = [variable.value for layer in layers for variable in layer.variables]
    specs = (
        tf.TensorSpec((None, fused_width), tf.float32, name="fused"),
        tf.TensorSpec((None, len(model.layout.modalities)), tf.float32, name="mask"),
    )
    module.serve = tf.function(lambda fused, mask: {"latent": model.encode(fused, mask)}, input_signature=specs)
    return module


def _linear(kernel: Any, bias: Any) -> tf.Module:
    module = tf.Module()
    module.kernel, module.bias = tf.Variable(kernel, trainable=False), tf.Variable(bias, trainable=False)
    specs = (tf.TensorSpec((None, kernel.shape[0]), tf.float32, name="latent"),)
    module.serve = tf.function(
        lambda latent: {"values": tf.linalg.matmul(latent, module.kernel) + module.bias}, input_signature=specs
    )
    return module


def _save(module: tf.Module, path: str) -> None:
    tf.saved_model.save(module, path, signatures={"serving_default": module.serve})

"""Warm start of training: the weights of an earlier run, in the coordinates of the new rows.

Collaborative factors of two runs differ by a rotation, and the standardization changes a little. Both are affine, so
they can be absorbed into the weights: for data that are only rotated, the model's output is the same as before.

Two sets of weights are saved, as trained and before interpolation: those from the training split, and those from all
rows. Each continues from its own kind, so that validation rows (by a hash of their ids: the same ones in every run)
have never been trained on when they are used for validation.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.linalg
from keras import ops

from model.autoencoder import Autoencoder
from model.config import TrainConfig
from model.export import DESCRIPTION, WARM_START
from model.initial_model import InitialModel
from model.layout import Layout

# Sets of weights: trained without the validation rows, or on all rows.
HELD_OUT, ALL = "held_out", "all"
# The layers' variables, and the standardization of the rows.
Weights = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Previous:
    """Earlier model, as a candidate warm start.

    Attributes:
      directory: local; an earlier run's model.json and, where training brought something, warm_start.npz.
      rotation: [F, F] orthogonal, F the factors used: new factors @ rotation approximate the old ones, both
        multiplied by the roots of their weights.
    """

    directory: str
    rotation: np.ndarray


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """Initial weights from an earlier run.

    Attributes:
      weights: of HELD_OUT and, if there are others, of ALL.
      rotation: see Previous.
      fingerprint: of both.
    """

    weights: Mapping[str, Weights]
    rotation: np.ndarray
    fingerprint: str


def load(previous: Previous, layout: Layout, config: TrainConfig) -> WarmStart | str:
    """The weights of an earlier run's model; or the reason, as text, that they are incompatible.

    Args:
      previous: where they are.
      layout: the blocks that are learned.
      config: the settings of the training that is to start.
    """
    with open(os.path.join(previous.directory, DESCRIPTION), encoding="utf-8") as file:
        described = json.load(file)
    if why := _why_not(described, layout, config):
        return why
    path = os.path.join(previous.directory, WARM_START)
    if not os.path.exists(path):
        return "the last training did not get beyond the ridge map"
    weights: dict[str, dict[str, np.ndarray]] = {}
    digest = hashlib.blake2b(previous.rotation.tobytes(), digest_size=16)
    with np.load(path) as saved:
        for key in sorted(saved.files):
            which, name = key.split("/")
            weights.setdefault(which, {})[name] = saved[key].astype(np.float64)
            digest.update(key.encode() + saved[key].tobytes())
    return WarmStart(weights, previous.rotation, digest.hexdigest())


def _why_not(described: Mapping[str, Any], layout: Layout, config: TrainConfig) -> str:
    before, now = described["config"], config.to_dict()
    for name, value in now.items():
        # The factors' weights are their singular values, which every interaction changes.
        if name != "factor_weights" and before.get(name) != value:
            return f"{name} is {value}, was {before.get(name)}"
    old = Layout.from_dict(described["layout"])
    used = old.narrowed(config.factors_used) if old.predicts_factors and config.factors_used else old
    if not (layout.predicts_factors and used.predicts_factors):
        return "there are no collaborative factors to predict"
    return "" if used == layout else "the modalities or their widths are others"


def weights_of(initial: InitialModel) -> dict[str, np.ndarray]:
    """The weights of a model, and the standardization of its rows."""
    layer = initial.model.standardize
    variables = {**_variables(initial.model), "mean": layer.mean, "scale": layer.scale}
    found = {name: ops.convert_to_numpy(variable) for name, variable in variables.items()}
    return found | {"emphasis": initial.moments.emphasis}


def flatten(weights: Mapping[str, Weights]) -> dict[str, np.ndarray]:
    """Weight sets (HELD_OUT, ALL) as arrays of one file, as `load` reads them."""
    return {f"{which}/{name}": array for which, arrays in weights.items() for name, array in arrays.items()}


def initialize(initial: InitialModel, warm: WarmStart, which: str) -> list[np.ndarray]:
    """Sets earlier weights on a model initialized to its ridge map; returns the ridge map's weights.

    The inner weights of a network with zero output, as in a ridge map, are arbitrary: the earlier ones are set there,
    so that interpolation between the two changes only the output weights of the network.
    """
    model = initial.model
    ridge = model.get_weights()
    transfer(warm.weights.get(which, warm.weights[HELD_OUT]), initial, warm.rotation)
    inner = {id(variable) for variable in model.encoder.inner.weights}
    pairs = zip(model.weights, model.get_weights(), ridge, strict=True)
    return [earlier if id(variable) in inner else own for variable, earlier, own in pairs]


def transfer(old: Weights, initial: InitialModel, rotation: np.ndarray) -> None:
    """Sets the weights of an earlier model, adapted to the new rows, on a model initialized to its ridge map.

    Its latent coordinates are rotated onto those of the ridge map, so that the two can be interpolated.

    Args:
      old: `weights_of` an earlier model of the same layout and settings.
      initial: the model and its ridge map.
      rotation: see Previous.
    """
    model = initial.model
    matrix, shift = _to_old_rows(old, initial, rotation)
    back = np.linalg.inv(matrix)
    by_mask = model.layout.membership * shift
    linear, offset = matrix @ old["linear"], old["offset"] + by_mask @ old["linear"]
    to_new = _latent_rotation(np.vstack([linear, offset, old["bias"]]), initial)
    rows, masks = np.split(old["inner"], [model.layout.width])
    now = {
        "inner": np.vstack([matrix @ rows, masks + by_mask @ rows]),
        "inner_bias": old["inner_bias"],
        "outer": old["outer"] @ to_new,
        "linear": linear @ to_new,
        "offset": offset @ to_new,
        "bias": old["bias"] @ to_new,
        "kernel": to_new.T @ old["kernel"] @ back,
        "decoder_bias": (old["decoder_bias"] - shift) @ back,
    }
    for name, variable in _variables(model).items():
        variable.assign(now[name])


def _variables(model: Autoencoder) -> dict[str, Any]:
    encoder = model.encoder
    return {
        "linear": encoder.linear,
        "offset": encoder.offset,
        "bias": encoder.bias,
        "kernel": model.decoder.kernel,
        "decoder_bias": model.decoder.bias,
        "inner": encoder.inner.kernel,
        "inner_bias": encoder.inner.bias,
        "outer": encoder.outer.kernel,
    }


def _to_old_rows(old: Weights, initial: InitialModel, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([D, D], [D]) that map standardized rows to their old coordinates: old = new @ matrix + shift."""
    layout, layer = initial.model.layout, initial.model.standardize
    rotated = np.eye(layout.width)
    factors = layout.modalities[-1].columns
    rotated[factors, factors] = rotation
    mean, scale = (np.asarray(ops.convert_to_numpy(v), np.float64) for v in (layer.mean, layer.scale))
    # Times the emphasis all columns of a modality have one scale, which a rotation preserves.
    emphasis, old_scale = initial.moments.emphasis, old["scale"] * old["emphasis"]
    matrix = rotated * (scale * emphasis)[:, None] / old_scale
    return matrix, ((mean * emphasis) @ rotated - old["mean"] * old["emphasis"]) / old_scale


def _latent_rotation(old: np.ndarray, initial: InitialModel) -> np.ndarray:
    """Orthogonal matrix [L, L] that rotates latent numbers, rows @ old, as close as possible to the ridge map's."""
    ridge, layout = initial.ridge_map, initial.model.layout
    if ridge is None:
        raise ValueError("only a model with a ridge map can be initialized by earlier weights")
    new = np.vstack([ridge.linear, ridge.offset, ridge.bias])
    units = np.r_[ridge.scales.columns(layout), np.ones(len(new) - layout.width)][:, None]
    # The products are of rows in other units than the maps'.
    left, _, right = scipy.linalg.svd((old / units).T @ initial.products.sums @ (new / units))
    rotation: np.ndarray = left @ right
    return rotation

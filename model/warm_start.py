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
from model.begin import Begun
from model.config import TrainConfig
from model.export import DESCRIPTION, WARM_START
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
      rotation: [F, F] orthogonal, F the factors used: new factors @ rotation are where the old ones are, both
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
            whose, name = key.split("/")
            weights.setdefault(whose, {})[name] = saved[key].astype(np.float64)
            digest.update(key.encode() + saved[key].tobytes())
    return WarmStart(weights, previous.rotation, digest.hexdigest())


def _why_not(described: Mapping[str, Any], layout: Layout, config: TrainConfig) -> str:
    before, now = described["config"], config.to_dict()
    for name, value in now.items():
        # The factors' weights are their singular values, which every interaction changes.
        if name != "factor_weights" and before.get(name) != value:
            return f"{name} is {value}, was {before.get(name)}"
    old = Layout.from_dict(described["layout"])
    used = old.narrowed(config.factors_used) if old.stands_in and config.factors_used else old
    if not (layout.stands_in and used.stands_in):
        return "there are no collaborative factors to tell"
    return "" if used == layout else "the modalities or their widths are others"


def weights_of(begun: Begun) -> dict[str, np.ndarray]:
    """The weights of a model, and the standardization of its rows."""
    layer = begun.model.standardize
    variables = {**_variables(begun.model), "mean": layer.mean, "scale": layer.scale}
    found = {name: ops.convert_to_numpy(variable) for name, variable in variables.items()}
    return found | {"emphasis": begun.moments.emphasis}


def flat(weights: Mapping[str, Weights]) -> dict[str, np.ndarray]:
    """Weight sets (HELD_OUT, ALL) as arrays of one file, as `load` reads them."""
    return {f"{whose}/{name}": array for whose, arrays in weights.items() for name, array in arrays.items()}


def start(begun: Begun, warm: WarmStart, whose: str) -> list[np.ndarray]:
    """Sets earlier weights on a model initialized to its ridge map; returns the ridge map's weights.

    The inner weights of a network with zero output, as in a ridge map, are arbitrary: the earlier ones are set there,
    so that interpolation from one to the other changes only its output weights.
    """
    model = begun.model
    ridge = model.get_weights()
    carry(warm.weights.get(whose, warm.weights[HELD_OUT]), begun, warm.rotation)
    inside = {id(variable) for variable in model.encoder.inner.weights} if model.encoder.hidden else set()
    pairs = zip(model.weights, model.get_weights(), ridge, strict=True)
    return [earlier if id(variable) in inside else own for variable, earlier, own in pairs]


def carry(old: Weights, begun: Begun, rotation: np.ndarray) -> None:
    """Sets the weights of an earlier model, adapted to the new rows, on a model initialized to its ridge map.

    Its latent coordinates are rotated onto those of the ridge map, so that the two can be interpolated.

    Args:
      old: `weights_of` an earlier model of the same layout and settings.
      begun: the model and its ridge map.
      rotation: see Previous.
    """
    model = begun.model
    matrix, shift = _change(old, begun, rotation)
    back = np.linalg.inv(matrix)
    by_mask = model.layout.membership * shift
    linear, offset = matrix @ old["linear"], old["offset"] + by_mask @ old["linear"]
    turn = _latent_turn(np.vstack([linear, offset, old["bias"]]), begun)
    now = {
        "linear": linear @ turn,
        "offset": offset @ turn,
        "bias": old["bias"] @ turn,
        "kernel": turn.T @ old["kernel"] @ back,
        "decoder_bias": (old["decoder_bias"] - shift) @ back,
    }
    if model.encoder.hidden:
        rows, masks = np.split(old["inner"], [model.layout.width])
        now |= {"inner": np.vstack([matrix @ rows, masks + by_mask @ rows]), "inner_bias": old["inner_bias"]}
        now |= {"outer": old["outer"] @ turn}
    for name, variable in _variables(model).items():
        variable.assign(now[name])


def _variables(model: Autoencoder) -> dict[str, Any]:
    encoder = model.encoder
    found = {name: getattr(encoder, name) for name in ("linear", "offset", "bias")}
    found |= {"kernel": model.decoder.kernel, "decoder_bias": model.decoder.bias}
    if encoder.hidden:
        found |= {"inner": encoder.inner.kernel, "inner_bias": encoder.inner.bias, "outer": encoder.outer.kernel}
    return found


def _change(old: Weights, begun: Begun, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([D, D], [D]) that map standardized rows to their old coordinates: old = new @ matrix + shift."""
    layout, layer = begun.model.layout, begun.model.standardize
    turn = np.eye(layout.width)
    factors = layout.modalities[-1].columns
    turn[factors, factors] = rotation
    mean, scale = (np.asarray(ops.convert_to_numpy(v), np.float64) for v in (layer.mean, layer.scale))
    # Times the emphasis all columns of a modality have one scale, which a rotation leaves alone.
    emphasis, old_scale = begun.moments.emphasis, old["scale"] * old["emphasis"]
    matrix = turn * (scale * emphasis)[:, None] / old_scale
    return matrix, ((mean * emphasis) @ turn - old["mean"] * old["emphasis"]) / old_scale


def _latent_turn(old: np.ndarray, begun: Begun) -> np.ndarray:
    """Orthogonal matrix [L, L] that rotates latent numbers, rows @ old, as close as possible to the ridge map's."""
    ridge, layout = begun.start, begun.model.layout
    if ridge is None:
        raise ValueError("only a model with a ridge map can take over weights")
    new = np.vstack([ridge.linear, ridge.offset, ridge.bias])
    units = np.r_[ridge.scales.columns(layout), np.ones(len(new) - layout.width)][:, None]
    # The products are of rows in other units than the maps'.
    left, _, right = scipy.linalg.svd((old / units).T @ begun.products.sums @ (new / units))
    turn: np.ndarray = left @ right
    return turn

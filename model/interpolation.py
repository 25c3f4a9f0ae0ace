"""Interpolation of weights between an initial and a trained model.

Fine-tuned weights are often better when averaged with those they started from (Wortsman et al. 2022, "Robust
fine-tuning of zero-shot models").
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np

SHARES = (0.25, 0.5, 0.75, 1.0)
# Share of the best interpolation's improvement that suffices: past it the reconstruction improves further, but rankings
# of cold posts do not.
ENOUGH = 0.5


def choose_share(
    model: keras.Model, initial: Sequence[np.ndarray], initial_loss: float, loss: Callable[[], float]
) -> tuple[float, float]:
    """Sets weights between the initial and the model's own ones; returns (their loss, the fraction of the way).

    Args:
      initial: weights with a larger loss than the model's.
      initial_loss: theirs.
      loss: computes the validation loss of the model with its current weights.
    """
    trained, losses = model.get_weights(), {}
    for share in SHARES:
        interpolate(model, initial, trained, share)
        losses[share] = loss()
    enough = initial_loss + ENOUGH * (min(losses.values()) - initial_loss)
    chosen = next(share for share in SHARES if losses[share] <= enough)
    interpolate(model, initial, trained, chosen)
    return losses[chosen], chosen


def interpolate(model: keras.Model, initial: Sequence[np.ndarray], trained: Sequence[np.ndarray], share: float) -> None:
    """Sets the model's weights to a fraction of the way from initial to trained ones."""
    weights = [one + np.float32(share) * (two - one) for one, two in zip(initial, trained, strict=True)]
    model.set_weights(trained if share == 1 else weights)

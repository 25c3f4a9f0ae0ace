"""A space of embeddings for tests, and a model that is two matrices."""

import json
from pathlib import Path

import numpy as np

from transforms.embed.embedding_space import Space
from transforms.embed.parameters import Content, Decoded, Mix, Own, Trend, Tuning

MODALITIES = (("text", 0, 4), ("image", 4, 2), ("time", 6, 2), ("collaborative", 8, 3))
WIDTH = 11
SINGULAR_VALUES = np.array([3.0, 2.0, 0.5])
NUM_POSTS = 25
TUNING = Tuning(
    own=Own(rank=2, shrinkage=3.0, degree_power=0.25),
    recency=0.5,
    content_recency=0.5,
    decoded=Decoded(k=3, e=1.5),
    content=Content("text", b=0.4),
    mix=Mix(cold_weight=0.3, warm_weight=0.2),
    trend=Trend(half_life=5.0, newness=0.5, weight=1.5, away=20.0, newest=100.0, per_user=1.0),
)
LATENT = 5
BIAS = 0.1


def make_space(tuning: Tuning = TUNING) -> Space:
    """Text, image and time, and three factors."""
    return Space(MODALITIES, SINGULAR_VALUES, NUM_POSTS, tuning)


def own_space(width: int, mix: Mix = Mix(), recency: float | None = None) -> Space:  # noqa: B008 - frozen
    """A space with nothing but the block of own factors."""
    return Space(
        (("collaborative", 0, width),), np.ones(width), 1, Tuning(own=Own(rank=width), recency=recency, mix=mix)
    )


def weights_of(width: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The matrices of `write_model`: [width, LATENT] and [LATENT, rank] float32."""
    rng = np.random.default_rng(0)
    return (
        rng.standard_normal((width, LATENT)).astype(np.float32),
        rng.standard_normal((LATENT, rank)).astype(np.float32),
    )


def write_model(
    directory: Path,
    modalities: tuple[tuple[str, int, int], ...],
    encoder: np.ndarray,
    decoder: np.ndarray | None,
) -> None:
    """A model directory: latent = (fused where the mask has something) @ encoder, values = latent @ decoder + BIAS."""
    import tensorflow as tf

    spread = np.repeat(np.eye(len(modalities), dtype=np.float32), [width for _, _, width in modalities], axis=1)

    class Encoder(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, len(encoder)], tf.float32, name="fused"),
                tf.TensorSpec([None, len(modalities)], tf.float32, name="mask"),
            ]
        )
        def serve(self, fused: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"latent": (fused * (mask @ spread)) @ encoder}

    class Decoder(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, encoder.shape[1]], tf.float32, name="latent")])
        def serve(self, latent: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"values": latent @ decoder + BIAS}

    decoders = {}
    module = Encoder()
    tf.saved_model.save(module, str(directory / "encoder"), signatures=module.serve)
    if decoder is not None:
        decoders["collaborative"] = "decoders/collaborative"
        second = Decoder()
        tf.saved_model.save(second, str(directory / decoders["collaborative"]), signatures=second.serve)
    paths = {"encoder": "encoder", "decoders": decoders}
    (directory / "model.json").write_text(json.dumps({"paths": paths}))

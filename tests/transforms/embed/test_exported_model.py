from pathlib import Path

import numpy as np
import pytest

from tests.transforms.embed.space_fixtures import LATENT, MODALITIES, WIDTH, weights_of, write_model
from transforms.embed import exported_model


def test_latents_are_what_the_encoder_gives_also_without_a_decoder(tmp_path: Path) -> None:
    encoder, _ = weights_of(WIDTH, 3)
    write_model(tmp_path, MODALITIES, encoder, None)
    rng = np.random.default_rng(2)
    fused = rng.standard_normal((exported_model.BATCH_ROWS + 3, WIDTH)).astype(np.float32)
    mask = rng.integers(0, 2, (len(fused), len(MODALITIES))).astype(np.float32)
    mask[0] = 0
    predictor = exported_model.FactorPredictor(str(tmp_path))
    found = predictor.latents(fused, mask)
    seen = fused * np.repeat(mask, [width for _, _, width in MODALITIES], axis=1)
    assert found.shape == (len(fused), LATENT) and not found[0].any()
    np.testing.assert_allclose(found, seen @ encoder, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="not finite"):
        predictor.latents(np.full((1, WIDTH), np.inf, np.float32), np.ones((1, len(MODALITIES)), np.float32))

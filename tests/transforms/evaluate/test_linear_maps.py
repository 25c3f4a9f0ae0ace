import numpy as np
import pyarrow as pa
import pytest

from transforms.embed import exported_model
from transforms.embed.parameters import Decoded
from transforms.evaluate import content_baselines, linear_maps
from transforms.fuse import transform_fn
from transforms.fuse.tft_graph import ModalityBlock
from transforms.linalg import ridge
from transforms.tables import blocks, parquet

LAYOUT = transform_fn.FusedLayout(
    (ModalityBlock("text", 0, 5, 5), ModalityBlock("image", 5, 3, 3), ModalityBlock("collaborative", 8, 4, 4))
)
WIDTHS = [5, 3, 4]
NUM_POSTS = 300


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """A table of fused vectors in two parts, and what is in it: fused, mask, degree."""
    rng = np.random.default_rng(0)
    mask = np.ones((NUM_POSTS, 3), np.float32)
    mask[::3, 1] = 0
    mask[::4, 2] = 0
    fused = (rng.standard_normal((NUM_POSTS, 12)) + 0.5).astype(np.float32)
    fused[:, 8:] += fused[:, :8] @ rng.standard_normal((8, 4)).astype(np.float32)
    fused *= np.repeat(mask, WIDTHS, axis=1)
    degree = np.where(mask[:, 2] > 0, 2.0, 0.0)
    directory = str(tmp_path_factory.mktemp("fused"))
    columns = [
        pa.array([f"p{i}" for i in range(NUM_POSTS)]),
        *map(blocks.numpy_to_vectors, (fused, mask)),
        pa.array(degree),
    ]
    block = pa.RecordBatch.from_arrays(columns, names=["post_id", "fused", "mask", "degree"])
    for part, rows in enumerate((block.slice(0, 100), block.slice(100))):
        parquet.write_file(f"{directory}/part-{part}.parquet", rows, rows.schema)
    transform_fn.write_layout(LAYOUT, directory)
    return directory, fused, mask, degree


def content_only(mask: np.ndarray) -> np.ndarray:
    return np.asarray(mask * np.array([1, 1, 0], np.float32))


@pytest.mark.parametrize("weights", [{"text": 3.0, "image": 0.3}, {"text": 1.0, "image": 0.0}])
def test_the_ridge_map_is_the_one_of_tuning(
    world: tuple[str, np.ndarray, np.ndarray, np.ndarray], weights: dict[str, float]
) -> None:
    directory, fused, mask, degree = world
    found = linear_maps.content_sums(directory)
    assert found.num_rows == (degree > 0).sum()
    coefficients = linear_maps.ridge_coefficients(found, Decoded(lam=5.0, weights=weights), 2)
    told = exported_model.LinearFactorPredictor(coefficients, found.widths).factors(fused, content_only(mask))
    present = {"text": mask[:, 0] > 0, "image": mask[:, 1] > 0}
    design = ridge.design({"text": fused[:, :5], "image": fused[:, 5:8]}, present, NUM_POSTS)
    sums = ridge.sums(design.columns, fused[:, 8:10], np.flatnonzero(degree > 0))
    expected = design.columns @ ridge.solve(sums, design.scales(weights), 5.0)
    np.testing.assert_allclose(told, expected, rtol=1e-4, atol=1e-4)


def test_a_map_tells_nothing_of_posts_without_content() -> None:
    stand_in = exported_model.LinearFactorPredictor(np.ones((16, 2)), np.array(WIDTHS))
    fused = np.ones((2, 12), np.float32)
    told = stand_in.factors(fused, np.array([[1, 0, 0], [0, 0, 0]], np.float32))
    assert told.tolist() == [[7.0, 7.0], [0.0, 0.0]] and stand_in.knows_factors


def test_principal_components_are_those_of_standardized_content(
    world: tuple[str, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    directory, fused, mask, degree = world
    known = content_baselines.moments(directory)
    to_latent = linear_maps.pca_map(known, np.array([True, True, False]), 3)
    latents = np.hstack([fused * np.repeat(mask, WIDTHS, axis=1), mask, np.ones((NUM_POSTS, 1))]) @ to_latent
    assert latents.shape == (NUM_POSTS, 4) and (latents[:, 3] == 1).all()
    pieces = []
    for number, part in enumerate((slice(0, 5), slice(5, 8))):
        there = mask[:, number] > 0
        centered = (fused[:, part] - fused[there, part].mean(axis=0)) * there[:, None]
        pieces.append(centered / np.sqrt(np.square(centered).sum() / NUM_POSTS))
    rows = np.hstack(pieces)
    assert np.trace(rows.T @ rows) == pytest.approx(2 * NUM_POSTS, rel=1e-4)
    values = np.linalg.svd(rows, compute_uv=False)[:3]
    # The moments' covariance is around zero, as is this.
    np.testing.assert_allclose(np.sort(np.linalg.norm(latents[:, :3], axis=0))[::-1], values, rtol=1e-3)
    whole = linear_maps.pca_coefficients(linear_maps.content_sums(directory), known, 8, 1e-6, 4)
    told = exported_model.LinearFactorPredictor(whole, np.array(WIDTHS)).factors(fused, content_only(mask))
    rows_of = degree > 0
    design = np.hstack([rows, np.ones((NUM_POSTS, 1))])[rows_of]
    exact = design @ np.linalg.lstsq(design, fused[rows_of, 8:], rcond=None)[0]
    np.testing.assert_allclose(told[rows_of], exact, atol=2e-3)  # all components: nothing is lost

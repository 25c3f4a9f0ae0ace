"""Catalogs on disk whose posts lie by cell, as recommend leaves them."""

from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa

from tests.transforms.search.test_top_k import make_candidates
from transforms.search import cells, regions
from transforms.search.catalog import Catalog
from transforms.tables import blocks, parquet, schemas

WIDTH = 12


def make_vectors(rng: np.random.Generator, num_rows: int) -> np.ndarray:
    """Points about 30 centers, of which few directions matter."""
    centers = np.random.default_rng(9).standard_normal((30, WIDTH))
    scales = np.concatenate([np.full(4, 1.0), np.full(WIDTH - 4, 0.02)])
    values = centers[rng.integers(0, 30, num_rows)] + 0.2 * rng.standard_normal((num_rows, WIDTH))
    return (values * scales).astype(np.float32)


def make_posts(rng: np.random.Generator, num_posts: int) -> pa.RecordBatch:
    """Candidates of which some are alike to the last digit, some without embedding, some sensitive."""
    vectors = make_vectors(rng, num_posts)
    vectors[: num_posts // 20] = vectors[num_posts // 2]
    vectors[rng.choice(num_posts, num_posts // 10, replace=False)] = 0
    authors = [None if i % 9 == 0 else f"a{i}" for i in rng.integers(0, num_posts // 8, num_posts)]
    return make_candidates(vectors, author_id=authors, sensitive=rng.random(num_posts) < 0.2)


def write_catalog(
    new_pipeline: Callable[[], beam.Pipeline],
    directory: Path,
    candidates: pa.RecordBatch,
    users: np.ndarray,
    num_cells: int,
    num_parts: int = 3,
    row_group_rows: int = 100,
) -> Catalog:
    """What `recommend` writes for these candidates, and users with embeddings [n, d] float32."""
    made = directory / "candidates"
    embeddings = {"item_embeddings": candidates.column("embedding"), "user_embeddings": blocks.numpy_to_vectors(users)}
    for table, column in embeddings.items():
        block = pa.RecordBatch.from_arrays([column], ["embedding"])
        half = len(column) // 2
        for part, piece in enumerate((block.slice(0, half), block.slice(half))):
            parquet.write_file(parquet.part_path(str(directory / table), part), piece, block.schema)
    with new_pipeline() as root:
        fitted = root | beam.Create([str(directory / "item_embeddings")]) | beam.Map(
            cells.fit, str(directory / "user_embeddings"), num_cells, str(made / regions.CELLS_DIR)
        )  # fmt: skip
        given = root | "Given" >> beam.Create(list(enumerate(blocks.split_rows(candidates, 170))))
        ordered = given | cells.OrderByCell(fitted, num_parts)
        width = candidates.schema.field("embedding").type.list_size
        in_regions = parquet.WriteParts(str(made / regions.REGIONS_DIR), schemas.regions(width))
        _ = ordered.regions | "Regions" >> in_regions
        schema = schemas.candidates(width, 1, cells.leading_width(width))
        _ = ordered.parts | parquet.WriteParts(str(made), schema, parquet.FileLayout(row_group_rows, "none"))
    return Catalog(str(made))

"""Small histories, their matrices, and the obvious way to make the same in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from transforms.interactions import collaborative_factors, interaction_matrix
from transforms.linalg import tiled_matrix
from transforms.linalg.tiled_matrix import TiledMatrix, open_matrix
from transforms.tables import blocks, counts, parquet, schemas

NewPipeline = Callable[[], beam.Pipeline]
Rows = list[dict[str, Any]]


def tasteful(num_users: int, num_posts: int, num_topics: int = 5, seed: int = 0) -> Rows:
    """Users who mostly like posts of a topic or two; strengths and degrees differ."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        taste = rng.random(num_topics) ** 4
        odds = taste[np.arange(num_posts) % num_topics] / (np.arange(num_posts) + 5) ** 0.4
        liked = rng.choice(num_posts, min(num_posts, int(rng.integers(5, 30))), replace=False, p=odds / odds.sum())
        rows += [row(f"u{user}", f"p{post}", float(rng.choice([0.2, 1, 1.5])), days=int(post)) for post in liked]
    return rows


def row(user: str, post: str, strength: float = 1.0, days: int | None = 0, weight: float | None = None) -> dict:
    """One row of a history."""
    when = None if days is None else days * 86_400_000_000
    weight = strength if weight is None else weight
    return {
        "user_id": user, "post_id": post, "weight": weight, "strength": strength, "recency": 0.0,
        "num_interactions": 1, "created_at": when,
    }  # fmt: skip


def write_history(directory: str, rows: Rows, num_parts: int = 3) -> None:
    """history/ as MakeHistory writes it."""
    block = pa.RecordBatch.from_pylist(rows, schema=schemas.HISTORY)
    for part, found in blocks.partition(block, "user_id", num_parts):
        parquet.write_file(f"{directory}/part-{part:05d}.parquet", found, schemas.HISTORY)


def make_matrix(
    new_pipeline: NewPipeline, directory: Path, rows: Rows, num_parts: int = 1, history_parts: int = 3, **caps: int
) -> TiledMatrix:
    """The matrix of a history, in directory / "matrix"; its counts lie beside it."""
    write_history(str(directory / "history"), rows, history_parts)
    with new_pipeline() as root:
        read = root | parquet.ReadParts(str(directory / "history"), interaction_matrix.COLUMNS)
        made = read | interaction_matrix.MakeMatrix(str(directory / "matrix"), num_parts, **caps)
        _ = made.counts | counts.WriteCounts(str(directory / "matrix"))
    return open_matrix(str(directory / "matrix"))


def scaled(rows: Rows) -> tuple[np.ndarray, list[str], list[str]]:
    """(R / (degree of user ^ .25 x degree of post ^ .25), users, posts), rows and columns sorted by id."""
    users, posts = sorted({r["user_id"] for r in rows}), sorted({r["post_id"] for r in rows})
    matrix = np.zeros((len(users), len(posts)))
    for r in rows:
        matrix[users.index(r["user_id"]), posts.index(r["post_id"])] = np.float32(r["strength"])
    of_user, of_post = np.maximum(matrix.sum(1), 1), np.maximum(matrix.sum(0), 1)
    return matrix / of_user[:, None] ** 0.25 / of_post**0.25, users, posts


def posts_of(matrix: TiledMatrix) -> list[str]:
    """The ids of the matrix's posts, part after part."""
    parts = [tiled_matrix.read_posts(matrix.directory, part) for part in sorted(matrix.column_parts)]
    return [post for block in parts for post in block.column("post_id").to_pylist()]


def dense(matrix: TiledMatrix) -> np.ndarray:
    """The tiles put together: [users in their own order, posts sorted by id]."""
    tiles = [[matrix.tile(a, b).toarray() for b in sorted(matrix.column_parts)] for a in sorted(matrix.row_parts)]
    whole: np.ndarray = np.block(tiles)
    return whole[:, np.argsort(posts_of(matrix))]


def factorize(
    new_pipeline: NewPipeline, matrix: TiledMatrix, factors: int, **more: int
) -> tuple[collaborative_factors.Solution, np.ndarray]:
    """(the solution, [num_posts, F] factors of the posts sorted by id)."""
    with new_pipeline() as root:
        solved = root | collaborative_factors.FactorizeMatrix(matrix, factors, **more)
        _ = solved | beam.Map(collaborative_factors.write_solution, matrix.directory)
    solution = collaborative_factors.read_solution(matrix.directory)
    with new_pipeline() as root:
        found = root | collaborative_factors.ReadFactors(matrix, solution)
        schema = schemas.collaborative(len(solution.singular_values))
        _ = found | parquet.WriteParts(f"{matrix.directory}/collaborative", schema)
    parts = [parquet.read_file(path) for path in parquet.list_files(f"{matrix.directory}/collaborative")]
    whole = blocks.sort(blocks.concat(parts), "post_id")
    return solution, blocks.vectors_to_numpy(whole.column("factors")).astype(np.float64)

"""What the stages from fuse to recommend leave, made from posts/ and users/ without any work: tables that are valid."""

import numpy as np
import pyarrow as pa

from pipelines.command_line.options import Options
from pipelines.stage.declaration import Places, Stage
from transforms.tables import blocks, files, parquet, schemas

WIDTH, LISTS = 4, 3
TABLES = ("history", "collaborative", "fused", "item_embeddings", "post_profiles", "user_embeddings", "user_scales")


def vectors_of(ids: pa.Array, width: int) -> pa.Array:
    """Vectors that are told by the ids: the same in every run."""
    hashes = blocks.stable_hash(ids)
    numbers = [blocks.splitmix(hashes ^ np.uint64(place)) / 2.0**64 for place in range(width)]
    return blocks.numpy_to_vectors(np.stack(numbers, axis=1) + 0.1)


def _lists(key: str, ids: pa.Array, schema: pa.Schema, **columns: str) -> pa.RecordBatch:
    places = pa.array(np.repeat(np.arange(len(ids)), LISTS))
    rank = np.tile(np.arange(1, LISTS + 1, dtype=np.int32), len(ids))
    same = {name: [value] * len(rank) for name, value in columns.items()}
    made = {key: ids.take(places), "rank": rank, "score": np.ones(len(rank), np.float32), **same}
    return schemas.conform(pa.RecordBatch.from_pydict(made), schema)


def write(options: Options, places: Places) -> None:
    """Runs the stage."""
    posts, users = (
        parquet.to_block(
            pa.Table.from_batches(
                list(parquet.read_blocks(places.input(name), 10_000, [key])),
                pa.schema([pa.field(key, pa.string(), nullable=False)]),
            )
        ).column(key)
        for name, key in (("posts", "post_id"), ("users", "user_id"))
    )
    zeros, ones = np.zeros(len(posts)), np.ones(len(users))
    post, user = {"post_id": posts}, {"user_id": users}
    embedding, profile = vectors_of(posts, WIDTH), vectors_of(posts, 2)
    flags = dict.fromkeys(("sensitive", "is_repost", "is_reply"), zeros.astype(bool))
    made = {
        "history": (schemas.HISTORY, {}),
        "collaborative": (schemas.collaborative(2), post | {"factors": profile, "degree": zeros}),
        "fused": (
            schemas.fused(WIDTH, 2),
            post | {"fused": embedding, "mask": profile, "degree": zeros, "trend": zeros},
        ),
        "item_embeddings": (schemas.item_embeddings(WIDTH), post | {"embedding": embedding}),
        "post_profiles": (schemas.post_profiles(2), post | {"profile": profile}),
        "user_embeddings": (
            schemas.user_embeddings(WIDTH),
            user
            | {
                "embedding": vectors_of(users, WIDTH),
                "num_interactions": ones.astype(int),
                "source": ["both"] * len(users),
            },
        ),
        "user_scales": (schemas.user_scales(2), user | {"scales": vectors_of(users, 2)}),
        "candidates": (
            schemas.candidates(WIDTH, 2),
            post | flags | {"embedding": embedding, "profile": profile, "popularity": zeros},
        ),
    }
    written = {
        name: schemas.conform(pa.RecordBatch.from_pydict(columns), schema) if columns else schemas.empty(schema)
        for name, (schema, columns) in made.items()
    }
    written["recommendations"] = _lists("user_id", users, schemas.RECOMMENDATIONS, post_id="p", reason="popular")
    written["similar_posts"] = _lists("post_id", posts, schemas.SIMILAR_POSTS, neighbor_id="p")
    for name, rows in written.items():
        parquet.write_file(parquet.part_path(places.output(name), 0), rows, rows.schema)
    about = {"since": "2026-01-01", "previous": "", "why_new": "", "settings": {}}
    files.write_json(places.output("transform_fn") + "/_lineage.json", about)


STAGE = Stage(
    "recommend",
    reads=("posts", "users"),
    writes=(*TABLES, "transform_fn", "candidates", "recommendations", "similar_posts"),
    run=write,
    tensorflow=False,
)

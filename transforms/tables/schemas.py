"""The one declaration of every table that fusefeed reads or writes (Arrow schemas)."""

from collections.abc import Mapping

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")

MEDIA_ENTRY = pa.struct([("kind", pa.string()), ("uri", pa.string()), ("alt", pa.string())])

POSTS = pa.schema(
    [
        pa.field("post_id", pa.string(), nullable=False),
        ("author_id", pa.string()),
        ("created_at", TIMESTAMP),
        ("text", pa.string()),
        ("lang", pa.string()),
        ("hashtags", pa.list_(pa.string())),
        ("media", pa.list_(MEDIA_ENTRY)),
        ("reply_to", pa.string()),
        ("repost_of", pa.string()),
        pa.field("sensitive", pa.bool_(), nullable=False),
        ("labels", pa.list_(pa.string())),
        ("vectors", pa.map_(pa.string(), pa.list_(pa.float32()))),
    ]
)

INTERACTIONS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("post_id", pa.string(), nullable=False),
        ("kind", pa.string()),
        ("created_at", TIMESTAMP),
        ("value", pa.float64()),
    ]
)

USERS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        ("interests", pa.list_(pa.string())),
        ("bio", pa.string()),
        ("lang", pa.string()),
        ("blocked_authors", pa.list_(pa.string())),
    ]
)

REJECTS = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        ("line", pa.int64()),
        ("record", pa.string()),
        ("id", pa.string()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("code", pa.string(), nullable=False),
        ("message", pa.string()),
    ]
)

# A user's aggregated interactions with a post, over all kinds of interactions and with pure reposts resolved to their
# original. `weight` is the sum of kind x rating x age (negative counts against); `strength` the sum of the kinds'
# weights alone, cut to [0, 2]; `recency` the post's relative rank in the user's own history, from 0 (newest) to near 1
# (oldest), 0 for all if none has a time; `created_at` the latest.
HISTORY = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("post_id", pa.string(), nullable=False),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("strength", pa.float32(), nullable=False),
        pa.field("recency", pa.float32(), nullable=False),
        pa.field("num_interactions", pa.int64(), nullable=False),
        ("created_at", TIMESTAMP),
    ]
)

RECOMMENDATIONS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("post_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        ("because_post_id", pa.string()),
    ]
)

SIMILAR_POSTS = pa.schema(
    [
        pa.field("post_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("neighbor_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)

# Text features of a post: its distinct terms (sorted) and their frequencies.
TEXT_FIELDS = (pa.field("text_terms", pa.list_(pa.string())), pa.field("text_counts", pa.list_(pa.int32())))


def vector(width: int) -> pa.DataType:
    """The type of a dense vector that is always there: fixed_size_list<float32>[width].

    Never null: pyarrow (25 and before) cannot read a fixed_size_list column with nulls back from Parquet ("Expected all
    lists to be of size=2 but index 1 had size=0"). If it may be missing, another column says so (`modalities` is
    empty, `source` is `none`) or the column is an `optional_vector`.
    """
    return pa.list_(pa.float32(), width)


def optional_vector(name: str, width: int) -> pa.Field:
    """A dense vector that may be null: list<float32>, its width in the field's metadata."""
    return pa.field(name, pa.list_(pa.float32()), metadata={"width": str(width)})


def features(widths: Mapping[str, int]) -> pa.Schema:
    """Schema of features, a row per post: the text's two columns, a nullable one per dense modality (name -> width)."""
    dense = [optional_vector(name, width) for name, width in widths.items()]
    return pa.schema(
        [
            pa.field("post_id", pa.string(), nullable=False),
            ("author_id", pa.string()),
            ("created_at", TIMESTAMP),
            *TEXT_FIELDS,
            *dense,
        ]
    )


# Media status of each post with media, and the key that detects changed media.
MEDIA = pa.schema(
    [
        pa.field("post_id", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field(
            "entries",
            pa.list_(
                pa.struct(
                    [
                        ("position", pa.int32()),
                        ("kind", pa.string()),
                        ("outcome", pa.string()),
                        ("uri", pa.string()),
                        ("code", pa.string()),
                        ("message", pa.string()),
                    ]
                )
            ),
            nullable=False,
        ),
    ]
)


def fused(width: int, num_modalities: int) -> pa.Schema:
    """Schema of fused vectors: concatenated modalities (zeros where missing), and the modality mask (1 or 0).

    `degree` is the number of users behind the post's collaborative factors, 0 if it has none; `trend` is the post's
    recent popularity (transforms.embed.trend), 0 if none or unknown.
    """
    return pa.schema(
        [
            pa.field("post_id", pa.string(), nullable=False),
            ("author_id", pa.string()),
            ("created_at", TIMESTAMP),
            pa.field("fused", vector(width), nullable=False),
            pa.field("mask", vector(num_modalities), nullable=False),
            pa.field("degree", pa.float64(), nullable=False),
            pa.field("trend", pa.float64(), nullable=False),
        ]
    )


def collaborative(width: int) -> pa.Schema:
    """Factors of posts that have interactions: rows of the right singular vectors, and the post's degree."""
    return pa.schema(
        [
            pa.field("post_id", pa.string(), nullable=False),
            pa.field("factors", vector(width), nullable=False),
            pa.field("degree", pa.float64(), nullable=False),
        ]
    )


def item_embeddings(width: int) -> pa.Schema:
    """Embeddings of posts. For posts without content or interactions `modalities` is empty and the vector is zeros."""
    return pa.schema(
        [
            pa.field("post_id", pa.string(), nullable=False),
            pa.field("embedding", vector(width), nullable=False),
            ("modalities", pa.list_(pa.string())),
            ("author_id", pa.string()),
            ("created_at", TIMESTAMP),
        ]
    )


def post_profiles(width: int) -> pa.Schema:
    """Schema of each post's contribution to profiles with it in the history (transforms/embed/formulas.py)."""
    return pa.schema(
        [pa.field("post_id", pa.string(), nullable=False), pa.field("profile", vector(width), nullable=False)]
    )


def user_scales(num_blocks: int) -> pa.Schema:
    """Schema of the factors by which each block of a user's profile is scaled to give the embedding."""
    return pa.schema(
        [pa.field("user_id", pa.string(), nullable=False), pa.field("scales", vector(num_blocks), nullable=False)]
    )


def user_embeddings(width: int) -> pa.Schema:
    """Embeddings of users. For users without history or interests `source` is `none` and the vector is zeros."""
    return pa.schema(
        [
            pa.field("user_id", pa.string(), nullable=False),
            pa.field("embedding", vector(width), nullable=False),
            pa.field("num_interactions", pa.int64(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
        ]
    )


def candidates(width: int, profile_width: int, leading_width: int = 0) -> pa.Schema:
    """Schema of top-K candidates: a post's vectors and the fields that determine its eligibility.

    `lang` is the primary subtag (`languages.primary_language`). Posts ordered by cell have a last column `leading`:
    the numbers that bound their scores (`transforms.search.cells`).
    """
    leading = [pa.field("leading", vector(leading_width), nullable=False)] if leading_width else []
    return pa.schema(
        [
            pa.field("post_id", pa.string(), nullable=False),
            pa.field("embedding", vector(width), nullable=False),
            pa.field("profile", vector(profile_width), nullable=False),
            ("author_id", pa.string()),
            ("created_at", TIMESTAMP),
            ("lang", pa.string()),
            pa.field("sensitive", pa.bool_(), nullable=False),
            pa.field("is_repost", pa.bool_(), nullable=False),
            pa.field("is_reply", pa.bool_(), nullable=False),
            pa.field("popularity", pa.float64(), nullable=False),
            *leading,
        ]
    )


def regions(width: int) -> pa.Schema:
    """Runs of candidates of one cell in a part of the catalog, in a basis of `upper_bounds`.

    See `transforms.search.regions`.
    `start` counts rows of the part's file from 0. `radius` is the longest distance from `center`, and `spread` that of
    an embedding from the mean of all, in the plain vectors.
    """
    return pa.schema(
        [
            pa.field("start", pa.int64(), nullable=False),
            pa.field("num_rows", pa.int64(), nullable=False),
            pa.field("cell", pa.int32(), nullable=False),
            pa.field("center", vector(width), nullable=False),
            pa.field("radius", pa.float64(), nullable=False),
            pa.field("spread", pa.float64(), nullable=False),
        ]
    )


def empty(schema: pa.Schema) -> pa.RecordBatch:
    """A block of the schema without rows."""
    return pa.RecordBatch.from_pylist([], schema=schema)


def conform(block: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The block with exactly the schema's columns, in its order and types; a missing nullable column is null.

    Raises:
      ValueError: a non-nullable column is missing or has nulls.
    """
    columns: list[pa.Array] = []
    for field in schema:
        index = block.schema.get_field_index(field.name)
        column = pa.nulls(block.num_rows, field.type) if index < 0 else block.column(index)
        if column.type != field.type:
            column = column.cast(field.type)
        if not field.nullable and column.null_count:
            raise ValueError(f"{column.null_count} nulls in column {field.name}, which may not be null")
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def widths_of(schema: pa.Schema) -> dict[str, int]:
    """The dense modalities of a features schema and their widths, in the schema's order."""
    return {field.name: int(field.metadata[b"width"]) for field in schema if b"width" in (field.metadata or {})}

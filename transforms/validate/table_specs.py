"""Table specifications of a run: schemas, row keys and the statistics to collect."""

import dataclasses
from collections.abc import Callable, Mapping

import pyarrow as pa

from transforms.tables import schemas

POSTS, USERS, INTERACTIONS = "posts", "users", "interactions"


@dataclasses.dataclass(frozen=True)
class TableSpec:
    """Specification of a table.

    Attributes:
      schema: the required schema, derived from the schema of its files: widths of vectors are read off there.
      key: the column that identifies a row; "" where rows have none.
      ranked: the rows of a key are contiguous, and their `rank` counts from 1.
      same_as: the table with the same keys, each once; "" where the keys have to be distinct by themselves.
      intermediate: only later stages read it. Its vectors, most of the bytes of a run, are not read: values that are
        not finite would show in the embeddings, which are.
      counted: columns whose values are counted.
      nulls: True if rows without a value are counted, column by column.
      moments: True if means and spreads of the modalities are computed.
      norms: True if the norms of `embedding` are computed.
      latest: True if the rows of the last day are described separately: a new fault hardly changes the whole table's.
    """

    schema: Callable[[pa.Schema], pa.Schema]
    key: str = ""
    ranked: bool = False
    same_as: str = ""
    intermediate: bool = False
    counted: tuple[str, ...] = ()
    nulls: bool = False
    moments: bool = False
    norms: bool = False
    latest: bool = False


def _width(found: pa.Schema, name: str) -> int:
    """Width of a column of vectors; 0 if there is no such column, so that a required one is reported as missing."""
    place = found.get_field_index(name)
    return (
        found.field(place).type.list_size if place >= 0 and pa.types.is_fixed_size_list(found.field(place).type) else 0
    )


TABLE_SPECS: Mapping[str, TableSpec] = {
    POSTS: TableSpec(lambda _: schemas.POSTS, "post_id", counted=("lang",), nulls=True, latest=True),
    INTERACTIONS: TableSpec(lambda _: schemas.INTERACTIONS, counted=("kind",), nulls=True, latest=True),
    USERS: TableSpec(lambda _: schemas.USERS, "user_id", counted=("lang",), nulls=True),
    "rejects/ingest": TableSpec(lambda _: schemas.REJECTS),
    "features": TableSpec(
        lambda found: schemas.features(schemas.widths_of(found)), "post_id", same_as=POSTS, moments=True, latest=True
    ),
    "media": TableSpec(lambda _: schemas.MEDIA, "post_id"),
    "rejects/extract": TableSpec(lambda _: schemas.REJECTS),
    "history": TableSpec(lambda _: schemas.HISTORY),
    "collaborative": TableSpec(
        lambda found: schemas.collaborative(_width(found, "factors")), "post_id", intermediate=True
    ),
    "fused": TableSpec(
        lambda found: schemas.fused(_width(found, "fused"), _width(found, "mask")),
        "post_id",
        same_as=POSTS,
        intermediate=True,
    ),
    "item_embeddings": TableSpec(
        lambda found: schemas.item_embeddings(_width(found, "embedding")), "post_id", same_as=POSTS, norms=True
    ),
    "post_profiles": TableSpec(
        lambda found: schemas.post_profiles(_width(found, "profile")), "post_id", same_as=POSTS, intermediate=True
    ),
    "user_embeddings": TableSpec(
        lambda found: schemas.user_embeddings(_width(found, "embedding")), "user_id", counted=("source",), norms=True
    ),
    "user_scales": TableSpec(
        lambda found: schemas.user_scales(_width(found, "scales")), "user_id", same_as="user_embeddings"
    ),
    "candidates": TableSpec(
        lambda found: schemas.candidates(*(_width(found, name) for name in ("embedding", "profile", "leading"))),
        "post_id",
        same_as=POSTS,
        intermediate=True,
    ),
    "recommendations": TableSpec(lambda _: schemas.RECOMMENDATIONS, "user_id", ranked=True, counted=("reason",)),
    "similar_posts": TableSpec(lambda _: schemas.SIMILAR_POSTS, "post_id", ranked=True),
}


def difference(found: pa.Schema, declared: pa.Schema) -> str:
    """The first difference of a file's schema from the declared one; "" if there is none."""
    for field in declared:
        place = found.get_field_index(field.name)
        if place < 0:
            return f"column {field.name} is missing"
        there = found.field(place)
        if there.type != field.type:
            return f"column {field.name} is {there.type}, not {field.type}"
        if there.nullable != field.nullable:
            return f"column {field.name} may{'' if there.nullable else ' not'} be null"
    if more := [name for name in found.names if name not in declared.names]:
        return f"column {more[0]} is not declared"
    return "" if found.names == declared.names else f"columns are in the order {', '.join(found.names)}"

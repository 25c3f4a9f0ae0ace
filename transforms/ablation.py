"""Ablations: what is left out of the embeddings, or put in a part's place, to see whether the part earns its place.

Of every part there is a variant of the run's own vectors without it, measured on the same users and posts as the whole.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from transforms import blocks
from transforms.judged import Judged, among
from transforms.post_time import TIME
from transforms.preprocessing import TEXT
from transforms.space import COLLABORATIVE, Space
from transforms.transform_fn import Layout
from transforms.tuned import Tuning

# Posts and users below which a ranking of posts without interactions is not measured apart.
MIN_COLD_POSTS, MIN_COLD_USERS = 50, 30
RIDGE, PCA = "ridge map", "PCA"
RETRAINED = ", retrained"


@dataclasses.dataclass(frozen=True)
class Variant:
    """The run's vectors with one part less or with another in its place; nothing is trained anew.

    Attributes:
      name: for the report.
      tuning: how the blocks are shaped and mixed.
      hidden: a modality that no post has any more; "" for none.
      linear: what tells factors from content instead of the autoencoder: RIDGE, PCA or "".
    """

    name: str
    tuning: Tuning
    hidden: str = ""
    linear: str = ""


def variants(space: Space, content: Sequence[str]) -> Iterator[Variant]:
    """What can be left out of this space.

    Args:
      content: the content modalities that some post has.
    """
    tuning = space.tuning
    parts = {
        "no own block": dataclasses.replace(tuning, own=dataclasses.replace(tuning.own, k=0)),
        "no decoded block": dataclasses.replace(tuning, decoded=None),
        "no content block": dataclasses.replace(tuning, content=None),
    }
    there = [name for name, width in zip(parts, space.widths, strict=False) if width]
    if len(there) > 1:
        yield from (Variant(name, parts[name]) for name in there)
    if (tuning.recency, tuning.content_recency) != (None, None):
        yield Variant("no recency in profiles", dataclasses.replace(tuning, recency=None, content_recency=None))
    hideable = list(content) if len(content) > 1 or there[:1] == ["no own block"] else []
    if content and COLLABORATIVE in space.names:
        hideable.append(COLLABORATIVE)
    yield from (Variant(f"without {name}", tuning, hidden=name) for name in hideable)
    if space.widths.decoded:
        yield Variant("ridge map for the autoencoder", tuning, linear=RIDGE)
        yield Variant("PCA for the autoencoder", tuning, linear=PCA)


def hide_fused(numbered: tuple[int, pa.RecordBatch], layout: Layout, name: str) -> tuple[int, pa.RecordBatch]:
    """A part of schemas.fused in which no post has the modality; without the collaborative one all posts are new."""
    part, block = numbered
    values, mask = (blocks.vectors_to_numpy(block.column(column)).copy() for column in ("fused", "mask"))
    for place, modality in enumerate(layout.modalities):
        if modality.name == name:
            values[:, modality.offset : modality.offset + modality.width] = 0
            mask[:, place] = 0
    changed = {"fused": blocks.numpy_to_vectors(values), "mask": blocks.numpy_to_vectors(mask)}
    if name == COLLABORATIVE:
        changed["degree"] = pa.array(np.zeros(block.num_rows))
    columns = [changed.get(column, block.column(column)) for column in block.schema.names]
    return part, pa.RecordBatch.from_arrays(columns, schema=block.schema)


def hide_features(numbered: tuple[int, pa.RecordBatch], name: str) -> tuple[int, pa.RecordBatch]:
    """A part of features/ in which no post has the modality, as if it had never been extracted."""
    part, block = numbered
    hidden = {TEXT: ("text_terms", "text_counts"), TIME: ("created_at",)}.get(name, (name,))
    columns = [
        pa.nulls(block.num_rows, field.type) if field.name in hidden else block.column(field.name)
        for field in block.schema
    ]
    return part, pa.RecordBatch.from_arrays(columns, schema=block.schema)


def hide_words(users: pa.RecordBatch) -> pa.RecordBatch:
    """Users of schemas.USERS who say nothing of themselves."""
    columns = [
        pa.nulls(users.num_rows, field.type) if field.name in ("interests", "bio") else users.column(field.name)
        for field in users.schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=users.schema)


def rankings(judged: Judged, only_cold: bool) -> dict[str, Judged]:
    """What is ranked: "warm", the whole catalogue as always, and "cold", posts without interactions among themselves.

    Args:
      only_cold: whether all posts that may be ranked are without interactions.
    """
    if only_cold:
        return {"cold": judged}
    found = {"warm": judged}
    unknown = judged.posts.eligible & (judged.posts.liked == 0)
    if unknown.sum() >= MIN_COLD_POSTS:
        cold = among(judged, unknown)
        if len(cold.user_id) >= MIN_COLD_USERS:
            found["cold"] = cold
    return found

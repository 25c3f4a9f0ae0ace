"""Ablations: what is left out of the embeddings, or put in a part's place, to see whether the part earns its place.

Of every part there is a variant of the run's own vectors without it, measured on the same users and posts as the whole.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from transforms.embed.embedding_space import COLLABORATIVE, Space
from transforms.embed.parameters import Tuning
from transforms.evaluate.split_rules import seeded_hash
from transforms.evaluate.test_set import HeldOutSet
from transforms.fuse.tft_graph import TEXT
from transforms.fuse.time_modality import TIME
from transforms.tables import blocks

# Posts and users below which a ranking of posts without interactions is not measured apart.
MIN_COLD_POSTS, MIN_COLD_USERS = 50, 30
# For so many users the lists are made again for every part.
MAX_USERS = 5000
RIDGE, PCA = "ridge map", "PCA"
# What is made of interactions: without the collaborative modality all posts are new.
_OF_INTERACTIONS = ("degree", "trend")


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
    """Ablation variants of this space.

    Args:
      content: the content modalities that some post has.
    """
    tuning, widths = space.tuning, space.widths
    if widths.own and widths.decoded + widths.content:
        # What is left is weighed alike for all posts: aD is small beside own factors.
        mix = dataclasses.replace(tuning.mix, aD=tuning.mix.rho)
        yield Variant("no own block", dataclasses.replace(tuning, own=dataclasses.replace(tuning.own, k=0), mix=mix))
    if widths.decoded and widths.own + widths.content:
        yield Variant("no decoded block", dataclasses.replace(tuning, decoded=None))
    if widths.content and widths.own + widths.decoded:
        yield Variant("no content block", dataclasses.replace(tuning, content=None))
    if tuning.trend is not None:
        yield Variant("no trend", dataclasses.replace(tuning, trend=None))
    if (tuning.recency, tuning.content_recency) != (None, None):
        yield Variant("no recency in profiles", dataclasses.replace(tuning, recency=None, content_recency=None))
    hideable = list(content) if len(content) > 1 or widths.own else []
    if content and widths.own:
        hideable.append(COLLABORATIVE)
    yield from (Variant(f"without {name}", tuning, hidden=name) for name in hideable)
    if widths.decoded:
        yield Variant("ridge map for the autoencoder", tuning, linear=RIDGE)
        yield Variant("PCA for the autoencoder", tuning, linear=PCA)


def hide_fused(block: pa.RecordBatch, space: Space, name: str) -> pa.RecordBatch:
    """A block of schemas.fused in which no post has the modality; without the collaborative one all posts are new."""
    values, mask = (blocks.vectors_to_numpy(block.column(column)).copy() for column in ("fused", "mask"))
    for place, (modality, offset, width) in enumerate(space.modalities):
        if modality == name:
            values[:, offset : offset + width] = 0
            mask[:, place] = 0
    changed = {"fused": blocks.numpy_to_vectors(values), "mask": blocks.numpy_to_vectors(mask)}
    if name == COLLABORATIVE:
        changed |= dict.fromkeys(_OF_INTERACTIONS, pa.array(np.zeros(block.num_rows)))
    columns = [changed.get(column, block.column(column)) for column in block.schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=block.schema)


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


def rankings(judged: HeldOutSet, only_cold: bool, seed: int) -> dict[str, HeldOutSet]:
    """Held-out sets by ranking: "warm", the whole catalog, and "cold", posts without interactions among themselves.

    Args:
      only_cold: whether all posts that may be ranked are without interactions.
      seed: of the choice of users, where there are more than MAX_USERS.
    """
    judged = fewer(judged, MAX_USERS, seed)
    if only_cold:
        return {"cold": judged}
    found = {"warm": judged}
    unknown = judged.posts.eligible & (judged.posts.liked == 0)
    if unknown.sum() >= MIN_COLD_POSTS:
        cold = among(judged, unknown)
        if len(cold.user_id) >= MIN_COLD_USERS:
            found["cold"] = cold
    return found


def among(judged: HeldOutSet, chosen: np.ndarray) -> HeldOutSet:
    """The same, of nothing but the chosen posts ([p] bool); users without a target among them are left out."""
    posts = dataclasses.replace(judged.posts, eligible=judged.posts.eligible & chosen)
    targets = judged.targets.multiply(posts.eligible[None, :]).tocsr()
    targets.eliminate_zeros()
    found = dataclasses.replace(judged, posts=posts, targets=targets)
    return _of_rows(found, np.diff(targets.indptr) > 0)


def fewer(judged: HeldOutSet, max_users: int, seed: int) -> HeldOutSet:
    """The same, of at most so many users, those of the smallest hashes."""
    order = np.argsort(seeded_hash(judged.user_id, seed), kind="stable")
    kept = np.zeros(len(order), bool)
    kept[order[:max_users]] = True
    return judged if kept.all() else _of_rows(judged, kept)


def _of_rows(judged: HeldOutSet, kept: np.ndarray) -> HeldOutSet:
    rows = np.flatnonzero(kept)
    order = np.concatenate([rows, np.flatnonzero(~kept), np.arange(len(kept), judged.fit.shape[0])])
    return dataclasses.replace(
        judged,
        user_id=judged.user_id.take(pa.array(rows)),
        targets=judged.targets[rows],
        history=judged.history[rows],
        excluded=judged.excluded[rows],
        fit=judged.fit[order],
    )

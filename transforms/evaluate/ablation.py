"""Ablations: variants of the embeddings with one part removed or replaced.

Each is measured on the same users and posts as the complete embeddings.
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

# Minimum numbers of posts and users for a separate ranking of the posts without interactions.
MIN_COLD_POSTS, MIN_COLD_USERS = 50, 30
# Maximum number of users for whom every variant makes lists.
MAX_USERS = 5000
RIDGE, PCA = "ridge map", "PCA"
# Columns that derive from interactions; masked with the collaborative modality.
_OF_INTERACTIONS = ("degree", "trend")


@dataclasses.dataclass(frozen=True)
class Variant:
    """The run's embeddings with one part removed or replaced; nothing is trained again.

    Attributes:
      name: for the report.
      tuning: parameters of the blocks and of their mixing.
      masked: a modality that is masked for all posts; "" for none.
      linear: the factor predictor in place of the autoencoder: RIDGE, PCA or "".
    """

    name: str
    tuning: Tuning
    masked: str = ""
    linear: str = ""


def variants(space: Space, content: Sequence[str]) -> Iterator[Variant]:
    """Ablation variants of this space.

    Args:
      content: the content modalities that some post has.
    """
    tuning, widths = space.tuning, space.widths
    if widths.own and widths.decoded + widths.content:
        # The other blocks have one weight for all posts: warm_weight is small beside own factors.
        mix = dataclasses.replace(tuning.mix, warm_weight=tuning.mix.cold_weight)
        yield Variant("no own block", dataclasses.replace(tuning, own=dataclasses.replace(tuning.own, rank=0), mix=mix))
    if widths.decoded and widths.own + widths.content:
        yield Variant("no decoded block", dataclasses.replace(tuning, decoded=None))
    if widths.content and widths.own + widths.decoded:
        yield Variant("no content block", dataclasses.replace(tuning, content=None))
    if tuning.trend is not None:
        yield Variant("no trend", dataclasses.replace(tuning, trend=None))
    if (tuning.recency, tuning.content_recency) != (None, None):
        yield Variant("no recency in profiles", dataclasses.replace(tuning, recency=None, content_recency=None))
    modalities = list(content) if len(content) > 1 or widths.own else []
    if content and widths.own:
        modalities.append(COLLABORATIVE)
    yield from (Variant(f"without {name}", tuning, masked=name) for name in modalities)
    if widths.decoded:
        yield Variant("ridge map for the autoencoder", tuning, linear=RIDGE)
        yield Variant("PCA for the autoencoder", tuning, linear=PCA)


def mask_fused(block: pa.RecordBatch, space: Space, name: str) -> pa.RecordBatch:
    """A block of schemas.fused with a modality masked; without the collaborative one all posts are cold."""
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


def mask_features(numbered: tuple[int, pa.RecordBatch], name: str) -> tuple[int, pa.RecordBatch]:
    """A part of features/ with a modality masked, as if it had never been extracted."""
    part, block = numbered
    masked = {TEXT: ("text_terms", "text_counts"), TIME: ("created_at",)}.get(name, (name,))
    columns = [
        pa.nulls(block.num_rows, field.type) if field.name in masked else block.column(field.name)
        for field in block.schema
    ]
    return part, pa.RecordBatch.from_arrays(columns, schema=block.schema)


def mask_interests(users: pa.RecordBatch) -> pa.RecordBatch:
    """Users of schemas.USERS without interests and bio."""
    columns = [
        pa.nulls(users.num_rows, field.type) if field.name in ("interests", "bio") else users.column(field.name)
        for field in users.schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=users.schema)


def rankings(test_set: HeldOutSet, only_cold: bool, seed: int) -> dict[str, HeldOutSet]:
    """Held-out sets by ranking: "warm", the whole catalog, and "cold", posts without interactions among themselves.

    Args:
      only_cold: whether all posts that may be ranked are without interactions.
      seed: of the choice of users, where there are more than MAX_USERS.
    """
    test_set = limit_users(test_set, MAX_USERS, seed)
    if only_cold:
        return {"cold": test_set}
    found = {"warm": test_set}
    unknown = test_set.posts.eligible & (test_set.posts.liked == 0)
    if unknown.sum() >= MIN_COLD_POSTS:
        cold = restrict_posts(test_set, unknown)
        if len(cold.user_id) >= MIN_COLD_USERS:
            found["cold"] = cold
    return found


def restrict_posts(test_set: HeldOutSet, chosen: np.ndarray) -> HeldOutSet:
    """The test set restricted to the chosen posts ([p] bool); users without a target among them are dropped."""
    posts = dataclasses.replace(test_set.posts, eligible=test_set.posts.eligible & chosen)
    targets = test_set.targets.multiply(posts.eligible[None, :]).tocsr()
    targets.eliminate_zeros()
    found = dataclasses.replace(test_set, posts=posts, targets=targets)
    return _of_rows(found, np.diff(targets.indptr) > 0)


def limit_users(test_set: HeldOutSet, max_users: int, seed: int) -> HeldOutSet:
    """The test set of at most so many users, those of the smallest hashes."""
    order = np.argsort(seeded_hash(test_set.user_id, seed), kind="stable")
    chosen = np.zeros(len(order), bool)
    chosen[order[:max_users]] = True
    return test_set if chosen.all() else _of_rows(test_set, chosen)


def _of_rows(test_set: HeldOutSet, chosen: np.ndarray) -> HeldOutSet:
    rows = np.flatnonzero(chosen)
    order = np.concatenate([rows, np.flatnonzero(~chosen), np.arange(len(chosen), test_set.fit.shape[0])])
    return dataclasses.replace(
        test_set,
        user_id=test_set.user_id.take(pa.array(rows)),
        targets=test_set.targets[rows],
        history=test_set.history[rows],
        excluded=test_set.excluded[rows],
        fit=test_set.fit[order],
    )

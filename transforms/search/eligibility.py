"""Eligibility of posts: sensitive, too old, replies, not yet written."""

import dataclasses
import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.tables import blocks


@dataclasses.dataclass(frozen=True)
class Eligibility:
    """Eligibility rules for posts, the same for every user.

    With `created_after`, posts without a time are not eligible: their age is not known.
    """

    include_sensitive: bool = False
    include_reposts: bool = False
    exclude_replies: bool = False
    created_after: datetime.datetime | None = None
    needs_embedding: bool = True

    def mask(self, candidates: pa.RecordBatch) -> np.ndarray:
        """Eligibility of each candidate: [n] bool."""
        eligible = np.ones(candidates.num_rows, bool)
        if not self.include_sensitive:
            eligible &= ~_flags(candidates, "sensitive")
        if not self.include_reposts:
            eligible &= ~_flags(candidates, "is_repost")
        if self.exclude_replies:
            eligible &= ~_flags(candidates, "is_reply")
        if self.created_after is not None:
            cut = pa.scalar(self.created_after, candidates.schema.field("created_at").type)
            young = pc.fill_null(pc.greater_equal(candidates.column("created_at"), cut), False)
            eligible &= young.to_numpy(zero_copy_only=False)
        if self.needs_embedding:
            eligible &= blocks.vectors_to_numpy(candidates.column("embedding")).any(axis=1)
        return eligible


def _flags(candidates: pa.RecordBatch, name: str) -> np.ndarray:
    return candidates.column(name).to_numpy(zero_copy_only=False)

"""Outcome of every medium that posts refer to; counts and rejects are derived from it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from transforms.tables import schemas
from transforms.tables.rejects import reject_block

STAGE = "extract"
FEATURES, MISSING, REJECTED, IGNORED = "features", "missing", "rejected", "ignored"
_MAX_SOURCE = 512
# Rejects of media that were never opened.
UNREACHED = ("media_scheme_not_allowed", "media_host_not_allowed", "media_outside_root")


class Outcome(NamedTuple):
    """Of one entry of a post's media.

    Attributes:
      position: in the post, from 0.
      kind: image, video, audio or unknown.
      outcome: FEATURES, MISSING, REJECTED, or IGNORED if its kind is not extracted.
      uri: truncated to 512 characters; None where there are features.
      code: of the reject, None where there is none.
      message: of the reject.
    """

    position: int
    kind: str
    outcome: str
    uri: str | None = None
    code: str | None = None
    message: str | None = None


def outcome_block(post_id: pa.Array, key: pa.Array, outcomes: Sequence[Sequence[Outcome]]) -> pa.RecordBatch:
    """A block of schemas.MEDIA: a row for each post that has media.

    Args:
      post_id: [n] string.
      key: [n] string, the key that changes when the media change.
      outcomes: of each post.
    """
    entries = [[outcome._asdict() for outcome in of_post] for of_post in outcomes]
    arrays = [post_id, key, pa.array(entries, schemas.MEDIA.field("entries").type)]
    return pa.RecordBatch.from_arrays(arrays, schema=schemas.MEDIA)


def rejects_of(media: pa.RecordBatch) -> pa.RecordBatch:
    """The rejects of a block of schemas.MEDIA."""
    rows = list(_failed(media))
    return reject_block(
        source=[(entry["uri"] or "")[:_MAX_SOURCE] for _, entry in rows],
        record=[f"media[{entry['position']}]" for _, entry in rows],
        id=[post_id for post_id, _ in rows],
        stage=STAGE,
        code=[entry["code"] for _, entry in rows],
        message=[entry["message"] for _, entry in rows],
    )


def _failed(media: pa.RecordBatch) -> Iterator[tuple[str, dict[str, Any]]]:
    """(post_id, entry) of every entry with a reject code."""
    lists = media.column("entries")
    ids = media.column("post_id").take(pc.list_parent_indices(lists))
    flat = pc.list_flatten(lists)
    failed = flat.field("code").is_valid() if len(flat) else pa.array([], pa.bool_())
    yield from zip(ids.filter(failed).to_pylist(), flat.filter(failed).to_pylist(), strict=True)


def counts_of(media: pa.RecordBatch) -> dict[str, int]:
    """media.KIND.OUTCOME of a block of schemas.MEDIA, and media.KIND.referenced: their sum without IGNORED.

    media.KIND.unreached are those of the rejected ones that were never opened.
    """
    flat = pc.list_flatten(media.column("entries"))
    counts: dict[str, int] = {}
    if not len(flat):
        return counts
    pairs = pa.table({"kind": flat.field("kind"), "outcome": flat.field("outcome")})
    for row in pairs.group_by(["kind", "outcome"]).aggregate([([], "count_all")]).to_pylist():
        names = [f"media.{row['kind']}.{row['outcome']}"]
        if row["outcome"] != IGNORED:
            names.append(f"media.{row['kind']}.referenced")
        for name in names:
            counts[name] = counts.get(name, 0) + row["count_all"]
    unreached = flat.filter(pc.is_in(flat.field("code"), value_set=pa.array(UNREACHED)))
    for row in pc.value_counts(unreached.field("kind")).to_pylist() if len(unreached) else []:
        counts[f"media.{row['values']}.unreached"] = row["counts"]
    return counts

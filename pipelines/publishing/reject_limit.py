"""Limit on the rejected share of an input, above which a run stops: the export is wrong, not just some rows."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pipelines.command_line.options import Options, RunError
from pipelines.stage.reports import Report

INPUTS = ("posts", "interactions", "users")
MEDIA_KINDS = ("image", "video", "audio", "unknown")
NUM_REASONS = 3
# With fewer a share means little: one broken clip of one is no broken export.
MIN_WHOLE = 100


class Loss(NamedTuple):
    """Rejected rows of an input or files of a kind, of those that could have been used."""

    what: str
    rejected: int
    whole: int

    @property
    def ratio(self) -> float:
        """Share of rejects; 0 of fewer than MIN_WHOLE."""
        return self.rejected / self.whole if self.whole >= MIN_WHOLE else 0.0


def losses(report: Report) -> Iterator[Loss]:
    """Losses of a stage, for each input or kind of media.

    Rows of a later date and erased rows do not count, nor do missing files and media from hosts that are not allowed.
    """
    counts = report.counts
    if report.stage == "ingest":
        for name in INPUTS:
            set_aside = counts.get(f"{name}.later", 0) + counts.get(f"{name}.erased", 0)
            read, rejected = (counts.get(f"{name}.{part}", 0) for part in ("read", "rejected"))
            yield Loss(f"rows of {name}", rejected - set_aside, read - set_aside)
    if report.stage == "extract":
        for kind in MEDIA_KINDS:
            missing, unreached, rejected, referenced = (
                counts.get(f"media.{kind}.{part}", 0) for part in ("missing", "unreached", "rejected", "referenced")
            )
            yield Loss(f"media of kind {kind}", rejected - unreached, referenced - missing - unreached)


def check(report: Report, options: Options) -> None:
    """Checks the share of rejects after a stage.

    Raises:
      RunError: it is more than --max_reject_ratio of an input or of a kind of media.
    """
    for loss in losses(report):
        if loss.ratio > options.max_reject_ratio:
            raise RunError(
                f"{loss.rejected:,} of {loss.whole:,} {loss.what} were rejected, more than --max_reject_ratio "
                f"{options.max_reject_ratio:g}; most frequent codes of {report.stage}: {most_frequent(report.counts)} "
                f"(rejects/{report.stage} lists all)"
            )


def most_frequent(counts: Mapping[str, int]) -> str:
    """The most frequent reject codes of a stage, with their numbers; "" if nothing was rejected."""
    found = sorted(reject_counts(counts).items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{code} ({number:,})" for code, number in found[:NUM_REASONS])


def reject_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Reject code -> number, of the counts of a stage."""
    prefix = "rejects."
    return {name.removeprefix(prefix): number for name, number in counts.items() if name.startswith(prefix)}

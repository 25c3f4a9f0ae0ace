"""Choice between continuing the embedding space of the last published run and beginning a new one.

A space is defined by what is fitted once and then reused unchanged: the transform_fn (vocabulary, principal components)
and the tuning. A run takes both over from the newest published run that is older, so that vectors of consecutive runs
can be compared; factors, model and embeddings are made anew from all the data. A space lasts --refit_days.
"""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

from pipelines.command_line.options import Options
from pipelines.continuity import erased_ids
from pipelines.stage.declaration import Places
from pipelines.stage.reports import read_report, read_reports
from pipelines.store import runs
from transforms.tables import files
from transforms.tables.files import join

FILE = "_lineage.json"
# Flags that another value of which is another space.
OPTIONS = (
    *("image_encoder", "video_encoder", "audio_encoder"),
    *("vocabulary_size", "text_width", "factors", "latent", "kind_weights", "half_life_days"),
)


@dataclasses.dataclass(frozen=True)
class Lineage:
    """Where a space comes from.

    Attributes:
      since: the run that began it.
      previous: the run that it is taken over from; "" where it begins.
      why_new: why it begins; "" where it does not.
      settings: what it depends on: the flags of OPTIONS, the widths of the features and the version of the graph.
      fitted_by: execution of factorize (`Report.id`) in `previous` whose tuning is taken over; "" where it begins.
    """

    since: str
    previous: str
    why_new: str
    settings: dict[str, Any]
    fitted_by: str = ""


def decide(options: Options, places: Places) -> Lineage:
    """The lineage of the run whose features/ are there."""
    from transforms.fuse import transform_fn
    from transforms.tables import parquet, schemas

    settings: dict[str, Any] = {name: getattr(options, name) for name in OPTIONS}
    settings["graph"] = transform_fn.GRAPH_VERSION
    settings["widths"] = dict(schemas.widths_of(parquet.read_schema(places.input("features"))))
    name = runs.last_before(options.output, options.run_name) if options.refit_days else ""
    why = _why_new(options, places, name, settings)
    if why:
        return Lineage(options.run_name, "", why, settings)
    return Lineage(read(directory_of(options, name)).since, name, "", settings, execution(options, name, "factorize"))


def _why_new(options: Options, places: Places, name: str, settings: dict[str, Any]) -> str:
    if not options.refit_days:
        return "--refit_days 0"
    if not name:
        return "there is no published run that is older"
    if not files.exists(join(directory_of(options, name), FILE)):
        return f"{name} has no record of its space"
    if erased_ids.find_holders(options, [join(runs.directory(options.output, name), "posts")]):
        return f"{name} was fitted on posts that --erase names"
    before = read(directory_of(options, name))
    if before.settings.get("graph") != settings["graph"]:
        return f"the transform_fn of {name} is another version's"
    for flag in OPTIONS:
        if before.settings.get(flag) != settings[flag]:
            return f"--{flag} is {settings[flag]!r}, was {before.settings.get(flag)!r}"
    old = before.settings["widths"]
    for modality, width in settings["widths"].items():
        if old.get(modality, width) != width:
            return f"{modality} has {width} numbers, had {old[modality]}"
    days = (datetime.date.fromisoformat(options.run_name) - datetime.date.fromisoformat(before.since)).days
    if days >= options.refit_days:
        return f"the last one began with {before.since}, {days} days ago (--refit_days {options.refit_days})"
    added = _added(options, places, name)
    return f"{added} is new" if added else ""


def _added(options: Options, places: Places, name: str) -> str:
    """A modality that enough posts have to be fitted on, and that the last run's transform_fn does not know."""
    from transforms.fuse import fuse_features, transform_fn
    from transforms.tables import counts

    layout = transform_fn.read_layout(directory_of(options, name))
    known = {modality.name for modality in layout.modalities}
    prefix = "features."
    for count, number in sorted(counts.read_counts(places.input("features")).items()):
        modality = count.removeprefix(prefix)
        if count.startswith(prefix) and number >= fuse_features.MIN_PRESENT and modality not in known:
            return modality
    return ""


def execution(options: Options, name: str, stage_name: str) -> str:
    """Id of the execution of a stage that wrote its tables in a run; "" if the run has no report of it."""
    report = read_report(runs.directory(options.output, name), stage_name)
    return report.id if report is not None else ""


def sources(options: Options, directory: str, tables: Sequence[str]) -> dict[str, str]:
    """The stages of the run whose space a run goes on in that left some tables, with the ids of their executions.

    A run that has been removed has no ids: tables made from it remain valid.

    Args:
      options: the flags.
      directory: where the run is made that goes on.
      tables: those that are read of the one before.
    """
    fitted = join(directory, "transform_fn")
    name = read(fitted).previous if files.exists(join(fitted, FILE)) else ""
    reports = read_reports(runs.directory(options.output, name)) if name else []
    return {f"{report.stage} of {name}": report.id for report in reports if set(report.files) & set(tables)}


def collaborative_of(options: Options, name: str) -> str:
    """The directory of a run's collaborative/."""
    return join(runs.directory(options.output, name), "collaborative")


def directory_of(options: Options, name: str) -> str:
    """The directory of a run's transform_fn/, in which its lineage is."""
    return join(runs.directory(options.output, name), "transform_fn")


def write(lineage: Lineage, transform_fn: str) -> None:
    """Writes a lineage into the directory of its transform_fn."""
    files.write_json(join(transform_fn, FILE), dataclasses.asdict(lineage))


def read(transform_fn: str) -> Lineage:
    """The inverse of `write`."""
    return Lineage(**files.read_json(join(transform_fn, FILE)))

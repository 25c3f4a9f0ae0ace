"""Warm start of training from the model of the run whose embedding space is continued."""

import os
from typing import TYPE_CHECKING, Any

from pipelines.command_line.options import Options
from pipelines.continuity import alignment, erased_ids, space_lineage
from pipelines.stage import fingerprint
from pipelines.stage.declaration import Places
from pipelines.stage.reports import read_report
from pipelines.store import runs
from transforms.tables import files

if TYPE_CHECKING:
    from model.train import Previous, TrainReport

START = "start.json"


def find_previous(options: Options, places: Places, factors: int) -> "tuple[Previous | None, str]":
    """The model of the run in whose space this one goes on, or why training cannot start from it.

    Args:
      factors: how many of them are learned.
    """
    from model.train import Previous
    from transforms.embed import embedding_space

    found = space_lineage.read(places.input("transform_fn"))
    if not found.previous:
        return None, found.why_new
    directory = runs.directory(options.output, found.previous)
    report = read_report(directory, "train")
    if report is None or fingerprint.damage(report, directory):
        return None, f"the model of {found.previous} is gone"
    if space_lineage.execution(options, found.previous, "factorize") != found.fitted_by:
        return None, f"{found.previous} was factorized again since"
    if erased_ids.find_holders(options, [files.join(directory, "interactions")]):
        return None, f"{found.previous} was trained on interactions that --erase names"
    before = space_lineage.collaborative_of(options, found.previous)
    if not 0 < factors <= len(embedding_space.read_singular_values(before)):
        return None, "there are no collaborative factors to predict, or the last run has fewer"
    rotation = alignment.find_factor_rotation(options, places, before, factors)
    model = files.join(directory, "model")
    if not files.is_local(model):
        files.copy_directory(model, os.path.join(places.local, "previous"))
        model = os.path.join(places.local, "previous")
    return Previous(model, rotation), ""


def describe_start(report: "TrainReport", previous: str, why_cold: str) -> dict[str, Any]:
    """Metrics of the start of training (cold or warm), its losses and epochs."""
    why = why_cold or report.why_cold
    measured = ("ridge_loss", "start_loss", "validation_loss", "epochs", "best_epoch", "trained_share")
    about = {"start": "cold" if why else "warm", "previous": "" if why else previous, "why_cold": why}
    return about | {name: getattr(report, name) for name in measured}


def tell_start(about: dict[str, Any]) -> str:
    """`describe_start` in a few words."""
    return f"cold: {about['why_cold']}" if about["why_cold"] else f"from the model of {about['previous']}"

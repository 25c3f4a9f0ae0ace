"""evaluate: how good the lists are, by a backtest of the very stages of the run, beside baselines on the same split.

Reads posts/, interactions/, users/ and features/; writes evaluation/evaluation.json and evaluation/report.html.

    fusefeed evaluate --output out --run_date 2026-01-31 [--backtest_split user] [--holdout test.parquet]
"""

import hashlib
import os
from typing import Any

from pipelines.backtesting import ablate, report, run_stages
from pipelines.backtesting.run_stages import Backtest
from pipelines.command_line.options import (
    EvaluateOptions,
    FactorizeOptions,
    FuseOptions,
    IngestOptions,
    Options,
    RecommendOptions,
    RunError,
    SharedOptions,
    TrainOptions,
)
from pipelines.stage.declaration import Places, Stage
from pipelines.store.file_names import EVALUATION, EVALUATION_FILE
from transforms.tables import files


def run(options: Options, places: Places) -> None:
    """Runs the stage."""
    evaluation = evaluate(options, places)
    directory = places.output(EVALUATION)
    files.write_json(files.join(directory, EVALUATION_FILE), evaluation)
    files.write_text(files.join(directory, "report.html"), report.html(evaluation))


def evaluate(options: Options, places: Places) -> dict[str, Any]:
    """Backtests and measures; docs/evaluation.md describes the method."""
    from transforms.evaluate import test_set

    check_size(places)
    made, notes = run_stages.prepare(options, places)
    evaluation = {"run": options.run_name, "split": describe(made), "notes": notes}
    if made.impossible:
        return evaluation | {"notes": [*notes, made.impossible]}
    users = test_set.sample_users(made.held_out, test_set.MAX_USERS, options.seed)
    run_stages.run_stages(made, users)
    found = run_stages.read_test_set(made, users)
    if not len(found.user_id):
        return evaluation | {"notes": [*notes, "nothing that is held out may be recommended"]}
    return evaluation | measure(found, made)


def check_size(places: Places) -> None:
    """Finds out whether a backtest can hold the catalog.

    Raises:
      RunError: it has too many posts.
    """
    from transforms.evaluate import test_set
    from transforms.tables import parquet

    number = parquet.count_rows(places.input("posts"))
    if number > test_set.MAX_POSTS:
        raise RunError(
            f"a backtest holds the ids of all posts, at most {test_set.MAX_POSTS:,}, and there are {number:,}: "
            "give --no_evaluate, and evaluate a run on fewer posts"
        )


def describe(made: Backtest) -> dict[str, Any]:
    """Description of the split; two runs are comparable if theirs are equal."""
    from transforms.evaluate import split_rules

    split = made.split
    about: dict[str, Any] = {"kind": split.kind, "seed": split.seed, "interactions": made.counts}
    if split.kind == "time":
        about |= {"cut": split_rules.time_of(split.cut).isoformat(), "days": made.options.backtest_days}
    if split.cold_posts is not None:
        digest = hashlib.sha256("\n".join(split.cold_posts.to_pylist()).encode()).hexdigest()[:16]
        about["cold_posts"] = {"posts": len(split.cold_posts), "digest": digest}
    elif split.kind != split_rules.HOLDOUT:
        about["fraction"] = split.share
    return about


def measure(found: Any, made: Backtest) -> dict[str, Any]:
    """Our lists and those of the baselines, measured."""
    from transforms.evaluate import content_baselines, evaluation, test_set

    at, seed = made.everything.input, made.options.seed
    is_cold = made.split.kind == "cold"
    threads = os.cpu_count() or 1
    if is_cold:
        ours = evaluation.embedding_lists(found, at("user_embeddings"), at("item_embeddings"), threads)
    else:
        ours = test_set.read_lists(at("recommendations"), found, evaluation.MAX_K)
    known = content_baselines.moments(made.known.input("fused"))
    lists, skipped = evaluation.baseline_lists(
        found, at("fused"), known, is_cold, num_components=made.options.latent, seed=seed, num_threads=threads
    )
    measured = evaluation.measure(found, {evaluation.OURS: ours, **lists}, at("fused"), known, seed)
    if made.options.ablations != "none":
        measured["ablations"] = ablate.measure(made, found, known)
    return {"about": evaluation.about(found), "skipped": skipped, **measured}


def table(directory: str) -> str:
    """The measures of a run that has been evaluated, as a table for the screen."""
    return report.table(files.read_json(files.join(directory, EVALUATION, EVALUATION_FILE)))


STAGE = Stage(
    "evaluate",
    reads=("posts", "interactions", "users", "features"),
    writes=(EVALUATION,),
    run=run,
    options=(
        *(SharedOptions, IngestOptions, FuseOptions, FactorizeOptions, TrainOptions),
        *(RecommendOptions, EvaluateOptions),
    ),
    files=("holdout",),
    show=table,
)

"""All stages in order: raw posts, interactions and users -> published embeddings and recommendation tables.

Reads the globs of --posts, --interactions and --users; writes OUTPUT/runs/RUN_DATE/ and, last, OUTPUT/LATEST. Given
again, the command does what is not done yet or was made from something else, and says why; the rest is skipped.

    fusefeed run --posts 'posts/*.jsonl.gz' --interactions 'events/*.parquet' --users users.csv \
        --media_root media --output out [--run_date 2026-01-01:2026-01-07] [--force train] [--keep_runs 7]
"""

import dataclasses
import sys
import time
import typing
from collections.abc import Mapping, Sequence

from pipelines.command_line import console
from pipelines.command_line.options import Options, UsageError
from pipelines.continuity import erased_ids
from pipelines.publishing import drift, publish, reject_limit, summary
from pipelines.stage import declaration, execute, fingerprint, runner
from pipelines.stage.reports import Report, read_report, read_reports
from pipelines.store import cleanup, lock, paths, replace_run, runs
from transforms.tables import files

SKIPPED = "skipped: unchanged"
# Outcomes of the runs of a range of dates, from the best exit code to the worst.
OUTCOMES = {
    console.DONE: "published",
    console.REFUSED: "refused by the gate",
    console.FAILED: "failed",
    console.BAD_USAGE: "could not begin",
}


def run(options: Options) -> int:
    """Runs every stage that has to be, publishes and prints the summary, for every date. Returns the exit code.

    Raises:
      UsageError: an input is missing or cannot be read, or the output cannot be written.
      RunError: another command is at work on the output, or the run cannot go on.
    """
    check(options)
    return make_runs(options, all_stages())


def make_runs(options: Options, stages: Sequence[declaration.Stage]) -> int:
    """Makes the run of every date that is asked for, oldest first. Returns the exit code: the worst of theirs.

    Of several dates one that fails does not stop the others. Raises: as `run`.
    """
    names, codes = options.run_names, dict[str, int]()
    with lock.hold(options.output) as held:
        cleanup.sweep(options.output)
        paths.check_writable(files.join(options.output, runs.RUNS))
        for name in names:
            one = dataclasses.replace(options, run_date=name)
            if len(names) == 1:
                return make(one, stages, held)
            print(f"run {name} ({len(codes) + 1} of {len(names)})", file=sys.stderr, flush=True)
            try:
                codes[name] = make(one, stages, held)
            except Exception as error:
                codes[name] = console.report_error(f"fusefeed run {name}", error)
    print("\n".join(["", *(f"run {name}: {OUTCOMES[code]}" for name, code in codes.items())]))
    return max(codes.values(), key=list(OUTCOMES).index)


def make(options: Options, stages: Sequence[declaration.Stage], held: lock.Lock) -> int:
    """Makes the run of one date: every stage that has to be done, then publishes. Returns the exit code.

    Raises:
      UsageError: the output cannot be written.
      RunError: the run cannot go on.
    """
    began = time.monotonic()
    stages = [each for each in stages if not (options.no_evaluate and each.name == "evaluate")]
    origins = {each.name: fingerprint.origin(each, options) for each in stages}
    directory, plan = prepare(options, stages, origins)
    reports = []
    for number, each in enumerate(stages, 1):
        reason = plan[each.name]
        print(f"[{number}/{len(stages)}] {each.name}: {reason or SKIPPED}", file=sys.stderr, flush=True)
        held.check()
        if reason:
            reports.append(execute.execute(each, options, directory, origins[each.name]))
        else:
            reports.append(typing.cast(Report, read_report(directory, each.name)))
        reject_limit.check(reports[-1], options)
        drift.check(reports[-1], options, directory)
    held.check()
    holders = erased_ids.other_holders(options, directory) if options.erase else []
    last_published = publish.last_evaluation(options)
    decision, directory = publish.publish(options, reports, directory, last_published)
    print(summary.text(options, reports, directory, time.monotonic() - began, decision, last_published))
    left = [
        name for name in holders if (path := runs.directory(options.output, name)) != directory and files.exists(path)
    ]
    if left:
        print(f"fusefeed run: {erased_ids.advice(options, left)}", file=sys.stderr)
    if decision.reason:
        print(f"fusefeed run: {decision.reason}", file=sys.stderr)
    return console.DONE if decision.passed else console.REFUSED


def prepare(
    options: Options, stages: Sequence[declaration.Stage], origins: Mapping[str, fingerprint.Origin]
) -> tuple[str, dict[str, str]]:
    """Where the run is made, and why each stage has to be done there; "" where it has not."""
    final = runs.run_dir(options)
    plan = make_plan(options, stages, origins, final)
    if not any(plan.values()):
        replace_run.discard(options.output, options.run_name)
        return final, plan
    directory = replace_run.workplace(options.output, options.run_name)
    return directory, plan if directory == final else make_plan(options, stages, origins, directory)


def make_plan(
    options: Options, stages: Sequence[declaration.Stage], origins: Mapping[str, fingerprint.Origin], directory: str
) -> dict[str, str]:
    """Why each stage has to be done; "" where what it left still stands."""
    plan: dict[str, str] = {}
    reports = read_reports(directory)
    by_name = {report.stage: report for report in reports}
    for each in stages:
        before = [other.name for other in stages if set(other.writes) & set(each.reads)]
        again = next((name for name in before if plan[name]), "")
        if {each.name, "all"} & set(options.force):
            plan[each.name] = "--force"
        elif again and each.name in by_name:
            plan[each.name] = f"{again} is done again"
        else:
            now = dataclasses.replace(origins[each.name], stages=execute.sources(each, reports, options, directory))
            plan[each.name] = fingerprint.why_again(by_name.get(each.name), now, directory)
    return plan


def all_stages() -> list[declaration.Stage]:
    """The stages in their order."""
    from pipelines import embed, evaluate, extract, factorize, fuse, ingest, recommend, train, validate

    return [each.STAGE for each in (ingest, extract, fuse, factorize, train, embed, recommend, validate, evaluate)]


def check(options: Options) -> None:
    """Finds what would make the run fail, before any work.

    Raises:
      UsageError: naming the flag and what is wrong with it.
    """
    from pipelines import factorize, ingest
    from pipelines.backtesting import run_stages

    if not options.interactions:
        raise UsageError("--interactions is missing: globs of files to read")
    ingest.find_inputs(options)
    factorize.check_kind_weights(options)
    if options.holdout:
        run_stages.find_holdout(options.holdout)
    if options.cold_posts:
        run_stages.read_cold_posts(options.cold_posts)
    erased_ids.load(options)
    runner.beam_pipeline_options(options.beam_args)
    for root in options.media_root:
        if not files.exists(root):
            raise UsageError(f"--media_root: {root} is not there")
    if not options.output:
        raise UsageError("--output is missing: the directory in which runs/ and LATEST are written")

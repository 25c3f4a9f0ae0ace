"""All stages in order: raw posts, interactions and users -> published embeddings and recommendation tables.

Reads the globs of --posts, --interactions and --users; writes OUTPUT/runs/RUN_DATE/ and, last, OUTPUT/LATEST.

    fusefeed run --posts 'posts/*.jsonl.gz' --interactions 'events/*.parquet' --users users.csv \
        --media_root media --output out
"""

import sys
import time
from collections.abc import Sequence

from pipelines import console, publish, stage, summary
from pipelines.options import Options, UsageError, parse

DESCRIPTION = "All stages in order, from raw posts to published recommendation tables."


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code: 0 done, 1 failed, 2 bad usage or unreadable input, 3 not published."""
    return console.exit_code(
        "fusefeed run", lambda: run(parse("run", DESCRIPTION, sys.argv[1:] if argv is None else argv))
    )


def run(options: Options) -> int:
    """Runs every stage, publishes and prints the summary. Returns the exit code.

    Raises:
      UsageError: an input is missing or cannot be read, or the output cannot be written.
    """
    began = time.monotonic()
    check(options)
    reports = []
    stages = [each for each in all_stages() if not (options.no_evaluate and each.name == "evaluate")]
    for number, each in enumerate(stages, 1):
        print(f"[{number}/{len(stages)}] {each.name}", file=sys.stderr, flush=True)
        reports.append(stage.execute(each, options))
    verdict = publish.publish(options, reports)
    print(summary.text(options, reports, time.monotonic() - began))
    if verdict.reason:
        print(f"fusefeed run: {verdict.reason}", file=sys.stderr)
    return console.DONE if verdict.passed else console.REFUSED


def all_stages() -> list[stage.Stage]:
    """The stages in their order."""
    from pipelines import embed, evaluate, extract, fuse, ingest, recommend, train

    return [each.STAGE for each in (ingest, extract, fuse, train, embed, recommend, evaluate)]


def check(options: Options) -> None:
    """Finds what would make the run fail, before any work.

    Raises:
      UsageError: naming the flag and what is wrong with it.
    """
    from pipelines import backtest, fuse, ingest

    if not options.interactions:
        raise UsageError("--interactions is missing: globs of files to read")
    ingest.find_inputs(options)
    fuse.check_kind_weights(options)
    if options.holdout:
        backtest.find_holdout(options.holdout)
    if options.cold_posts:
        backtest.read_cold_posts(options.cold_posts)
    stage.beam_pipeline_options(options.beam_args)
    for root in options.media_root:
        if not stage.exists(root):
            raise UsageError(f"--media_root: {root} is not there")
    if options.transform_fn and not stage.exists(options.transform_fn):
        raise UsageError(f"--transform_fn: {options.transform_fn} is not there")
    stage.check_writable(stage.run_dir(options))


if __name__ == "__main__":
    sys.exit(main())

"""The summary that a run ends with: input rows, comparison with baselines, place of the tables, examples, warnings.

It shows ids, numbers and reasons; the text of a post only with --show_text, its first words. Full tables are in
evaluation/report.html and metrics.json.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.command_line.console import duration
from pipelines.command_line.options import Options
from pipelines.command_line.plain_text import NAME_CHARACTERS, one_line
from pipelines.publishing import drift, gate, table_samples
from pipelines.publishing.gate import Decision
from pipelines.publishing.reject_limit import INPUTS, MEDIA_KINDS, reject_counts
from pipelines.stage.reports import Report
from pipelines.store.file_names import EVALUATION
from transforms.tables import files

NUM_EXAMPLES = 5
RESULT_TABLES = ("item_embeddings", "user_embeddings", "recommendations", "similar_posts", "rejects")
MEASURE = "recall@20"
# Reject codes of extract that no rejected file has: of ready-made vectors, and of files that count as missing.
VECTOR_WIDTH, MISSING = "vector_width", "media_missing"
# First words of a post that --show_text shows, and the characters that they may have.
SHOWN_WORDS, SHOWN_CHARACTERS = 10, 70
# Ids may have 512 bytes; so much of them is shown.
ID_CHARACTERS = 40


def text(
    options: Options,
    reports: Sequence[Report],
    directory: str,
    seconds: float,
    decision: Decision,
    last_published: Mapping[str, Any] | None = None,
) -> str:
    """Text of the summary.

    Args:
      options: the flags.
      reports: of all stages of the run.
      directory: where the run is.
      seconds: time that it took.
      decision: of the gate.
      last_published: evaluation.json of the last published run; None if there is none.
    """
    metrics = files.read_json(files.join(directory, "metrics.json"))
    evaluation = metrics.get(EVALUATION)
    by_stage = {report.stage: report.counts for report in reports}
    outcome = "published" if decision.passed else "not published"
    sections = [
        [f"run {options.run_name} {outcome} in {duration(seconds)}"],
        [*_inputs(by_stage.get("ingest", {}), _reasons(directory, reports)), *_media(by_stage.get("extract", {}))],
        list(_comparison(evaluation, last_published)),
        list(_tables(directory, reports)),
        list(_examples(directory, options.show_text)),
        [f"warning: {line}" for line in _warnings(metrics, decision)],
    ]
    return "\n\n".join("\n".join(map(one_line, lines)) for lines in sections if lines)


def _inputs(counts: Mapping[str, int], reasons: Mapping[str, Counter[str]]) -> Iterator[str]:
    for name in INPUTS:
        read, written, rejected, duplicates = (
            counts.get(f"{name}.{part}", 0) for part in ("read", "written", "rejected", "duplicates")
        )
        line = f"{name:<14}{read:,} rows: {written:,} written, {duplicates:,} duplicates, {rejected:,} rejected"
        yield line + _most_often(reasons.get(name, {}))


def _media(counts: Mapping[str, int]) -> Iterator[str]:
    referenced, features, missing, rejected = (
        sum(counts.get(f"media.{kind}.{part}", 0) for kind in MEDIA_KINDS)
        for part in ("referenced", "features", "missing", "rejected")
    )
    codes = reject_counts(counts)
    of_files = {code: number for code, number in codes.items() if code not in (VECTOR_WIDTH, MISSING)}
    if referenced:
        line = f"{'media':<14}{referenced:,} files: {features:,} read, {missing:,} missing, {rejected:,} rejected"
        yield line + _most_often(of_files)
    if vectors := codes.get(VECTOR_WIDTH):
        yield f"{'vectors':<14}{vectors:,} rejected as {VECTOR_WIDTH}"


def _most_often(codes: Mapping[str, int]) -> str:
    code = min(codes, key=lambda code: (-codes[code], code), default="")
    return f", most often as {code} ({codes[code]:,})" if code else ""


def _reasons(directory: str, reports: Sequence[Report]) -> dict[str, Counter[str]]:
    """Input -> number of its rejected rows by code; empty where the files of the inputs are not known."""
    origins = [report.origin["files"] for report in reports if report.stage == "ingest" and report.origin]
    inputs = {path: name for named in origins for name in INPUTS for path, *_ in named.get(name, [])}
    return table_samples.reject_codes(directory, inputs) if inputs else {}


def _comparison(evaluation: Mapping[str, Any] | None, last_published: Mapping[str, Any] | None) -> Iterator[str]:
    """Recall, and three sentences: against the best baseline, popularity and the last published run."""
    if evaluation is None or "methods" not in evaluation:
        yield f"{'backtest':<14}no measurements: {gate.nothing_to_compare(evaluation)}"
        return
    methods = evaluation["methods"]
    ours = methods[gate.OURS]["measures"][MEASURE]
    users = evaluation["about"]["users"]
    yield (
        f"{'backtest':<14}{MEASURE} is {decimals(ours['mean'])} "
        f"({decimals(ours['low'])} to {decimals(ours['high'])}) for {users:,} users"
    )
    baselines = {name: of for name, of in methods.items() if name != gate.OURS}
    best = max(baselines, key=lambda name: (baselines[name]["measures"][MEASURE]["mean"], name))
    for label in dict.fromkeys((best, gate.POPULAR)):
        name = "popularity" if label == gate.POPULAR else one_line(label, NAME_CHARACTERS)
        against = f"the best baseline, {name}" if label == best else name
        theirs, lead = baselines[label]["measures"][MEASURE]["mean"], baselines[label]["lead"][MEASURE]
        noise = "significant" if lead["low"] > 0 or lead["high"] < 0 else "not significant"
        yield f"{'':<14}{_better(lead['mean'])} than {against} ({decimals(theirs)}; {noise})"
    if last_published is None:
        yield f"{'':<14}no earlier published run to compare with"
    elif why := gate.not_comparable(evaluation, last_published):
        yield f"{'':<14}{why}"
    else:
        before = last_published["methods"][gate.OURS]["measures"][MEASURE]
        change = ours["mean"] - before["mean"]
        noise = "significant" if abs(change) > gate.noise_of(ours, before) else "not significant"
        yield (
            f"{'':<14}{_better(change)} than the last published run, {last_published.get('run', 'unnamed')} "
            f"({decimals(before['mean'])}; {noise})"
        )


def _better(lead: float) -> str:
    return f"{decimals(abs(lead))} {'better' if lead >= 0 else 'worse'}"


def decimals(value: float) -> str:
    """A share with three decimals and no zero before the point: ".186"."""
    return f"{value:.3f}".replace("0.", ".", 1)


def _tables(directory: str, reports: Sequence[Report]) -> Iterator[str]:
    rows: dict[str, int] = {}
    for report in reports:
        for table, number in report.rows.items():
            name = table.split("/")[0]
            rows[name] = rows.get(name, 0) + number
    yield f"{'tables':<14}{directory}"
    yield f"{'':<14}" + ", ".join(f"{table} {rows.get(table, 0):,}" for table in RESULT_TABLES)
    page = files.join(directory, EVALUATION, "report.html")
    if files.exists(page):
        yield f"{'report':<14}{page}"


def _examples(directory: str, show_text: bool) -> Iterator[str]:
    rows = table_samples.first_recommendations(directory, NUM_EXAMPLES)
    texts = table_samples.texts(directory, {row["post_id"] for row in rows}) if show_text else {}
    for number, row in enumerate(rows):
        because = f", because of {_id(row['because_post_id'])}" if row["because_post_id"] else ""
        line = f"{_id(row['user_id'])} gets {_id(row['post_id'])} (by {row['reason']}{because})"
        shown = first_words(texts.get(row["post_id"]) or "")
        yield f"{'examples' if not number else '':<14}{line}" + (f': "{shown}"' if shown else "")


def first_words(value: str) -> str:
    """The first words of a text, on one line, safe for a terminal."""
    words = one_line(value).split()
    shown = " ".join(words[:SHOWN_WORDS])
    return one_line(shown if len(words) <= SHOWN_WORDS else f"{shown}...", SHOWN_CHARACTERS)


def _id(value: str) -> str:
    return one_line(value, ID_CHARACTERS)


def _warnings(metrics: Mapping[str, Any], decision: Decision) -> Iterator[str]:
    evaluation = metrics.get(EVALUATION, {})
    if "methods" in evaluation:
        yield from evaluation["notes"]
    if decision.refused:
        yield decision.reason if decision.passed else f"not published: {decision.reason}"
    continuity = metrics.get("continuity", {})
    if continuity.get("why_new") and metrics.get("drift", {}).get("before"):
        yield f"a new embedding space: vectors are not comparable with earlier runs: {continuity['why_new']}"
    if metrics.get("drift"):
        yield from drift.warnings(metrics["drift"])

"""The short summary that a run ends with. It shows ids, numbers and reasons, never the text of a post."""

from collections.abc import Iterator, Sequence

from pipelines.command_line.console import duration
from pipelines.command_line.options import Options
from pipelines.publishing.reject_limit import INPUTS, MEDIA_KINDS
from pipelines.stage.reports import Report
from pipelines.store.file_names import EVALUATION, EVALUATION_FILE
from transforms.tables import files

NUM_EXAMPLES = 5
RESULT_TABLES = ("item_embeddings", "user_embeddings", "recommendations", "similar_posts", "rejects")


def text(options: Options, reports: Sequence[Report], directory: str, seconds: float) -> str:
    """The summary: rows in and out, rejects by code, time and memory a stage, where the tables are, some examples."""
    by_stage = {report.stage: report.counts for report in reports}
    rejected: dict[str, int] = {}
    for report in reports:
        for name, number in report.counts.items():
            if name.startswith("rejects."):
                code = name.removeprefix("rejects.")
                rejected[code] = rejected.get(code, 0) + number
    sections = [
        [f"run {options.run_name} done in {duration(seconds)}"],
        list(_inputs(by_stage.get("ingest", {}))),
        list(_media(by_stage.get("extract", {}))),
        list(_rejects(rejected)),
        list(_stages(reports)),
        [*_continuity(directory), *_training(directory)],
        list(_drift(directory)),
        list(_evaluation(options, directory)),
        list(_tables(directory, reports)),
        list(_examples(directory)),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _inputs(counts: dict[str, int]) -> Iterator[str]:
    columns = ("read", "written", "rejected", "duplicates")
    yield f"{'input':<16}" + "".join(f"{column:>12}" for column in columns)
    for name in INPUTS:
        yield f"{name:<16}" + "".join(f"{counts.get(f'{name}.{column}', 0):>12,}" for column in columns)


def _media(counts: dict[str, int]) -> Iterator[str]:
    columns = ("referenced", "features", "missing", "rejected")
    kinds = [kind for kind in MEDIA_KINDS if counts.get(f"media.{kind}.referenced")]
    if kinds:
        yield f"{'media':<16}" + "".join(f"{column:>12}" for column in columns)
    for kind in kinds:
        yield f"{kind:<16}" + "".join(f"{counts.get(f'media.{kind}.{column}', 0):>12,}" for column in columns)


def _rejects(rejected: dict[str, int]) -> Iterator[str]:
    from transforms.tables import rejects

    if rejected:
        yield "rejects by code"
    for code, number in sorted(rejected.items(), key=lambda item: (-item[1], item[0])):
        yield f"  {code:<26}{number:>8,}  {rejects.CODES[code][0]}"


def _stages(reports: Sequence[Report]) -> Iterator[str]:
    yield f"{'stage':<16}{'time':>14}{'peak memory':>14}"
    for report in reports:
        yield f"{report.stage:<16}{duration(report.seconds):>14}{report.peak_memory_bytes / 2**20:>10,.0f} MiB"


def _continuity(directory: str) -> Iterator[str]:
    from pipelines.continuity import alignment
    from transforms.tables import files

    path = files.join(directory, "item_embeddings", alignment.FILE)
    if not files.exists(path):
        return
    about = files.read_json(path)
    if about["why_new"]:
        yield f"a new space of embeddings: {about['why_new']}"
    else:
        yield f"embeddings in the space of {about['space_since']}: mean cosine {about['cosine']:.3f} with those of"
        yield f"{about['previous']} ({about['cosine_without_trend']:.3f} without the trend),"
        yield f"{about['posts']:,} posts that both have"


def _drift(directory: str) -> Iterator[str]:
    from pipelines.publishing import drift
    from transforms.tables import files

    if found := files.read_json(files.join(directory, "metrics.json")).get("drift"):
        yield from drift.lines(found)


def _training(directory: str) -> Iterator[str]:
    from pipelines.continuity import warm_start
    from transforms.tables import files

    path = files.join(directory, "model", warm_start.START)
    if files.exists(path):
        yield f"training started {warm_start.tell_start(files.read_json(path))}"


def _tables(directory: str, reports: Sequence[Report]) -> Iterator[str]:
    rows: dict[str, int] = {}
    for report in reports:
        for table, number in report.rows.items():
            name = table.split("/")[0]
            rows[name] = rows.get(name, 0) + number
    yield f"tables in {directory}"
    for table in RESULT_TABLES:
        yield f"  {table + '/':<20}{rows.get(table, 0):>12,} rows"


def _evaluation(options: Options, directory: str) -> Iterator[str]:
    from pipelines.backtesting import report
    from transforms.tables import files

    if not options.no_evaluate:
        yield report.table(files.read_json(files.join(directory, EVALUATION, EVALUATION_FILE)))


def _examples(directory: str) -> Iterator[str]:
    """The first recommendation of five users, spread over the first file of the table."""
    import pyarrow.compute as pc

    from transforms.tables import parquet

    found = parquet.list_files(files.join(directory, "recommendations"))
    best = parquet.read_file(found[0]) if found else None
    if best is None or not best.num_rows:
        return
    best = best.filter(pc.equal(best.column("rank"), 1))
    yield "examples"
    for index in range(0, best.num_rows, max(1, -(-best.num_rows // NUM_EXAMPLES))):
        row = best.slice(index, 1).to_pylist()[0]
        because = f", because of {row['because_post_id']}" if row["because_post_id"] else ""
        yield f"  {row['user_id']} gets {row['post_id']} (score {row['score']:.4g}, by {row['reason']}{because})"

"""validate: checks every table of the run against its specification, and collects statistics for the next run.

Reads all tables of the stages before it; writes statistics/statistics.json. Fails if a table is invalid: other columns,
numbers that are not finite, duplicate keys, ranks with gaps, missing rows.

    fusefeed validate --output out --run_date 2026-01-31
"""

from typing import TYPE_CHECKING

from pipelines.command_line.options import Options, RunError
from pipelines.continuity import space_lineage
from pipelines.stage import part_sizes, runner
from pipelines.stage.declaration import Places, Stage
from pipelines.stage.reports import read_reports
from pipelines.store.file_names import STATISTICS, STATISTICS_FILE
from transforms.tables import files
from transforms.tables.files import join

if TYPE_CHECKING:
    import apache_beam as beam

    from transforms.validate.table_statistics import TableStatistics

TABLES = (
    *("posts", "interactions", "users", "rejects/ingest", "features", "media", "rejects/extract"),
    *("history", "collaborative", "fused", "item_embeddings", "post_profiles", "user_embeddings", "user_scales"),
    *("candidates", "recommendations", "similar_posts"),
)
NUM_SHOWN = 5


def build(root: "beam.Pipeline", options: Options, places: Places, found: str) -> None:
    """Wires the stage; its results are written to the directory `found`."""
    import apache_beam as beam

    from transforms.validate import collect_statistics

    num_parts = part_sizes.choose_num_parts(options, *(places.input(name) for name in ("posts", "user_embeddings")))
    since = collect_statistics.last_day(*(places.input(name) for name in ("posts", "interactions")))
    directories = {table: places.input(table) for table in TABLES}
    tables = root | collect_statistics.CollectStatistics(directories, num_parts, since)
    reports = read_reports(places.run_dir)
    rows = {table: number for report in reports for table, number in report.rows.items()}
    counts = next((report.counts for report in reports if report.stage == "ingest"), {})
    _ = (
        tables
        | beam.combiners.ToDict()
        | "CheckTables" >> beam.Map(check, rows, counts, made_with(options, places), found)
    )


def check(
    tables: "dict[str, TableStatistics]",
    rows: dict[str, int],
    counts: dict[str, int],
    made_with: dict[str, str],
    found: str,
) -> None:
    """Writes the statistics of all tables, and their violations.

    Args:
      tables: statistics by table.
      rows: of each table, as reported by its stage.
      counts: of ingest.
      made_with: see run_statistics.statistics.
      found: a directory.
    """
    from transforms.validate import run_statistics, violations

    files.write_json(join(found, "violations.json"), list(violations.violations(tables, rows, counts)))
    files.write_json(join(found, STATISTICS_FILE), run_statistics.statistics(tables, made_with))


def made_with(options: Options, places: Places) -> dict[str, str]:
    """Settings that must match for the statistics of two runs to be comparable: encoders, widths, the space, flags."""
    from transforms.tables import parquet, schemas
    from transforms.validate.drift import EMBEDDINGS, OFF

    encoders = {"image": options.image_encoder, "video": options.video_encoder, "audio": options.audio_encoder}
    widths = schemas.widths_of(parquet.read_schema(places.input("features")))
    made = {name: f"{encoders.get(name, 'vectors')} of {width} numbers" for name, width in widths.items()}
    made |= {name: OFF for name in encoders if name not in widths}
    made[EMBEDDINGS] = f"in the space of {space_lineage.read(places.input('transform_fn')).since}"
    made["recommendations"] = f"--k {options.k}"
    made["similar_posts"] = f"--similar_k {options.similar_k}"
    return made


def run(options: Options, places: Places) -> None:
    """Runs the stage.

    Raises:
      RunError: a table violates its specification.
    """
    found = places.output(STATISTICS)
    with runner.new_pipeline(options) as root:
        build(root, options, places, found)
    path = join(found, "violations.json")
    wrong = files.read_json(path)
    files.delete(path)
    if wrong:
        more = f" and {len(wrong) - NUM_SHOWN} more" if len(wrong) > NUM_SHOWN else ""
        raise RunError(
            f"invalid tables: {'; '.join(wrong[:NUM_SHOWN])}{more}; repeat the stages that wrote them "
            "(--force) and please report it"
        )


STAGE = Stage(
    "validate",
    reads=(*TABLES, "transform_fn"),
    writes=(STATISTICS,),
    run=run,
    tensorflow=False,
    options=("image_encoder", "video_encoder", "audio_encoder", "k", "similar_k"),
)

"""Raw posts, interactions and users (JSONL, CSV, Parquet) -> one canonical form, with an account of every input row.

Reads --posts, --interactions and --users; writes posts/, interactions/, users/ and rejects/ingest/. Posts and
interactions after the end of --run_date (UTC) are rejected, so that the run of a past date can be repeated, and so are
the rows of users and posts that --erase names.

    fusefeed ingest --posts 'posts/*.jsonl.gz' --interactions interactions.csv --users users.parquet --output out
"""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipelines.command_line.options import IngestOptions, Options, UsageError, end_of_run
from pipelines.stage import runner
from pipelines.stage.declaration import Places, Stage

if TYPE_CHECKING:
    import apache_beam as beam

    from transforms.ingest.input_files import InputFile

TABLES = ("posts", "interactions", "users")
REJECTS = "rejects/ingest"


def find_inputs(options: Options) -> dict[str, "list[InputFile]"]:
    """The files of each table; none where an optional one is not given.

    Raises:
      UsageError: --posts is missing, a glob matches nothing, a file has no known extension or there is too much.
    """
    from transforms.ingest import input_files

    if not options.posts:
        raise UsageError("--posts is missing: globs of .jsonl(.gz), .parquet or .csv(.gz) files")
    found: dict[str, list[InputFile]] = {}
    for name in TABLES:
        try:
            found[name] = input_files.find_files(globs) if (globs := getattr(options, name)) else []
            if not options.num_parts:
                input_files.choose_num_parts(found[name])
        except ValueError as error:
            raise UsageError(f"--{name}: {error}") from None
    return found


def build(root: "beam.Pipeline", options: Options, places: Places, files: Mapping[str, "list[InputFile]"]) -> None:
    """Wires the stage, for the tables that have files: every transform costs time to build."""
    import apache_beam as beam

    from pipelines.continuity import erased_ids
    from transforms.ingest import canonical, ingest_table
    from transforms.tables import counts, parquet
    from transforms.tables.rejects import WriteRejects, choose_num_parts

    # The first moment after the run's date.
    until = round(end_of_run(options).timestamp() * 1_000_000)
    table = functools.partial(
        ingest_table.IngestTable, num_parts=options.num_parts, until=until, erasure=erased_ids.load(options)
    )
    done = {name: root | f"Ingest {name}" >> table(name, files[name]) for name in TABLES if files[name]}
    for name, ingested in done.items():
        schema = canonical.TABLES[name].schema
        _ = ingested.parts | f"Write {name}" >> parquet.WriteParts(places.output(name), schema)
    rejects = [ingested.rejects for ingested in done.values()] | "AllRejects" >> beam.Flatten()
    # Rows have some hundred bytes of text; compressed files have more rows a byte, but a part may have more too.
    size = sum(file.size for found in files.values() for file in found)
    _ = rejects | WriteRejects(places.output(REJECTS), choose_num_parts(size // 100))
    totals = [ingested.counts for ingested in done.values()] | "AllCounts" >> beam.Flatten()
    _ = totals | counts.WriteCounts(places.output("posts"))


def run(options: Options, places: Places) -> None:
    """Runs the stage and checks that all rows are accounted for."""
    from transforms.ingest import canonical, ingest_table
    from transforms.tables import counts, parquet

    files = find_inputs(options)
    for name in (name for name in TABLES if not files[name]):
        parquet.write_empty(places.output(name), canonical.TABLES[name].schema)
    with runner.new_pipeline(options) as root:
        build(root, options, places, files)
    ingest_table.reconcile(counts.read_counts(places.output("posts")))


STAGE = Stage(
    "ingest",
    reads=(),
    writes=(*TABLES, REJECTS),
    run=run,
    tensorflow=False,
    options=(IngestOptions, "num_parts"),
    files=(*TABLES, "erase"),
)

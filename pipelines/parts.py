"""How many parts a stage's shuffles have, and when a run ends: what embed and recommend read off the options alike."""

import datetime

from pipelines.options import Options
from transforms import tables

# A part is held whole; at some hundred bytes a row it stays at some megabytes.
ROWS_PER_PART = 50_000


def choose_num_parts(options: Options, *directories: str) -> int:
    """The parts of a stage that works on these tables: --num_parts, or one for ROWS_PER_PART rows of the largest."""
    rows = max(tables.count_rows(directory) for directory in directories)
    return options.num_parts or max(1, -(-rows // ROWS_PER_PART))


def end_of_run(options: Options) -> datetime.datetime:
    """The end of the run's date, UTC: what is later than that lies in its future."""
    date = datetime.datetime.strptime(options.run_name, "%Y-%m-%d").replace(tzinfo=datetime.UTC)
    return date + datetime.timedelta(days=1)

"""Number of parts of a stage's shuffles, by the rows of its tables."""

import math

from pipelines.command_line.options import Options, RunError
from transforms.tables import parquet

# A part is held whole; at some hundred bytes a row it stays at some megabytes.
ROWS_PER_PART = 50_000
# A shuffle cuts each part into as many pieces as there are parts. Of fewer rows a piece is mostly its own description.
ROWS_PER_PIECE = 250
# More a worker of some gigabytes does not hold.
MAX_ROWS_PER_PART = 5_000_000


def choose_num_parts(options: Options, *directories: str) -> int:
    """The parts of a stage that works on these tables: --num_parts, or by the rows of the largest.

    Raises:
      RunError: it has so many rows that a part would be too large for a worker, or its pieces too small.
    """
    return options.num_parts or parts_of(max(parquet.count_rows(directory) for directory in directories))


def parts_of(num_rows: int) -> int:
    """Parts of a table: of ROWS_PER_PART up to ten million rows, then larger, so that a piece has ROWS_PER_PIECE.

    Raises:
      RunError: a part would have more than MAX_ROWS_PER_PART.
    """
    rows_per_part = max(ROWS_PER_PART, math.isqrt(ROWS_PER_PIECE * num_rows))
    if rows_per_part > MAX_ROWS_PER_PART:
        limit = MAX_ROWS_PER_PART**2 // ROWS_PER_PIECE
        raise RunError(f"a table has {num_rows:,} rows, more than {limit:,}: run on less, or give --num_parts")
    return max(1, -(-num_rows // rows_per_part))

"""First steps of the fuse stage: history, and the collaborative factors of the posts that have one.

    make_history   interactions/, posts/ -> history/
    factorize      history/ -> collaborative/ with _factors.json

No stage of its own, and no command.
"""

import dataclasses
import logging

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystems import FileSystems

from pipelines.command_line.options import Options, RunError, end_of_run
from pipelines.stage import part_sizes
from pipelines.stage.declaration import Places
from pipelines.stage.runner import new_pipeline
from pipelines.store.paths import join
from transforms.embed.embedding_space import FACTORS_FILE
from transforms.interactions import collaborative_factors, history, interaction_matrix, reposts
from transforms.interactions.weights import InteractionWeights, parse_kind_weights
from transforms.linalg.tiled_matrix import TiledMatrix, open_matrix
from transforms.tables import counts, files, parquet, schemas


@dataclasses.dataclass(frozen=True)
class FactorsSummary:
    """Contents of _factors.json, the summary of collaborative/.

    Attributes:
      singular_values: falling; as many as the factors have numbers. Where there are none, collaborative/ has no rows
        to read: fewer than two users or posts have interactions.
      num_posts: posts with an interaction that counts.
      num_users: users with one.
      energy: the sum of the squared entries of the matrix; sum(singular_values^2) / energy is the share captured.
    """

    singular_values: list[float]
    num_posts: int
    num_users: int
    energy: float


def make_history(options: Options, places: Places) -> None:
    """Writes history/ of interactions/ and posts/."""
    num_parts = part_sizes.choose_num_parts(options, *map(places.input, ("posts", "interactions")))
    weights = InteractionWeights(parse_kind_weights(options.kind_weights), options.half_life_days)
    with new_pipeline(options) as root:
        read = {
            name: root | f"Read {name}" >> parquet.ReadBlocks(places.input(name), columns)
            for name, columns in (("interactions", history.COLUMNS), ("posts", reposts.COLUMNS))
        }
        made = read | history.MakeHistory(weights, num_parts, end_of_run(options))
        _ = made | "WriteHistory" >> parquet.WriteParts(places.output("history"), schemas.HISTORY)


def factorize(options: Options, places: Places, factors: int = 128) -> FactorsSummary:
    """Factorizes history/, which this stage has just written, and writes collaborative/.

    In three pipelines, because the second needs to know the size of the matrix, and the third its rank.

    Raises:
      RunError: the history is too long.
    """
    directory = places.scratch("matrix")
    made_from = places.output("history")
    try:
        num_parts = interaction_matrix.choose_num_parts(parquet.count_rows(made_from))
    except ValueError as error:
        raise RunError(str(error)) from None
    with new_pipeline(options) as root:
        read = root | parquet.ReadParts(made_from, interaction_matrix.COLUMNS)
        made = read | interaction_matrix.MakeMatrix(directory, num_parts)
        _ = made.counts | counts.WriteCounts(places.output("collaborative"))
    matrix = open_matrix(directory)
    solution = solve(options, matrix, collaborative_factors.max_factors(matrix, factors))
    if len(solution.singular_values):
        with new_pipeline(options) as root:
            found = root | collaborative_factors.ReadFactors(matrix, solution)
            schema = schemas.collaborative(len(solution.singular_values))
            _ = found | parquet.WriteParts(places.output("collaborative"), schema)
    else:
        logging.warning("no collaborative factors: fewer than two users or posts have interactions that count")
    described = FactorsSummary(solution.singular_values.tolist(), matrix.num_columns, matrix.num_rows, solution.energy)
    files.write_json(join(places.output("collaborative"), FACTORS_FILE), dataclasses.asdict(described))
    FileSystems.delete([directory])
    return described


def solve(options: Options, matrix: TiledMatrix, factors: int) -> collaborative_factors.Solution:
    """The truncated SVD of a matrix, without singular values where `factors` is 0."""
    if not factors:
        return collaborative_factors.Solution(np.zeros(0), np.zeros((0, 0)), 0.0, 0)
    with new_pipeline(options) as root:
        solved = root | collaborative_factors.FactorizeMatrix(
            matrix, factors, passes=collaborative_factors.choose_passes(matrix), seed=options.seed
        )
        _ = solved | "WriteSolution" >> beam.Map(collaborative_factors.write_solution, matrix.directory)
    return collaborative_factors.read_solution(matrix.directory)


def read_factors(directory: str) -> FactorsSummary:
    """Summary read from the _factors.json of a collaborative/."""
    return FactorsSummary(**files.read_json(join(directory, FACTORS_FILE)))

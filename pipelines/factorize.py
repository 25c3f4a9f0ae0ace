"""What the fuse stage does before it fuses: history, and the collaborative factors of the posts that have one.

    make_history   interactions/, posts/ -> history/
    factorize      history/ -> collaborative/ with _factors.json

No stage of its own, and no command.
"""

import dataclasses
import logging

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystems import FileSystems

from pipelines import parts
from pipelines.options import Options, RunError
from pipelines.paths import join
from pipelines.runner import new_pipeline
from pipelines.stage import Places
from transforms import collaborative, counts, files, history, interaction_matrix, reposts, schemas, tables
from transforms.interaction_weights import InteractionWeights, parse_kind_weights
from transforms.space import FACTORS_FILE
from transforms.tiled_matrix import TiledMatrix, open_matrix


@dataclasses.dataclass(frozen=True)
class Factors:
    """What _factors.json says of collaborative/.

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
    num_parts = parts.choose_num_parts(options, *map(places.input, ("posts", "interactions")))
    weights = InteractionWeights(parse_kind_weights(options.kind_weights), options.half_life_days)
    with new_pipeline(options) as root:
        read = {
            name: root | f"Read {name}" >> tables.ReadBlocks(places.input(name), columns)
            for name, columns in (("interactions", history.COLUMNS), ("posts", reposts.COLUMNS))
        }
        made = read | history.MakeHistory(weights, num_parts, parts.end_of_run(options))
        _ = made | "WriteHistory" >> tables.WriteParts(places.output("history"), schemas.HISTORY)


def factorize(options: Options, places: Places, factors: int = 128) -> Factors:
    """Factorises history/, which this stage has just written, and writes collaborative/.

    In three pipelines, because the second needs to know the size of the matrix, and the third its rank.

    Raises:
      RunError: the history is too long.
    """
    directory = places.scratch("matrix")
    made_from = places.output("history")
    try:
        num_parts = interaction_matrix.choose_num_parts(tables.count_rows(made_from))
    except ValueError as error:
        raise RunError(str(error)) from None
    with new_pipeline(options) as root:
        read = root | tables.ReadParts(made_from, interaction_matrix.COLUMNS)
        made = read | interaction_matrix.MakeMatrix(directory, num_parts)
        _ = made.counts | counts.WriteCounts(places.output("collaborative"))
    matrix = open_matrix(directory)
    solution = solve(options, matrix, collaborative.max_factors(matrix, factors))
    if len(solution.singular_values):
        with new_pipeline(options) as root:
            found = root | collaborative.ReadFactors(matrix, solution)
            schema = schemas.collaborative(len(solution.singular_values))
            _ = found | tables.WriteParts(places.output("collaborative"), schema)
    else:
        logging.warning("no collaborative factors: fewer than two users or posts have interactions that count")
    described = Factors(solution.singular_values.tolist(), matrix.num_columns, matrix.num_rows, solution.energy)
    files.write_json(join(places.output("collaborative"), FACTORS_FILE), dataclasses.asdict(described))
    FileSystems.delete([directory])
    return described


def solve(options: Options, matrix: TiledMatrix, factors: int) -> collaborative.Solution:
    """The truncated SVD of a matrix, without singular values where `factors` is 0."""
    if not factors:
        return collaborative.Solution(np.zeros(0), np.zeros((0, 0)), 0.0, 0)
    with new_pipeline(options) as root:
        solved = root | collaborative.FactorizeMatrix(
            matrix, factors, passes=collaborative.choose_passes(matrix), seed=options.seed
        )
        _ = solved | "WriteSolution" >> beam.Map(collaborative.write_solution, matrix.directory)
    return collaborative.read_solution(matrix.directory)


def read_factors(directory: str) -> Factors:
    """What _factors.json of a collaborative/ says."""
    return Factors(**files.read_json(join(directory, FACTORS_FILE)))

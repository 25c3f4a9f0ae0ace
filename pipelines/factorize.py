"""Collaborative factors of the posts, the tuning of the embeddings, and both beside the content of every post.

Reads content/, posts/ and interactions/; writes history/ (each user's interactions), collaborative/ (factors of the
posts that have interactions, and the tuning) and fused/ (content with the factors appended).

    fusefeed factorize --output DIR [--run_date YYYY-MM-DD] [--factors 128] [--kind_weights like=1,hide=-1]
"""

import dataclasses
import functools
import logging

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.command_line.options import FactorizeOptions, Options, RunError, UsageError, end_of_run
from pipelines.continuity import space_lineage
from pipelines.stage import part_sizes
from pipelines.stage.declaration import Places, Stage
from pipelines.stage.runner import new_pipeline
from transforms.embed import trend
from transforms.embed.append_factors import AppendFactors
from transforms.embed.embedding_space import COLLABORATIVE, FACTORS_FILE, TUNING_FILE
from transforms.embed.parameters import Trend, Tuning
from transforms.fuse import fuse_features, tft_graph, transform_fn
from transforms.interactions import collaborative_factors, history, interaction_matrix, reposts
from transforms.interactions.weights import InteractionWeights, parse_kind_weights
from transforms.linalg.tiled_matrix import TiledMatrix, open_matrix
from transforms.tables import counts, files, parquet, schemas
from transforms.tables.files import join
from transforms.tuning import sample, tune


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
    files.delete(directory)
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


def find_tuning(options: Options, places: Places) -> None:
    """Tunes the shapes and weights of the embeddings' blocks on a bounded sample, or takes the last run's over."""
    taken = sample.sample_interactions(places.output("history"), places.input("content"))
    space = space_lineage.read(places.input("transform_fn"))
    before = space_lineage.collaborative_of(options, space.previous) if space.previous else ""
    if before and files.exists(join(before, TUNING_FILE)):
        last = Tuning.from_dict(files.read_json(join(before, TUNING_FILE)))
        found = tune.as_of_now(last, taken.interactions)
    else:
        found = tune.tune(taken, options.seed, options.factors)
    files.write_json(join(places.output("collaborative"), TUNING_FILE), found.to_dict())


def append_factors(options: Options, places: Places) -> None:
    """Writes fused/: the content vectors with the collaborative factors and the trend, as far as there are any."""
    layout = transform_fn.read_layout(places.input("content"))
    factors = read_factors(places.output("collaborative"))
    recent = Tuning.from_dict(files.read_json(join(places.output("collaborative"), TUNING_FILE))).trend
    whole = with_factors(layout, len(factors.singular_values))
    with new_pipeline(options) as root:
        if whole == layout and recent is None:
            fused = root | "ReadContent" >> parquet.ReadParts(places.input("content"))
        else:
            fused = append(root, options, places, layout, factors, recent)
        _ = fused | "WriteFused" >> parquet.WriteParts(places.output("fused"), whole.schema())
        counted = fused | "CountPosts" >> beam.FlatMap(fuse_features.count_fused, whole)
        _ = counted | counts.WriteCounts(places.output("fused"))
    transform_fn.write_layout(whole, places.output("fused"))


def append(
    root: beam.Pipeline,
    options: Options,
    places: Places,
    layout: transform_fn.FusedLayout,
    factors: FactorsSummary,
    recent: Trend | None,
) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
    """Parts of fused/: content with the factors appended, and the recent popularity where that has a weight."""
    num_parts = part_sizes.choose_num_parts(options, places.input("content"))
    read = {
        name: root | f"Read {name}" >> parquet.ReadBlocks(directory)
        for name, directory in (("fused", places.input("content")), ("factors", places.output("collaborative")))
    }
    if recent is not None:
        read["history"] = root | "Read history" >> parquet.ReadBlocks(places.output("history"), trend.COLUMNS)
    sizes = (len(factors.singular_values), factors.num_posts, factors.num_users)
    return read | AppendFactors(layout.width, len(layout.modalities), *sizes, num_parts, recent)


def with_factors(layout: transform_fn.FusedLayout, rank: int) -> transform_fn.FusedLayout:
    """The layout with the collaborative modality at its end, where there are any factors."""
    if not rank:
        return layout
    added = tft_graph.ModalityBlock(COLLABORATIVE, layout.width, rank, rank)
    return transform_fn.FusedLayout((*layout.modalities, added))


def check_kind_weights(options: Options) -> None:
    """Finds out whether --kind_weights can be read.

    Raises:
      UsageError: it cannot.
    """
    try:
        parse_kind_weights(options.kind_weights)
    except ValueError as error:
        raise UsageError(f"--{error}") from None


def run(options: Options, places: Places) -> None:
    """Runs the stage."""
    check_kind_weights(options)
    make_history(options, places)
    factorize(options, places, options.factors)
    find_tuning(options, places)
    append_factors(options, places)


STAGE = Stage(
    name="factorize",
    reads=("content", "transform_fn", "posts", "interactions"),
    writes=("history", "collaborative", "fused"),
    run=run,
    options=(FactorizeOptions, "seed", "num_parts"),
    other_sources=functools.partial(space_lineage.sources, tables=("collaborative",)),
)

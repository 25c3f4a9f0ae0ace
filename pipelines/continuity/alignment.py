"""Alignment of the embeddings of consecutive runs: rotations, and the mean cosine after them.

_continuity.json beside the item embeddings names the run that began their space and has the mean cosine of the posts
that both runs have; metrics.json repeats it.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.command_line.options import Options
from pipelines.continuity import space_lineage
from pipelines.stage import part_sizes, runner
from pipelines.stage.declaration import Places
from pipelines.store import runs
from transforms.tables import files
from transforms.tables.files import join

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from transforms.embed.embedding_space import Space
    from transforms.embed.procrustes import Rotations

    Pairs = tuple[int, tuple[np.ndarray, np.ndarray]]

FILE = "_continuity.json"


class Side(NamedTuple):
    """One of two tables whose vectors are compared: which columns of it are read, and what makes vectors of them."""

    directory: str
    columns: Sequence[str] | None
    vectors: "Callable[[pa.RecordBatch], pa.RecordBatch] | None" = None


def last_items(options: Options, places: Places) -> str:
    """The item_embeddings/ of the run in whose space this one goes on; "" where it begins one, or that run is gone."""
    found = space_lineage.read(places.input("transform_fn"))
    directory = join(runs.directory(options.output, found.previous), "item_embeddings") if found.previous else ""
    return directory if directory and files.exists(directory) else ""


def find_rotations(options: Options, places: Places, straight: "Space", before: str) -> "Rotations | None":
    """Rotations that align the embeddings with those of another run; None if their block widths differ.

    Args:
      straight: the space as it is before it is turned.
      before: the item_embeddings/ of that run.
    """
    from transforms.embed import embedding_space, exported_model, item_embeddings, procrustes

    if embedding_space.read_widths(before) != straight.widths:
        return None
    predictor = exported_model.FactorPredictor(places.input("model"))

    def embed(fused: "pa.RecordBatch") -> "pa.RecordBatch":
        return item_embeddings.embed(fused, straight, predictor)[0]

    def multiply(pairs: "Pairs") -> "tuple[int, np.ndarray]":
        return procrustes.cross_products(pairs, straight.widths)

    sides = {procrustes.NEW: Side(places.input("fused"), None, embed), procrustes.OLD: Side(before, procrustes.COLUMNS)}
    products = _sum_over_pairs(options, places, sides, straight.width, multiply)
    return procrustes.rotations(products, straight.widths)


def find_factor_rotation(options: Options, places: Places, before: str, count: int) -> "np.ndarray":
    """Rotation that aligns the leading factors with those of another run: [count, count] orthogonal.

    It is that of factors times the roots of their singular values, as in a model's loss: what counts more lies nearer.

    Args:
      before: the collaborative/ of that run; it has as many factors or more.
    """
    from transforms.embed import embedding_space, procrustes
    from transforms.embed.formulas import Widths

    widths = Widths(count, 0, 0)

    def multiply(pairs: "Pairs") -> "tuple[int, np.ndarray]":
        return procrustes.cross_products(pairs, widths)

    sides = {}
    for name, directory in ((procrustes.NEW, places.input("collaborative")), (procrustes.OLD, before)):
        values = embedding_space.read_singular_values(directory)[:count]
        sides[name] = Side(directory, ("post_id", "factors"), procrustes.WeighFactors(values))
    return procrustes.rotations(_sum_over_pairs(options, places, sides, count, multiply), widths)[0]


def write(options: Options, places: Places, before: str) -> None:
    """Writes FILE beside the item embeddings that this stage has made.

    Args:
      before: those that they were turned to; "" where they were not.
    """
    from transforms.embed import procrustes
    from transforms.tables import files, parquet

    found = space_lineage.read(places.input("transform_fn"))
    directory = places.output("item_embeddings")
    about: dict[str, Any] = {"space_since": found.since, "previous": found.previous, "why_new": found.why_new}
    if before:
        sides = {
            name: Side(at, procrustes.COLUMNS) for name, at in ((procrustes.NEW, directory), (procrustes.OLD, before))
        }
        width = parquet.read_schema(before).field("embedding").type.list_size
        sums = _sum_over_pairs(options, places, sides, width, procrustes.cosines)
        about |= procrustes.continuity(sums)._asdict()
    elif found.previous:
        about["why_new"] = "the blocks of the embeddings have other widths, or the last run is gone"
    files.write_json(join(directory, FILE), about)


def _sum_over_pairs(
    options: Options,
    places: Places,
    sides: dict[str, Side],
    width: int,
    of_pairs: "Callable[[Pairs], tuple[int, np.ndarray]]",
) -> "np.ndarray":
    """The sum of what `of_pairs` makes of the vectors, `width` numbers each, of posts that two tables have."""
    import apache_beam as beam

    from transforms.embed import procrustes
    from transforms.interactions.collaborative_factors import SumInOrder
    from transforms.tables import arrays, parquet

    old = sides[procrustes.OLD].directory
    share = procrustes.share_of(parquet.count_rows(old))
    num_parts = part_sizes.choose_num_parts(options, old)
    path = join(places.scratch("pairs"), "sum.npy")
    with runner.new_pipeline(options) as root:
        rows: dict[str, Any] = {}
        for name, side in sides.items():
            read = root | f"Read {name}" >> parquet.ReadBlocks(side.directory, side.columns)
            rows[name] = read | f"Choose {name}" >> beam.Map(procrustes.chosen, share)
            if side.vectors is not None:
                rows[name] = rows[name] | f"Embed {name}" >> beam.Map(side.vectors)
        pairs = rows | procrustes.MeetPosts(width, num_parts)
        _ = pairs | "OfPairs" >> beam.Map(of_pairs) | SumInOrder() | beam.Map(lambda total: arrays.save(path, total))
    total: np.ndarray = arrays.load(path)
    return total

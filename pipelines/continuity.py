"""Embeddings of consecutive runs: turned to lie where the last run's do, and how much alike they then are.

Beside the item embeddings _continuity.json tells whose space they are in, and the mean cosine of the posts that both
runs have; it stands in metrics.json too.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipelines import lineage, parts, runs, stage
from pipelines.options import Options
from pipelines.stage import Places, join

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from transforms.align import Rotations
    from transforms.space import Space

    Pairs = tuple[int, tuple[np.ndarray, np.ndarray]]

FILE = "_continuity.json"


def last_items(options: Options, places: Places) -> str:
    """The item_embeddings/ of the run in whose space this one goes on; "" where it begins one, or that run is gone."""
    found = lineage.read(places.input("collaborative"))
    directory = join(runs.directory(options.output, found.previous), "item_embeddings") if found.previous else ""
    return directory if directory and stage.exists(directory) else ""


def find_rotations(options: Options, places: Places, straight: "Space", before: str) -> "Rotations | None":
    """What turns the embeddings to where those of another run are; None where their blocks are of other widths.

    Args:
      straight: the space as it is before it is turned.
      before: the item_embeddings/ of that run.
    """
    from transforms import align, items, latent, space

    if space.read_widths(before) != straight.widths:
        return None
    stand_in = latent.StandIn(places.input("model"))

    def embed(fused: "pa.RecordBatch") -> "pa.RecordBatch":
        return items.embed(fused, straight, stand_in)[0]

    def multiply(pairs: "Pairs") -> "tuple[int, np.ndarray]":
        return align.cross_products(pairs, straight.widths)

    products = _sum_over_pairs(options, places, places.input("fused"), before, embed, multiply)
    return align.rotations(products, straight.widths)


def write(options: Options, places: Places, before: str) -> None:
    """Writes FILE beside the item embeddings that this stage has made.

    Args:
      before: those that they were turned to; "" where they were not.
    """
    from transforms import align, files

    found = lineage.read(places.input("collaborative"))
    directory = places.output("item_embeddings")
    about: dict[str, Any] = {"space_since": found.since, "previous": found.previous, "why_new": found.why_new}
    if before:
        sums = _sum_over_pairs(options, places, directory, before, None, align.cosines)
        about |= align.continuity(sums)._asdict()
    elif found.previous:
        about["why_new"] = "the blocks of the embeddings have other widths, or the last run is gone"
    files.write_json(join(directory, FILE), about)


def _sum_over_pairs(
    options: Options,
    places: Places,
    new: str,
    old: str,
    embed: "Callable[[pa.RecordBatch], pa.RecordBatch] | None",
    of_pairs: "Callable[[Pairs], tuple[int, np.ndarray]]",
) -> "np.ndarray":
    """The sum of what `of_pairs` makes of the vectors of posts that two tables have."""
    import apache_beam as beam

    from transforms import align, arrays, tables
    from transforms.collaborative import SumInOrder

    share = align.share_of(tables.count_rows(old))
    width = tables.read_schema(old).field("embedding").type.list_size
    num_parts = parts.choose_num_parts(options, old)
    path = join(places.scratch("pairs"), "sum.npy")
    with stage.new_pipeline(options) as root:
        rows: dict[str, Any] = {
            name: root
            | f"Read {name}" >> tables.ReadBlocks(directory, None if name == align.NEW and embed else align.COLUMNS)
            | f"Choose {name}" >> beam.Map(align.chosen, share)
            for name, directory in ((align.NEW, new), (align.OLD, old))
        }
        if embed is not None:
            rows[align.NEW] = rows[align.NEW] | "Embed" >> beam.Map(embed)
        pairs = rows | align.MeetPosts(width, num_parts)
        _ = pairs | "OfPairs" >> beam.Map(of_pairs) | SumInOrder() | beam.Map(lambda total: arrays.save(path, total))
    total: np.ndarray = arrays.load(path)
    return total

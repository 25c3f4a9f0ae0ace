"""Content of every post as one vector with a block for each modality.

Reads features/; writes content/ and transform_fn/, which is fitted on all posts and also encodes the interests that
users state. A run takes over the transform_fn of the last published one where that still holds.

    fusefeed fuse --output DIR [--run_date YYYY-MM-DD] [--vocabulary_size 50000] [--text_width 128]
"""

import logging
from collections.abc import Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.command_line.options import FuseOptions, Options
from pipelines.continuity import space_lineage
from pipelines.stage import part_sizes
from pipelines.stage.declaration import Places, Stage
from pipelines.stage.runner import new_pipeline
from transforms.fuse import fuse_features, tft_graph, time_modality, transform_fn
from transforms.tables import counts, files, parquet, schemas
from transforms.text import tfidf_svd, vocabulary

# Of what counts terms, however few posts there are.
MIN_COUNT_PARTS = 16
TEXT_COLUMNS = ("text_terms", "text_counts")


def build(root: beam.Pipeline, options: Options, places: Places) -> None:
    """Applies the stage's transform_fn to every part."""
    directory = places.output("transform_fn")
    layout = transform_fn.read_layout(directory)
    known = [name for name in schemas.widths_of(parquet.read_schema(places.input("features"))) if name in layout.dense]
    parts = read_features(root, places, ("author_id", *TEXT_COLUMNS, *known), time_modality.read_edges(directory))
    fused = parts | "Fuse" >> fuse_features.FuseParts(directory)
    _ = fused | "WriteContent" >> parquet.WriteParts(places.output("content"), layout.schema())
    counted = fused | "CountPosts" >> beam.FlatMap(fuse_features.count_fused, layout)
    _ = counted | counts.WriteCounts(places.output("content"))


def read_features(
    root: beam.Pipeline, places: Places, columns: Sequence[str], edges: np.ndarray
) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
    """Parts of features/ with the time of the posts as one more modality."""
    parts = root | "ReadFeatures" >> parquet.ReadParts(places.input("features"), ("post_id", "created_at", *columns))
    return parts | "AddTime" >> beam.Map(time_modality.add_time, edges)


def fit(options: Options, places: Places) -> transform_fn.FusedLayout:
    """Fits a transform_fn on all posts and writes it.

    Raises:
      ValueError: there is nothing to fit on.
    """
    fuse_features.check_text_size(options.vocabulary_size, options.text_width)
    directory = places.output("transform_fn")
    widths = schemas.widths_of(parquet.read_schema(places.input("features")))
    present = survey(options, places, widths)
    edges = time_modality.read_edges(places.scratch("survey"))
    if len(edges):
        widths |= {time_modality.TIME: time_modality.WIDTH}
    else:
        del present[time_modality.TIME]
    text = fit_text(options, places, present[tft_graph.TEXT])
    layout = fuse_features.plan(present, widths, text)
    for name in fuse_features.dropped_modalities(present, layout):
        logging.warning("modality %s is left out: %d of the posts have it, too few to fit on", name, present[name])
    known = [name for name in layout.dense if name != time_modality.TIME]
    with new_pipeline(options) as root, fuse_features.tft_context(places.scratch("tft")):
        parts = read_features(root, places, known, edges)
        _ = parts | fuse_features.FitTransform(directory, layout, text)
    transform_fn.write_layout(layout, directory)
    time_modality.write_edges(edges, directory)
    return layout


def survey(options: Options, places: Places, widths: dict[str, int]) -> dict[str, int]:
    """Writes the vocabulary and the edges of the times into scratch; gives how many posts have which modality."""
    with new_pipeline(options) as root:
        read = root | parquet.ReadParts(places.input("features"), ("post_id", "created_at", "text_terms", *widths))
        terms = read | vocabulary.SelectVocabulary(
            options.vocabulary_size,
            num_parts=max(MIN_COUNT_PARTS, part_sizes.choose_num_parts(options, places.input("features"))),
        )
        _ = (
            terms
            | "OnePart" >> beam.Map(lambda block: (0, block))
            | "WriteVocabulary" >> parquet.WriteParts(places.scratch("vocabulary"), vocabulary.SCHEMA)
        )
        present = read | "CountPresent" >> fuse_features.CountPresent(widths)
        _ = present | counts.WriteCounts(places.scratch("survey"))
        edges = read | "FitTimes" >> time_modality.FitTimes()
        _ = edges | "WriteTimes" >> beam.Map(time_modality.write_edges, places.scratch("survey"))
    found = counts.read_counts(places.scratch("survey"))
    return {name: found.get(f"present.{name}", 0) for name in (tft_graph.TEXT, time_modality.TIME, *widths)}


def fit_text(options: Options, places: Places, num_texts: int) -> tfidf_svd.TextFit | None:
    """The singular vectors of the posts' TF-IDF; None where there are no texts or none has a term with another."""
    num_terms = parquet.count_rows(places.scratch("vocabulary"))
    if num_texts < fuse_features.MIN_PRESENT or num_terms == 0:
        return None
    features, terms, written = places.input("features"), places.scratch("vocabulary"), places.scratch("text")
    with new_pipeline(options) as root:
        _ = root | "FitText" >> tfidf_svd.FitText(
            features, terms, places.scratch("svd"), num_texts, num_terms, options.text_width, written, options.seed
        )
    return tfidf_svd.open_fit(written)


def fuse_content(options: Options, places: Places, fitted: str = "") -> None:
    """Fits a transform_fn on all posts, or takes over the one in the directory `fitted`, and applies it."""
    directory = places.output("transform_fn")
    if fitted:
        layout = transform_fn.read_layout(fitted)
        transform_fn.check_version(fitted)
        transform_fn.check_widths(layout, parquet.read_schema(places.input("features")))
        files.copy_directory(fitted, directory)
    else:
        layout = fit(options, places)
    with new_pipeline(options) as root:
        build(root, options, places)
    transform_fn.write_layout(layout, places.output("content"))


def run(options: Options, places: Places) -> None:
    """Runs the stage: in the embedding space of the last published run where that still holds, else in a new one."""
    space = space_lineage.decide(options, places)
    if not space.previous:
        logging.info("a new space of embeddings: %s", space.why_new)
    fuse_content(options, places, space_lineage.directory_of(options, space.previous) if space.previous else "")
    space_lineage.write(space, places.output("transform_fn"))


STAGE = Stage(
    name="fuse",
    reads=("features",),
    writes=("content", "transform_fn"),
    run=run,
    work="features",
    options=(FuseOptions, *space_lineage.OPTIONS, "seed", "num_parts"),
)

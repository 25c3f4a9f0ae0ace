"""fuse: every post as one vector with a block for each modality, by a transform fitted on all posts and saved.

Reads features/; writes fused/ (with _layout.json) and transform_fn/, which also encodes what users say of themselves
and can be used again by a later run, unfitted: `--transform_fn DIR`.

    fusefeed fuse --output DIR [--run_date YYYY-MM-DD] [--vocabulary_size 50000] [--text_width 128] [--pca_width 64]
"""

import logging
from collections.abc import Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines import stage
from pipelines.options import Options
from pipelines.stage import Places, Stage, join, new_pipeline
from transforms import counts, fuse, post_time, preprocessing, schemas, tables, transform_fn, vocabulary

TEXT_COLUMNS = ("text_terms", "text_counts")


def build(root: beam.Pipeline, options: Options, places: Places) -> None:
    """Applies the stage's transform_fn to every part."""
    directory = places.output("transform_fn")
    layout = transform_fn.read_layout(directory)
    known = [name for name in schemas.widths_of(tables.read_schema(places.input("features"))) if name in layout.dense]
    parts = read_features(root, places, ("author_id", *TEXT_COLUMNS, *known), post_time.read_edges(directory))
    fused = parts | "Fuse" >> fuse.FuseParts(directory)
    _ = fused | "WriteFused" >> tables.WriteParts(places.output("fused"), layout.schema())
    _ = fused | "CountPosts" >> beam.FlatMap(fuse.count_fused, layout) | counts.WriteCounts(places.output("fused"))


def read_features(
    root: beam.Pipeline, places: Places, columns: Sequence[str], edges: np.ndarray
) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
    """Parts of features/ with the time of the posts as one more modality."""
    parts = root | "ReadFeatures" >> tables.ReadParts(places.input("features"), ("post_id", "created_at", *columns))
    return parts | "AddTime" >> beam.Map(post_time.add_time, edges)


def fit(options: Options, places: Places) -> transform_fn.Layout:
    """Fits a transform_fn on all posts and writes it.

    Raises:
      ValueError: there is nothing to fit on.
    """
    fuse.check_text_size(options.vocabulary_size, options.text_width)
    directory = places.output("transform_fn")
    widths = schemas.widths_of(tables.read_schema(places.input("features")))
    present = survey(options, places, widths)
    edges = post_time.read_edges(places.scratch("survey"))
    if len(edges):
        widths |= {post_time.TIME: post_time.WIDTH}
    else:
        del present[post_time.TIME]
    block = vocabulary.read_table(places.scratch("vocabulary"))
    text = fit_text(options, places, present[preprocessing.TEXT], block)
    layout = fuse.plan(present, widths, text, options.pca_width)
    for name in fuse.left_out(present, layout):
        logging.warning("modality %s is left out: %d of the posts have it, too few to fit on", name, present[name])
    known = [name for name in layout.dense if name != post_time.TIME]
    with new_pipeline(options) as root, fuse.tft_context(places.scratch("tft")):
        parts = read_features(root, places, (*TEXT_COLUMNS, *known), edges)
        _ = parts | fuse.FitTransform(directory, layout, text, block if text is not None else block.slice(0, 0))
    if text is not None:
        fuse.check_vocabulary(directory, block)
    transform_fn.write_layout(layout, directory)
    post_time.write_edges(edges, directory)
    return layout


def survey(options: Options, places: Places, widths: dict[str, int]) -> dict[str, int]:
    """Writes the vocabulary and the edges of the times into scratch; gives how many posts have which modality."""
    with new_pipeline(options) as root:
        parts = root | tables.ReadParts(places.input("features"), ("post_id", "created_at", "text_terms", *widths))
        terms = parts | vocabulary.SelectVocabulary(
            options.vocabulary_size, options.min_document_frequency, options.max_document_share
        )
        _ = (
            terms
            | "OnePart" >> beam.Map(lambda block: (0, block))
            | "WriteVocabulary" >> tables.WriteParts(places.scratch("vocabulary"), vocabulary.SCHEMA)
        )
        present = parts | "CountPresent" >> fuse.CountPresent(widths)
        _ = present | counts.WriteCounts(places.scratch("survey"))
        edges = parts | "FitTimes" >> post_time.FitTimes()
        _ = edges | "WriteTimes" >> beam.Map(post_time.write_edges, places.scratch("survey"))
    found = counts.read_counts(places.scratch("survey"))
    return {name: found.get(f"present.{name}", 0) for name in (preprocessing.TEXT, post_time.TIME, *widths)}


def fit_text(options: Options, places: Places, num_texts: int, block: pa.RecordBatch) -> fuse.TextFit | None:
    """The singular vectors of the posts' TF-IDF; None where there are no texts or none has a term with another."""
    if num_texts < fuse.MIN_PRESENT or block.num_rows == 0:
        return None
    path = join(places.scratch("svd"), "text.npz")
    features, terms = places.input("features"), places.scratch("vocabulary")
    with new_pipeline(options) as root:
        found = root | "FitText" >> fuse.FitText(
            features, terms, num_texts, block.num_rows, options.text_width, options.seed
        )
        _ = found | "WriteText" >> beam.Map(fuse.write_text, path, terms, num_texts)
    return fuse.text_fit(path)


def run(options: Options, places: Places) -> None:
    """Fits or takes over a transform_fn, then applies it."""
    directory = places.output("transform_fn")
    if options.transform_fn:
        layout = transform_fn.read_layout(options.transform_fn)
        transform_fn.check_widths(layout, tables.read_schema(places.input("features")))
        transform_fn.copy_directory(options.transform_fn, directory)
    else:
        layout = fit(options, places)
    with new_pipeline(options) as root:
        build(root, options, places)
    transform_fn.write_layout(layout, places.output("fused"))


STAGE = Stage(name="fuse", reads=("features",), writes=("fused", "transform_fn"), run=run, work="features")


def main(argv: Sequence[str] | None = None) -> int:
    """The command `fusefeed fuse`."""
    return stage.main(STAGE, __doc__ or "", argv)


if __name__ == "__main__":
    raise SystemExit(main())

"""Every post as one vector with a block for each modality: what it holds, and who interacts with it.

Reads features/, posts/ and interactions/; writes transform_fn/ (fitted on all posts; it also encodes what users say of
themselves and can be used again by a later run, unfitted: `--transform_fn DIR`), history/ (what each user has done),
collaborative/ (factors of the interactions, and how the embeddings are made of all this) and fused/.

    fusefeed fuse --output DIR [--run_date YYYY-MM-DD] [--vocabulary_size 50000] [--text_width 128] [--pca_width 64]
"""

import dataclasses
import logging
from collections.abc import Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines import factorize
from pipelines.command_line.options import Options, UsageError
from pipelines.continuity import space_lineage
from pipelines.stage import part_sizes
from pipelines.stage.declaration import Places, Stage
from pipelines.stage.runner import new_pipeline
from pipelines.store import paths, runs
from pipelines.store.paths import join
from transforms.embed import trend
from transforms.embed.append_factors import AppendFactors
from transforms.embed.embedding_space import COLLABORATIVE, TUNING_FILE
from transforms.embed.parameters import Trend, Tuning
from transforms.fuse import fuse_features, tft_graph, time_modality, transform_fn
from transforms.interactions.weights import parse_kind_weights
from transforms.tables import counts, files, parquet, schemas
from transforms.text import tfidf_svd, vocabulary
from transforms.tuning import sample, tune

CONTENT = "content"
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
    _ = fused | "WriteContent" >> parquet.WriteParts(places.scratch(CONTENT), layout.schema())


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
    layout = fuse_features.plan(present, widths, text, options.pca_width)
    for name in fuse_features.left_out(present, layout):
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
            options.min_document_frequency,
            options.max_document_share,
            max(MIN_COUNT_PARTS, part_sizes.choose_num_parts(options, places.input("features"))),
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


def fuse_content(options: Options, places: Places) -> transform_fn.FusedLayout:
    """Fits or takes over a transform_fn and applies it: the fused vectors of content go into scratch."""
    directory = places.output("transform_fn")
    if options.transform_fn:
        layout = transform_fn.read_layout(options.transform_fn)
        transform_fn.check_version(options.transform_fn)
        transform_fn.check_widths(layout, parquet.read_schema(places.input("features")))
        transform_fn.copy_directory(options.transform_fn, directory)
    else:
        layout = fit(options, places)
    with new_pipeline(options) as root:
        build(root, options, places)
    transform_fn.write_layout(layout, places.scratch(CONTENT))
    return layout


def append_factors(
    options: Options, places: Places, layout: transform_fn.FusedLayout, factors: factorize.FactorsSummary
) -> None:
    """Writes fused/: the vectors of content with the collaborative factors, as the tuning that was found wants it."""
    lately = Tuning.from_dict(files.read_json(join(places.output("collaborative"), TUNING_FILE))).trend
    whole = with_factors(layout, len(factors.singular_values))
    if whole == layout and lately is None:
        # Nothing to append: the files are not read, shuffled and written once more.
        paths.move(places.scratch(CONTENT), places.output("fused"))
        with new_pipeline(options) as root:
            _count(root | parquet.ReadParts(places.output("fused"), ("mask",)), places, layout)
    else:
        with new_pipeline(options) as root:
            build_appended(root, options, places, layout, factors, lately)
    transform_fn.write_layout(whole, places.output("fused"))


def build_appended(
    root: beam.Pipeline,
    options: Options,
    places: Places,
    layout: transform_fn.FusedLayout,
    factors: factorize.FactorsSummary,
    lately: Trend | None,
) -> None:
    """Appends the collaborative factors to the fused vectors of content, and tells what is liked lately."""
    rank = len(factors.singular_values)
    num_parts = part_sizes.choose_num_parts(options, places.scratch(CONTENT))
    read = {
        name: root | f"Read {name}" >> parquet.ReadBlocks(directory)
        for name, directory in (("fused", places.scratch(CONTENT)), ("factors", places.output("collaborative")))
    }
    if lately is not None:
        read["history"] = root | "Read history" >> parquet.ReadBlocks(places.output("history"), trend.COLUMNS)
    sizes = (rank, factors.num_posts, factors.num_users)
    appended = read | AppendFactors(layout.width, len(layout.modalities), *sizes, num_parts, lately)
    whole = with_factors(layout, rank)
    _ = appended | "WriteFused" >> parquet.WriteParts(places.output("fused"), whole.schema())
    _count(appended, places, whole)


def _count(
    fused: beam.PCollection[tuple[int, pa.RecordBatch]], places: Places, layout: transform_fn.FusedLayout
) -> None:
    _ = (
        fused
        | "CountPosts" >> beam.FlatMap(fuse_features.count_fused, layout)
        | counts.WriteCounts(places.output("fused"))
    )


def with_factors(layout: transform_fn.FusedLayout, rank: int) -> transform_fn.FusedLayout:
    """The layout with the collaborative modality at its end, where there are any factors."""
    if not rank:
        return layout
    added = tft_graph.ModalityBlock(COLLABORATIVE, layout.width, rank, rank)
    return transform_fn.FusedLayout((*layout.modalities, added))


def find_tuning(options: Options, places: Places, before: str) -> None:
    """Finds how the blocks of the embeddings are shaped and mixed, on a bounded sample, and writes it.

    Args:
      before: the collaborative/ of the run whose space this is, which has told that already; "" for none.
    """
    taken = sample.sample_interactions(places.output("history"), places.scratch(CONTENT))
    if before:
        last = Tuning.from_dict(files.read_json(join(before, TUNING_FILE)))
        found = tune.as_of_now(last, taken.interactions)
    else:
        found = tune.tune(taken, options.seed, options.factors, one_recency=False)
    files.write_json(join(places.output("collaborative"), TUNING_FILE), found.to_dict())


def run(options: Options, places: Places) -> None:
    """Runs the stage: content, interactions, how they go together, and all of it side by side."""
    check_kind_weights(options)
    space = space_lineage.decide(options, places)
    before = ""
    if space.previous:
        before = space_lineage.collaborative_of(options, space.previous)
        taken_over = join(runs.directory(options.output, space.previous), "transform_fn")
        options = dataclasses.replace(options, transform_fn=taken_over)
    else:
        logging.info("a new space of embeddings: %s", space.why_new)
    layout = fuse_content(options, places)
    factorize.make_history(options, places)
    factors = factorize.factorize(options, places, options.factors)
    find_tuning(options, places, before)
    space_lineage.write(space, places.output("collaborative"))
    append_factors(options, places, layout, factors)


def check_kind_weights(options: Options) -> None:
    """Finds out whether --kind_weights can be read.

    Raises:
      UsageError: it cannot.
    """
    try:
        parse_kind_weights(options.kind_weights)
    except ValueError as error:
        raise UsageError(f"--{error}") from None


STAGE = Stage(
    name="fuse",
    reads=("features", "posts", "interactions"),
    writes=("fused", "transform_fn", "history", "collaborative"),
    run=run,
    work="features",
    options=("fuse", "seed", "num_parts"),
    files=("transform_fn",),
)

"""Ablations of a backtest: its vectors with one part less or another in its place, measured on the same split.

The variants that need no training are made by the run's own embed stage from tables of the backtest that are changed in
one point, for the users who are judged only, all in two Beam pipelines. The others repeat the backtest's stages on
features without a modality.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipelines import backtest, stage
from pipelines.backtest import Backtest
from pipelines.stage import Places
from transforms import files

if TYPE_CHECKING:
    import apache_beam as beam
    import numpy as np
    import pyarrow as pa

    from transforms.ablation import Variant
    from transforms.content_baselines import Moments
    from transforms.judged import Judged
    from transforms.space import Space


@dataclasses.dataclass(frozen=True)
class VariantPlaces(Places):
    """Places of which some input tables are elsewhere.

    Attributes:
      tables: table -> its directory.
    """

    tables: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def input(self, table: str) -> str:
        """The directory of a table: its own place, or where the run has it."""
        return self.tables.get(table) or super().input(table)


class Bench:
    """Figures of several ways to make lists, for the same users."""

    def __init__(self, judged: "Judged", only_cold: bool) -> None:
        from transforms import ablation

        self._rankings = ablation.rankings(judged, only_cold)
        self._values: dict[str, dict[str, np.ndarray]] = {name: {} for name in self._rankings}

    def add(self, name: str, make_lists: "Callable[[Judged], np.ndarray]") -> None:
        """Measures the lists; fusefeed's own must be among them."""
        from transforms import evaluation

        for ranking, judged in self._rankings.items():
            self._values[ranking][name] = evaluation.slice_measures(judged.targets, make_lists(judged))

    def results(self, seed: int) -> dict[str, dict[str, Any]]:
        """name -> ranking -> {"users", "posts", "measures", "lead"}: see `evaluation.compare`."""
        from transforms import evaluation

        found: dict[str, dict[str, Any]] = {}
        for ranking, values in self._values.items():
            judged = self._rankings[ranking]
            size = {"users": len(judged.user_id), "posts": int(judged.posts.eligible.sum())}
            for name, compared in evaluation.compare(values, seed, evaluation.SLICE_MEASURES).items():
                found.setdefault(name, {})[ranking] = size | compared
        return found


def measure(made: Backtest, judged: "Judged", known: "Moments") -> dict[str, dict[str, Any]]:
    """What the vectors reach without each of their parts: `Bench.results`.

    Args:
      made: a backtest whose stages have run.
      known: moments of the fused vectors that may be known.
    """
    from transforms import evaluation

    bench = Bench(judged, made.split.kind == "cold")
    bench.add(evaluation.OURS, _by_embeddings(made.everything.input))
    for name, places in _embed_variants(made, judged, known):
        bench.add(name, _by_embeddings(places.output))
    _add_cosines(bench, made, known)
    if made.options.ablations == "full" and len(known.content) > 1:
        for name in known.content:
            retrained = _without(made, name)
            backtest.fit_and_embed(retrained)
            _add_retrained(bench, name, retrained)
    return bench.results(made.options.seed)


def _add_retrained(bench: Bench, name: str, made: Backtest) -> None:
    from transforms import ablation

    bench.add(f"without {name}{ablation.RETRAINED}", _by_embeddings(made.everything.input))


def _by_embeddings(at: Callable[[str], str]) -> "Callable[[Judged], np.ndarray]":
    from transforms import evaluation

    threads = os.cpu_count() or 1
    return lambda judged: evaluation.embedding_lists(judged, at("user_embeddings"), at("item_embeddings"), threads)


def _add_cosines(bench: Bench, made: Backtest, known: "Moments") -> None:
    """Lists by cosine in the autoencoder's representation, in as many principal components, in the content itself."""
    from transforms import baselines, content_baselines, evaluation, latent

    at, threads = made.everything.input, os.cpu_count() or 1
    model = latent.StandIn(at("model"))
    size = files.read_json(stage.join(at("model"), "model.json"))["latent"]
    projects = {
        "cosine of the autoencoder": lambda fused, mask: content_baselines.unit_rows(model.latents(fused, mask)),
        "cosine of as large a PCA": content_baselines.by_pca(known, size),
    }
    if known.content:
        projects["cosine of the content"] = content_baselines.by_modalities(known, known.content)
    for name, project in projects.items():

        def make_lists(judged: "Judged", project: content_baselines.Project = project) -> "np.ndarray":
            lists = content_baselines.content_knn(judged, at("fused"), project, evaluation.MAX_K, threads)
            return baselines.fill(lists, baselines.popular(judged, evaluation.MAX_K, judged.posts.recent))

        bench.add(name, make_lists)


def _embed_variants(made: Backtest, judged: "Judged", known: "Moments") -> Iterator[tuple[str, Places]]:
    """Makes the embeddings of all variants that need no training."""
    from pipelines import embed
    from transforms import ablation, space

    at = made.everything.input
    found = space.read_space(at("fused"), at("collaborative"))
    variants = list(ablation.variants(found, known.content))
    root = stage.join(made.everything.run_dir, "_ablations")
    _write_inputs(made, judged.user_id, root, [variant.hidden for variant in variants if variant.hidden])
    _write_maps(made, root, found, known, {variant.linear for variant in variants if variant.linear})
    places = {}
    for number, variant in enumerate(variants):
        places[variant.name] = _variant_places(made, variant, root, stage.join(root, f"variant-{number}"))
    for build in (embed.build_items, embed.build_users):
        with stage.new_pipeline(made.options) as pipeline:
            for name, there in places.items():
                _ = pipeline | name >> _part(build, made, there)
    yield from places.items()


def _part(build: Callable[..., None], made: Backtest, places: Places) -> "beam.PTransform[Any, Any]":
    """A stage's pipeline as a part of a larger one, so that its labels may come again."""
    import apache_beam as beam
    from apache_beam import pvalue

    class Part(beam.PTransform):
        def expand(self, root: pvalue.PBegin) -> pvalue.PDone:
            build(root.pipeline, made.options, places)
            return pvalue.PDone(root.pipeline)

    return Part()


def _write_inputs(made: Backtest, user_id: "pa.Array", root: str, hidden: list[str]) -> None:
    """Writes what the variants share: the judged users and what they did, and fused vectors without a modality."""
    import apache_beam as beam

    from transforms import ablation, preprocessing, tables, transform_fn

    at = made.everything.input
    layout = transform_fn.read_layout(at("fused"))
    with stage.new_pipeline(made.options) as pipeline:
        for table in ("users", "history"):
            read = pipeline | f"Read {table}" >> tables.ReadParts(at(table))
            kept = read | f"Keep {table}" >> beam.Map(_of_users, user_id=user_id)
            schema = tables.read_schema(at(table))
            _ = kept | f"Write {table}" >> tables.WriteParts(stage.join(root, table), schema)
            if table == "users" and preprocessing.TEXT in hidden:
                silent = kept | "HideWords" >> beam.MapTuple(lambda part, block: (part, ablation.hide_words(block)))
                _ = silent | "WriteSilent" >> tables.WriteParts(stage.join(root, "silent_users"), schema)
        fused = pipeline | "ReadFused" >> tables.ReadParts(at("fused"))
        for name in hidden:
            without = fused | f"Hide {name}" >> beam.Map(ablation.hide_fused, layout=layout, name=name)
            directory = _hidden_fused(root, name)
            _ = without | f"WriteFused {name}" >> tables.WriteParts(directory, layout.schema())
            transform_fn.write_layout(layout, directory)


def _hidden_fused(root: str, modality: str) -> str:
    return stage.join(root, f"fused-{stage.slug(modality)}")


def _of_users(numbered: "tuple[int, pa.RecordBatch]", user_id: "pa.Array") -> "tuple[int, pa.RecordBatch]":
    import pyarrow.compute as pc

    part, block = numbered
    return part, block.filter(pc.is_in(block.column("user_id"), value_set=user_id))


def _write_maps(made: Backtest, root: str, space: "Space", known: "Moments", wanted: set[str]) -> None:
    """Writes the linear maps that take the autoencoder's place, fitted on the known posts, as model directories."""
    from transforms import ablation, latent, linear_map

    if not wanted or space.tuning.decoded is None:
        return
    decoded, count = space.tuning.decoded, space.widths.decoded
    size = files.read_json(stage.join(made.known.input("model"), "model.json"))["latent"]
    sums = linear_map.content_sums(made.known.input("fused"))
    for name, coefficients in (
        (ablation.RIDGE, linear_map.ridge_coefficients(sums, decoded, count)),
        (ablation.PCA, linear_map.pca_coefficients(sums, known, size, decoded.lam, count)),
    ):
        latent.write_linear(stage.join(root, f"model-{stage.slug(name)}"), coefficients, sums.widths)


def _variant_places(made: Backtest, variant: "Variant", root: str, directory: str) -> VariantPlaces:
    """Where a variant's inputs are; writes how its blocks are shaped."""
    from transforms import preprocessing, space

    at = made.everything.input
    tables = {name: stage.join(root, name) for name in ("users", "history")}
    tables["collaborative"] = stage.join(directory, "collaborative")
    factors = files.read_json(stage.join(at("collaborative"), space.FACTORS_FILE))
    files.write_json(stage.join(tables["collaborative"], space.FACTORS_FILE), factors)
    files.write_json(stage.join(tables["collaborative"], space.TUNING_FILE), variant.tuning.to_dict())
    tables |= {name: at(name) for name in ("fused", "transform_fn", "model")}
    if variant.hidden:
        tables["fused"] = _hidden_fused(root, variant.hidden)
    if variant.hidden == preprocessing.TEXT:
        tables["users"] = stage.join(root, "silent_users")
    if variant.linear:
        tables["model"] = stage.join(root, f"model-{stage.slug(variant.linear)}")
    return VariantPlaces(directory, directory, made.everything.local, tables)


def _without(made: Backtest, name: str) -> Backtest:
    """The backtest as it was before its stages ran, on features without a modality."""
    import apache_beam as beam

    from transforms import ablation, tables

    places = {}
    for old in {id(each): each for each in (made.known, made.everything)}.values():
        directory = f"{old.run_dir}-without-{stage.slug(name)}"
        new = backtest.new_places(directory, old, f"without-{stage.slug(name)}")
        with stage.new_pipeline(made.options) as pipeline:
            read = pipeline | tables.ReadParts(old.input("features"))
            hidden = read | beam.Map(ablation.hide_features, name=name)
            _ = hidden | tables.WriteParts(new.output("features"), tables.read_schema(old.input("features")))
        for table in ("posts", "users", "interactions"):
            backtest.link(old.input(table), new.input(table))
        places[id(old)] = new
    return dataclasses.replace(made, known=places[id(made.known)], everything=places[id(made.everything)])

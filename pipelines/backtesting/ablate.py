"""Ablations of a backtest: its embeddings with one part removed or replaced, measured on the same split.

Those that need no training are made from the backtest's tables in this process, for the test users. The others repeat
the backtest's stages on features without a modality.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pipelines.backtesting import run_stages
from pipelines.backtesting.run_stages import Backtest
from pipelines.stage import runner
from pipelines.store import paths
from transforms.tables import files

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from transforms.embed.embedding_space import Space
    from transforms.embed.exported_model import FactorPredictor
    from transforms.evaluate.content_baselines import ContentMoments
    from transforms.evaluate.test_set import HeldOutSet


class Bench:
    """Measures of several methods for the same users."""

    def __init__(self, test_set: "HeldOutSet", only_cold: bool, seed: int) -> None:
        from transforms.evaluate import ablation

        self._rankings = ablation.rankings(test_set, only_cold, seed)
        self._values: dict[str, dict[str, np.ndarray]] = {name: {} for name in self._rankings}

    def add(self, name: str, make_lists: "Callable[[HeldOutSet], np.ndarray]") -> None:
        """Measures the lists; fusefeed's own must be among them."""
        from transforms.evaluate import evaluation

        for ranking, test_set in self._rankings.items():
            self._values[ranking][name] = evaluation.slice_measures(test_set.targets, make_lists(test_set))

    @property
    def user_id(self) -> "pa.Array":
        """All users for whom lists are made: [u] string, sorted."""
        # The users of a ranking of some posts are among those of the whole catalog.
        return next(iter(self._rankings.values())).user_id

    def results(self, seed: int) -> dict[str, dict[str, Any]]:
        """name -> ranking -> {"users", "posts", "measures", "lead"}: see `evaluation.compare`."""
        from transforms.evaluate import evaluation

        found: dict[str, dict[str, Any]] = {}
        for ranking, values in self._values.items():
            test_set = self._rankings[ranking]
            size = {"users": len(test_set.user_id), "posts": int(test_set.posts.eligible.sum())}
            for name, compared in evaluation.compare(values, seed, evaluation.SLICE_MEASURES).items():
                found.setdefault(name, {})[ranking] = size | compared
        return found


def measure(made: Backtest, test_set: "HeldOutSet", known: "ContentMoments") -> dict[str, dict[str, Any]]:
    """Results of the vectors without each of their parts, as from `Bench.results`.

    Args:
      made: a backtest whose stages have run.
      known: moments of the fused vectors in the training part.
    """
    from transforms.evaluate import evaluation

    bench = Bench(test_set, made.split.kind == "cold", made.options.seed)
    bench.add(evaluation.OURS, _by_embeddings(made.everything.input))
    _add_variants(bench, made, known)
    _add_cosines(bench, made, known)
    if made.options.ablations == "full" and len(known.content) > 1:
        for name in known.content:
            retrained = _without(made, name)
            run_stages.fit_and_embed(retrained)
            bench.add(f"without {name}, retrained", _by_embeddings(retrained.everything.input))
            _delete(retrained)
    return bench.results(made.options.seed)


def _by_embeddings(at: Callable[[str], str]) -> "Callable[[HeldOutSet], np.ndarray]":
    from transforms.evaluate import evaluation

    threads = os.cpu_count() or 1
    return lambda test_set: evaluation.embedding_lists(test_set, at("user_embeddings"), at("item_embeddings"), threads)


def _add_variants(bench: Bench, made: Backtest, known: "ContentMoments") -> None:
    """Measures the vectors of all variants that need no training."""
    import pyarrow.compute as pc

    from transforms.embed import embedding_space, exported_model, text_to_factors, user_embeddings
    from transforms.embed.stated_interests import InterestsEncoder
    from transforms.evaluate import ablation, evaluation, variant_embeddings

    at, threads = made.everything.input, os.cpu_count() or 1
    found = embedding_space.read_space(at("fused"), at("collaborative"))
    text_map = text_to_factors.read_map(at("item_embeddings"))
    known_users = variant_embeddings.read_known(bench.user_id, at("users"), at("history"))
    predictors = {"": exported_model.FactorPredictor(at("model"))} | dict(_linear_maps(made, found, known))
    for variant in ablation.variants(found, known.content):
        shaped = dataclasses.replace(found, tuning=variant.tuning)
        interests = InterestsEncoder(at("transform_fn"), shaped, text_map)
        vectors = variant_embeddings.VariantEmbeddings(
            variant, shaped, at("fused"), interests, predictors[variant.linear]
        )
        queries = vectors.users(known_users, user_embeddings.INTERESTS_WORTH)

        def make_lists(
            test_set: "HeldOutSet",
            vectors: variant_embeddings.VariantEmbeddings = vectors,
            queries: "np.ndarray" = queries,
        ) -> "np.ndarray":
            rows = pc.index_in(test_set.user_id, value_set=known_users.user_id).to_numpy()
            return evaluation.product_lists(test_set, queries[rows], vectors.posts(), threads)

        bench.add(variant.name, make_lists)


def _linear_maps(made: Backtest, space: "Space", known: "ContentMoments") -> "Iterator[tuple[str, FactorPredictor]]":
    """The linear maps that take the autoencoder's place, fitted on the known posts."""
    from transforms.embed import exported_model
    from transforms.evaluate import ablation, linear_maps

    decoded, count = space.tuning.decoded, space.widths.decoded
    if decoded is None or not count:
        return
    sums = linear_maps.content_sums(made.known.input("fused"))
    size = _latent_size(made)
    for name, coefficients in (
        (ablation.RIDGE, linear_maps.ridge_coefficients(sums, decoded, count)),
        (ablation.PCA, linear_maps.pca_coefficients(sums, known, size, decoded.lam, count)),
    ):
        yield name, exported_model.LinearFactorPredictor(coefficients, sums.widths)


def _latent_size(made: Backtest) -> int:
    size: int = files.read_json(files.join(made.known.input("model"), "model.json"))["latent"]
    return size


def _add_cosines(bench: Bench, made: Backtest, known: "ContentMoments") -> None:
    """Lists by cosine in the autoencoder's representation, in as many principal components, in the content itself."""
    from transforms.embed import exported_model
    from transforms.evaluate import content_baselines, evaluation
    from transforms.linalg.vectors import unit_rows

    at, threads = made.everything.input, os.cpu_count() or 1
    model = exported_model.FactorPredictor(at("model"))
    projects = {
        "cosine of the autoencoder": lambda fused, mask: unit_rows(model.latents(fused, mask)),
        "cosine of as large a PCA": content_baselines.by_pca(known, _latent_size(made)),
    }
    if known.content:
        projects["cosine of the content"] = content_baselines.by_modalities(known, known.content)
    for name, project in projects.items():

        def make_lists(test_set: "HeldOutSet", project: content_baselines.Project = project) -> "np.ndarray":
            lists = content_baselines.content_knn(test_set, at("fused"), project, evaluation.MAX_K, threads)
            return evaluation.fill_recent(test_set, lists)

        bench.add(name, make_lists)


def _delete(made: Backtest) -> None:
    """Deletes the tables of a backtest, not those it links to: with one for each modality the disk would fill up."""
    for directory in {made.known.run_dir, made.everything.run_dir}:
        files.delete(directory)


def _without(made: Backtest, name: str) -> Backtest:
    """The backtest as it was before its stages ran, on features without a modality."""
    import apache_beam as beam

    from transforms.evaluate import ablation
    from transforms.tables import parquet

    places = {}
    for old in {id(each): each for each in (made.known, made.everything)}.values():
        directory = f"{old.run_dir}-without-{paths.slug(name)}"
        new = run_stages.new_places(directory, old, f"without-{paths.slug(name)}")
        with runner.new_pipeline(made.options) as pipeline:
            read = pipeline | parquet.ReadParts(old.input("features"))
            masked = read | beam.Map(ablation.mask_features, name=name)
            _ = masked | parquet.WriteParts(new.output("features"), parquet.read_schema(old.input("features")))
        for table in ("posts", "users", "interactions"):
            run_stages.link(old.input(table), new.input(table))
        places[id(old)] = new
    return dataclasses.replace(made, known=places[id(made.known)], everything=places[id(made.everything)])

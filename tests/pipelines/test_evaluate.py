"""The backtest and its figures on a small demo world; nothing that comes after the cut may reach what is fitted."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines import evaluate, extract, fuse, ingest
from pipelines.backtesting import ablate, run_stages
from pipelines.backtesting.run_stages import Backtest
from pipelines.command_line.options import Options, RunError, UsageError
from pipelines.demo_world import make_world
from pipelines.stage import execute
from pipelines.stage.declaration import Places
from pipelines.store import runs
from transforms.embed import embedding_space, exported_model, text_to_factors, user_embeddings
from transforms.embed.stated_interests import InterestsEncoder
from transforms.evaluate import ablation, variant_embeddings
from transforms.fuse.transform_fn import read_layout
from transforms.tables import files, parquet, schemas

pytestmark = pytest.mark.timeout(900)

INPUTS = ("posts", "interactions", "users", "features")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """A run that has been ingested and extracted."""
    base = tmp_path_factory.mktemp("run")
    world = make_world(str(base / "world"), num_posts=160, num_users=60)
    made = Options(
        posts=world.posts, interactions=world.interactions, users=world.users, media_root=(world.media_root,),
        output=str(base / "out"), run_date=world.run_date, epochs=2, num_parts=2, text_width=16,
    )  # fmt: skip
    for each in (ingest.STAGE, extract.STAGE):
        execute.execute(each, made)
    return made


def places_of(run_dir: str, work: Path) -> Places:
    (work / "local").mkdir(parents=True)
    return Places(run_dir, str(work / "temporary"), str(work / "local"))


def read(places: Places, table: str) -> pa.Table:
    return pq.read_table(places.input(table))


def cut_of(made: Backtest) -> pa.Scalar:
    return pa.scalar(made.split.cut, pa.int64()).cast(schemas.TIMESTAMP)


@pytest.fixture(scope="module")
def honest(options: Options, tmp_path_factory: pytest.TempPathFactory) -> tuple[Backtest, pa.Array]:
    """A backtest whose stages have run, and the users it made lists for."""
    made, notes = run_stages.prepare(options, places_of(runs.run_dir(options), tmp_path_factory.mktemp("honest")))
    assert notes == [] and made.impossible == ""
    users = pc.unique(read(made.everything, "interactions").column("user_id"))
    run_stages.run_stages(made, users)
    return made, users


def test_the_training_part_is_what_lies_before_the_cut(options: Options, honest: tuple[Backtest, pa.Array]) -> None:
    made, _ = honest
    run = Places(runs.run_dir(options), "", "")
    cut = cut_of(made)
    every, train = read(run, "interactions"), read(made.everything, "interactions")
    dated = every.filter(pc.less_equal(every.column("created_at"), cut))
    assert train.num_rows <= dated.num_rows + every.column("created_at").null_count
    assert not pc.any(pc.greater(train.column("created_at"), cut)).as_py()
    later = every.num_rows - dated.num_rows - every.column("created_at").null_count
    assert 0.1 * every.num_rows < later <= 0.2 * every.num_rows
    for table in ("posts", "features"):
        known = read(made.known, table)
        assert not pc.any(pc.greater(known.column("created_at"), cut)).as_py()
        new = read(made.everything, table).num_rows - known.num_rows
        assert new > 0 and new == pc.sum(pc.greater(read(run, table).column("created_at"), cut)).as_py()
        assert made.num_known == known.num_rows


def test_new_posts_are_embedded_by_what_was_fitted_without_them(honest: tuple[Backtest, pa.Array]) -> None:
    made, users = honest
    items = read(made.everything, "item_embeddings")
    new = items.filter(pc.greater(items.column("created_at"), cut_of(made)))
    vectors = np.array(new.column("embedding").to_pylist())
    has = np.array([bool(names) for names in new.column("modalities").to_pylist()])
    assert has.any() and vectors[has].any(axis=1).all()
    assert read(made.known, "fused").num_rows == made.num_known
    assert read(made.everything, "fused").num_rows == items.num_rows
    listed = read(made.everything, "recommendations")
    assert set(listed.column("user_id").to_pylist()) <= set(users.to_pylist())
    assert pc.max(listed.column("rank")).as_py() == 50


def test_a_backtest_starts_from_no_model_that_knows_the_future(honest: tuple[Backtest, pa.Array]) -> None:
    made, _ = honest
    assert files.read_json(made.known.input("model") + "/start.json")["why_cold"] == "--refit_days 0"


def poison(run_dir: str, target: Path, made: Backtest, what: set[str]) -> str:
    """A copy of a run whose future is absurd: every later interaction and post is another."""
    cut = cut_of(made)
    for table in INPUTS:
        shutil.copytree(f"{run_dir}/{table}", target / table)
        for path in parquet.list_files(str(target / table)):
            block = parquet.read_file(path)
            schema = block.schema
            if table in what:
                rows = [
                    _absurd(row) if _later(row, cut.as_py()) else row for row in block.to_pylist(maps_as_pydicts=None)
                ]
                block = pa.RecordBatch.from_pylist(rows, schema=schema)
            parquet.write_file(path, block, schema)
    return str(target)


def _later(row: dict[str, Any], cut: Any) -> bool:
    return row.get("created_at") is not None and row["created_at"] > cut


def _absurd(row: dict[str, Any]) -> dict[str, Any]:
    changed = dict(row)
    if "user_id" in row:
        changed |= {"user_id": "mallory", "kind": "share", "value": 1e300}
    if "text" in row:
        changed |= {"text": "absurd " * 50, "lang": "xx", "hashtags": ["absurd"]}
    if row.get("text_terms"):
        changed |= {"text_terms": ["absurd", *row["text_terms"]], "text_counts": [10**6, *row["text_counts"]]}
    for name, value in row.items():
        if isinstance(value, list) and value and isinstance(value[0], float):
            changed[name] = [1e6] * len(value)
    return changed


def same(first: Places, second: Places, table: str, without: tuple[str, ...] = ()) -> None:
    one, two = read(first, table), read(second, table)
    keys = [(name, "ascending") for name in ("user_id", "post_id", "rank") if name in one.column_names]
    one, two = (each.drop_columns(list(without)).sort_by(keys) for each in (one, two))
    assert one.equals(two), table


def test_a_poisoned_future_changes_nothing(options: Options, honest: tuple[Backtest, pa.Array], tmp_path: Path) -> None:
    """Later interactions are others: everything stays as it was. Later posts are others: all that is fitted stays."""
    clean, users = honest
    run_dir = poison(runs.run_dir(options), tmp_path / "acts" / "2024", clean, {"interactions"})
    made, _ = run_stages.prepare(options, places_of(run_dir, tmp_path / "acts_work"))
    assert made.split == clean.split
    run_stages.run_stages(made, users)
    for table in ("history", "fused", "item_embeddings", "user_embeddings", "recommendations"):
        same(clean.everything, made.everything, table)
    assert sorted(map(str, read(made.everything, "interactions").to_pylist())) == sorted(
        map(str, read(clean.everything, "interactions").to_pylist())
    )
    assert not pq.read_table(made.held_out).equals(pq.read_table(clean.held_out))  # the poison is there


def test_poisoned_posts_do_not_reach_what_is_fitted(
    options: Options, honest: tuple[Backtest, pa.Array], tmp_path: Path
) -> None:
    clean, users = honest
    run_dir = poison(runs.run_dir(options), tmp_path / "posts" / "2024", clean, {"interactions", "posts", "features"})
    made, _ = run_stages.prepare(options, places_of(run_dir, tmp_path / "posts_work"))
    assert made.split == clean.split
    run_stages.run_stages(made, users)
    for table in ("history", "fused", "posts", "features"):
        same(clean.known, made.known, table)
    for name in ("model/model.json", "collaborative/_tuning.json"):
        for one, two in [(files.join(each.known.run_dir, name) for each in (clean, made))]:
            if files.exists(one):
                assert without_times(files.read_json(one)) == without_times(files.read_json(two)), name
    cut = cut_of(clean)
    old = [read(each.everything, "item_embeddings") for each in (clean, made)]
    old = [each.filter(pc.less_equal(each.column("created_at"), cut)).sort_by("post_id") for each in old]
    assert old[0].equals(old[1])
    assert not read(clean.everything, "fused").equals(read(made.everything, "fused"))  # the poison is there


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if "second" not in key}
    return value


def test_a_variant_without_any_change_is_what_the_stages_made(
    options: Options, honest: tuple[Backtest, pa.Array]
) -> None:
    """Ablations embed in their own way: with nothing left out they must find the embeddings of the embed stage."""
    made, _ = honest
    at = made.everything.input
    found = embedding_space.read_space(at("fused"), at("collaborative"))
    user_id = pc.unique(read(made.everything, "user_embeddings").column("user_id")).sort()
    interests = InterestsEncoder(at("transform_fn"), found, text_to_factors.read_map(at("item_embeddings")))
    whole = variant_embeddings.VariantEmbeddings(
        ablation.Variant("whole", found.tuning),
        found,
        at("fused"),
        interests,
        exported_model.FactorPredictor(at("model")),
    )
    known = variant_embeddings.read_known(user_id, at("users"), at("history"))
    users = read(made.everything, "user_embeddings").sort_by("user_id")
    expected = np.array(users.column("embedding").to_pylist(), np.float32)
    assert expected.any(axis=1).sum() > 10
    np.testing.assert_allclose(whole.users(known, user_embeddings.INTERESTS_WORTH), expected, rtol=1e-4, atol=1e-5)
    items = read(made.everything, "item_embeddings")
    by_id = dict(zip(items.column("post_id").to_pylist(), items.column("embedding").to_pylist(), strict=True))
    for post_id, vectors in whole.posts():
        np.testing.assert_allclose(vectors, [by_id[post] for post in post_id.to_pylist()], rtol=1e-4, atol=1e-5)


def test_a_modality_can_be_left_out_of_the_fits_too(honest: tuple[Backtest, pa.Array]) -> None:
    made, _ = honest
    without = ablate._without(made, "text")
    assert without.known is not without.everything
    fuse.fuse_content(made.options, without.known)
    layout = read_layout(without.known.output("content"))
    before = [modality["name"] for modality in files.read_json(made.known.input("fused/_layout.json"))["modalities"]]
    assert "text" in before and before[-1] == "collaborative"
    assert [modality.name for modality in layout.modalities] == [name for name in before[:-1] if name != "text"]
    for table in ("posts", "users", "interactions"):
        assert read(without.everything, table).equals(read(made.everything, table))
    assert read(without.everything, "features").column("text_terms").null_count == (
        read(made.everything, "features").num_rows
    )
    ablate._delete(without)
    assert not Path(without.known.run_dir).exists() and not Path(without.everything.run_dir).exists()
    assert read(made.known, "features").column("text_terms").null_count < made.num_known  # the backtest's are as before


def test_the_cold_posts_are_those_that_are_named(options: Options, tmp_path: Path) -> None:
    run = Places(runs.run_dir(options), "", "")
    cold = sorted(read(run, "posts").column("post_id").to_pylist())[:20]
    (tmp_path / "ids.txt").write_text("\n".join([*cold, "", " nobody "]) + "\n")
    asked = dataclasses.replace(options, backtest_split="cold", cold_posts=str(tmp_path / "ids.txt"))
    made, notes = run_stages.prepare(asked, places_of(runs.run_dir(options), tmp_path / "work"))
    assert notes == ["1 of the 21 ids of --cold_posts are no posts"]
    assert set(pq.read_table(made.held_out).column("post_id").to_pylist()) <= set(cold)
    left = set(read(made.everything, "interactions").column("post_id").to_pylist())
    assert left and not left & set(cold)
    about = evaluate.describe(made)
    assert about["cold_posts"]["posts"] == 21 and "fraction" not in about
    for text, message in (("x\n", "none of the 1 ids is a post"), (" \n", "has no id")):
        (tmp_path / "ids.txt").write_text(text)
        with pytest.raises(UsageError, match=f"--cold_posts: .*{message}"):
            run_stages.choose_split(asked, run)
    with pytest.raises(UsageError, match="cannot be read"):
        run_stages.read_cold_posts(str(tmp_path / "nothing.txt"))


@pytest.mark.parametrize("split", ["time", "cold"])
def test_evaluate_leaves_figures_and_a_report(options: Options, split: str) -> None:
    asked = dataclasses.replace(options, backtest_split=split, ablations="quick")
    execute.execute(evaluate.STAGE, asked)
    directory = Path(runs.run_dir(options)) / "evaluation"
    found = json.loads((directory / "evaluation.json").read_text())
    assert found["run"] == options.run_date and found["split"]["kind"] == split
    methods = found["methods"]
    assert {"fusefeed", "popular", "random", "recent popular", "PCA kNN", "content kNN (all)"} <= set(methods)
    assert found["about"]["users"] > 10
    assert found["slices"]["cold posts"] > 10
    for method in methods.values():
        for measured in method["measures"].values():
            assert 0 <= measured["low"] <= measured["mean"] <= measured["high"] <= 1
    assert methods["fusefeed"]["measures"]["recall@20"]["mean"] > methods["random"]["measures"]["recall@20"]["mean"]
    ablations = found["ablations"]
    rankings = {"time": "warm", "cold": "cold"}
    assert {"fusefeed", "no decoded block", "without text", "cosine of the content"} <= set(ablations)
    for name, of in ablations.items():
        measured = of[rankings[split]]
        assert ("lead" in measured) == (name != "fusefeed")
        assert 0 <= measured["measures"]["recall@20"]["mean"] <= 1
    assert ablations["fusefeed"][rankings[split]]["users"] == found["about"]["users"]
    if split == "cold":  # the very lists that are measured above
        measured, above = ablations["fusefeed"]["cold"]["measures"], methods["fusefeed"]["measures"]
        assert all(measured[name] == above[name] for name in measured)
        assert ablations["without text"]["cold"]["lead"]["recall@20"]["mean"] > 0
    if split == "time":
        assert {"EASE", "item kNN"} <= set(methods)
    else:
        assert "item kNN" not in methods and found["slices"]["warm posts"] == 0
    page = (directory / "report.html").read_text()
    assert options.run_date in page and "<script" not in page
    assert not [path for path in Path(runs.run_dir(options)).iterdir() if path.name.startswith("_evaluate")]
    assert (Path(runs.run_dir(options)) / "posts").is_dir()  # what was linked to is still there


def test_a_table_of_its_own_is_held_out(options: Options, tmp_path: Path) -> None:
    rows = read(Places(runs.run_dir(options), "", ""), "interactions").slice(0, 40)
    pq.write_table(rows, tmp_path / "test.parquet")
    asked = dataclasses.replace(options, holdout=str(tmp_path / "*.parquet"))
    made, _ = run_stages.prepare(asked, places_of(runs.run_dir(options), tmp_path / "work"))
    assert made.split.kind == "holdout" and made.known is made.everything
    assert made.counts["holdout.read"] == 40
    assert made.counts["train"] == read(made.everything, "interactions").num_rows
    assert "nothing is held out" in made.impossible  # all of it is known already
    with pytest.raises(UsageError, match="--holdout: "):
        run_stages.find_holdout(str(tmp_path / "nothing*.parquet"))


def test_where_nothing_has_a_time_each_user_is_split_by_hash(options: Options, tmp_path: Path) -> None:
    run_dir = tmp_path / "2024"
    for table in INPUTS:
        source = parquet.read_file(parquet.list_files(f"{runs.run_dir(options)}/{table}")[0])
        if table == "interactions":
            index = source.schema.get_field_index("created_at")
            source = source.set_column(index, source.schema.field(index), pa.nulls(source.num_rows, schemas.TIMESTAMP))
        parquet.write_file(str(run_dir / table / "part-0.parquet"), source, source.schema)
    made, notes = run_stages.prepare(options, places_of(str(run_dir), tmp_path / "work"))
    assert made.split.kind == "user"
    assert notes == ["no interaction has a time: of each user's a share is held out by hash instead of by time"]
    assert made.counts["train"] > made.counts["held_out"] > 0


def test_a_catalog_that_cannot_be_held_is_refused_before_the_work(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transforms.evaluate import test_set

    monkeypatch.setattr(test_set, "MAX_POSTS", parquet.count_rows(f"{runs.run_dir(options)}/posts") - 1)
    with pytest.raises(RunError, match=r"a backtest holds the ids of all posts, at most .*: give --no_evaluate"):
        evaluate.evaluate(options, places_of(runs.run_dir(options), tmp_path / "work"))
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]


def test_nothing_to_measure_is_said_not_raised(options: Options, tmp_path: Path) -> None:
    run_dir = tmp_path / "2024"
    for table in INPUTS:
        schema = parquet.read_schema(f"{runs.run_dir(options)}/{table}")
        parquet.write_file(str(run_dir / table / "part-0.parquet"), schemas.empty(schema), schema)
    found = evaluate.evaluate(options, places_of(str(run_dir), tmp_path / "work"))
    assert "methods" not in found
    assert found["notes"][-1].startswith("nothing is held out")

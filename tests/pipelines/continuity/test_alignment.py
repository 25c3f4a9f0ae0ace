"""The space of embeddings over runs: taken over, turned, or begun anew and why."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines import embed, factorize, fuse
from pipelines.command_line.options import Options
from pipelines.continuity import alignment, space_lineage
from pipelines.stage import declaration, execute
from tests.pipelines.test_embed_recommend import (
    INTERACTIONS,
    USERS,
    act,
    make_posts,
    write,
    write_features,
    write_ridge,
)
from transforms.embed import embedding_space
from transforms.fuse import transform_fn
from transforms.fuse.fuse_features import MIN_PRESENT
from transforms.tables import blocks, files, parquet, schemas

FIRST, SECOND = "2024-05-31", "2024-06-01"
FLAGS: dict[str, Any] = {"text_width": 8, "factors": 3}


def make_run(output: Path, name: str, interactions: list[dict[str, Any]], **flags: Any) -> Path:
    directory = output / "runs" / name
    posts = make_posts()
    write(directory, "posts", posts, schemas.POSTS, 15)
    write(directory, "interactions", interactions, schemas.INTERACTIONS, 50)
    write(directory, "users", USERS, schemas.USERS, 3)
    write_features(directory, posts)
    options = Options(output=str(output), run_date=name, **(FLAGS | flags))
    execute.execute(fuse.STAGE, options)
    execute.execute(factorize.STAGE, options)
    write_ridge(directory)
    execute.execute(embed.STAGE, options)
    return directory


def publish(directory: Path) -> None:
    files.write_json(str(directory / "manifest.json"), {"published": True})


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("out")
    publish(make_run(path, FIRST, INTERACTIONS))
    return path


def embeddings(directory: Path) -> dict[str, np.ndarray]:
    found = {}
    for block in parquet.read_blocks(str(directory / "item_embeddings"), 1000):
        vectors = blocks.vectors_to_numpy(block.column("embedding")).astype(float)
        found |= dict(zip(block.column("post_id").to_pylist(), vectors, strict=True))
    return found


def about(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "item_embeddings" / alignment.FILE).read_text())
    return found


def test_the_first_run_begins_a_space(output: Path) -> None:
    found = about(output / "runs" / FIRST)
    assert found == {
        "space_since": FIRST,
        "previous": "",
        "why_new": "there is no published run that is older",
    }


def test_the_next_run_goes_on_in_it(output: Path) -> None:
    more = [act("somebody", f"football{i:02d}") for i in (4, 10, 14)]
    # The factors' signs are arbitrary; a run whose factors all point the other way is turned back.
    second = make_run(output, SECOND, INTERACTIONS + more)
    found = about(second)
    assert (found["space_since"], found["previous"], found["why_new"]) == (FIRST, FIRST, "")
    assert found["cosine"] > 0.95
    old, new = embeddings(output / "runs" / FIRST), embeddings(second)
    both = [post for post in old if old[post].any() and new[post].any()]
    cosines = [old[p] @ new[p] / np.linalg.norm(old[p]) / np.linalg.norm(new[p]) for p in both]
    assert (found["posts"], found["cosine"]) == (len(both), pytest.approx(np.mean(cosines), abs=1e-5))
    pairs = [(old[p][:-1], new[p][:-1]) for p in both if old[p][:-1].any() and new[p][:-1].any()]
    cosines = [one @ two / np.linalg.norm(one) / np.linalg.norm(two) for one, two in pairs]
    assert found["cosine_without_trend"] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert found["cosine_without_trend"] > 0.95
    for name in ("transform_fn/_layout.json", "collaborative/_tuning.json"):
        one, two = (json.loads((output / "runs" / run / name).read_text()) for run in (FIRST, SECOND))
        assert one == two


def test_turning_a_run_changes_no_score(output: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    more = [act("somebody", f"football{i:02d}") for i in (4, 10, 14)]
    turned = make_run(output, "2024-06-02", INTERACTIONS + more)
    monkeypatch.setattr(alignment, "find_rotations", lambda *_: None)
    straight = make_run(output, "2024-06-03", INTERACTIONS + more)
    assert about(straight)["why_new"] == "the blocks of the embeddings have other widths, or the last run is gone"
    scores = []
    for directory in (turned, straight):
        users = pa.Table.from_batches(parquet.read_blocks(str(directory / "user_embeddings"), 1000)).sort_by("user_id")
        vectors = blocks.vectors_to_numpy(users.column("embedding").combine_chunks())
        posts = embeddings(directory)
        scores.append(vectors @ np.array([posts[post] for post in sorted(posts)]).T)
    np.testing.assert_allclose(*scores, atol=1e-4)
    assert not np.allclose(*([posts["football00"] for posts in map(embeddings, (turned, straight))]), atol=1e-3)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"refit_days": 0}, "--refit_days 0"),
        ({"text_width": 7}, "--text_width is 7, was 8"),
        ({"refit_days": 1}, f"the last one began with {FIRST}, 1 days ago (--refit_days 1)"),
        ({"run_date": FIRST}, "there is no published run that is older"),
    ],
)
def test_why_a_space_begins(output: Path, flags: dict[str, Any], why: str) -> None:
    options = Options(output=str(output), **({"run_date": SECOND} | FLAGS | flags))
    places = declaration.Places(str(output / "runs" / FIRST), "", "")
    found = space_lineage.decide(options, places)
    assert (found.why_new, found.previous, found.since) == (why, "", options.run_date)


def test_a_graph_of_another_version_is_not_taken_over(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(output=str(output), run_date=SECOND, **FLAGS)
    places = declaration.Places(str(output / "runs" / FIRST), "", "")
    assert space_lineage.decide(options, places).why_new == ""
    monkeypatch.setattr(transform_fn, "GRAPH_VERSION", transform_fn.GRAPH_VERSION + 1)
    found = space_lineage.decide(options, places)
    assert (found.why_new, found.previous) == (f"the transform_fn of {FIRST} is another version's", "")


@pytest.mark.parametrize(
    ("widths", "number", "why"),
    [({"clip": 5}, MIN_PRESENT - 1, ""), ({"clip": 5}, MIN_PRESENT, "clip is new")],
)
def test_a_modality_that_many_posts_have_begins_a_space(
    output: Path, tmp_path: Path, widths: dict[str, int], number: int, why: str
) -> None:
    schema = schemas.features(widths)
    parquet.write_file(str(tmp_path / "features" / "part-00000.parquet"), schemas.empty(schema), schema)
    files.write_json(str(tmp_path / "features" / "_counts.json"), {"features.text": 40, "features.clip": number})
    options = Options(output=str(output), run_date=SECOND, **FLAGS)
    assert space_lineage.decide(options, declaration.Places(str(tmp_path), "", "")).why_new == why


def test_other_widths_of_features_begin_a_space(output: Path, tmp_path: Path) -> None:
    before = space_lineage.read(str(output / "runs" / FIRST / "transform_fn"))
    earlier = output / "runs" / "2024-05-30"
    space_lineage.write(
        space_lineage.Lineage("2024-05-30", "", "", before.settings | {"widths": {"clip": 6}}),
        str(earlier / "transform_fn"),
    )
    publish(earlier)
    schema = schemas.features({"clip": 5})
    parquet.write_file(str(tmp_path / "features" / "part-00000.parquet"), schemas.empty(schema), schema)
    options = Options(output=str(output), run_date=FIRST, **FLAGS)
    assert (
        space_lineage.decide(options, declaration.Places(str(tmp_path), "", "")).why_new == "clip has 5 numbers, had 6"
    )


def test_a_run_that_is_gone_is_no_place_to_turn_to(output: Path, tmp_path: Path) -> None:
    found = space_lineage.Lineage(FIRST, "2020-01-01", "", {})
    space_lineage.write(found, str(tmp_path / "transform_fn"))
    options = Options(output=str(output), run_date=SECOND)
    assert alignment.last_items(options, declaration.Places(str(tmp_path), "", "")) == ""
    assert embedding_space.read_widths(str(output / "runs" / FIRST / "item_embeddings")).own > 0


def test_factors_are_turned_to_where_the_last_run_had_them(output: Path) -> None:
    more = [act("somebody", f"football{i:02d}") for i in (4, 10, 14)]
    second = make_run(output, "2024-06-04", INTERACTIONS + more)
    first = output / "runs" / FIRST
    options = Options(output=str(output), run_date="2024-06-04", **FLAGS)
    places = declaration.Places(str(second), str(second / "_scratch"), "")
    rotation = alignment.find_factor_rotation(options, places, str(first / "collaborative"), 2)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(2), atol=1e-6)
    old, new = (weighed_factors(directory, 2) for directory in (first, second))
    both = sorted(old.keys() & new.keys())
    before, after = (np.array([factors[post] for post in both]) for factors in (old, new))
    assert np.linalg.norm(after @ rotation - before) < 0.2 * np.linalg.norm(before)
    expected = np.linalg.svd(after.T @ before)
    np.testing.assert_allclose(rotation, expected[0] @ expected[2], atol=1e-4)


def weighed_factors(directory: Path, count: int) -> dict[str, np.ndarray]:
    roots = np.sqrt(embedding_space.read_singular_values(str(directory / "collaborative"))[:count])
    found = {}
    for block in parquet.read_blocks(str(directory / "collaborative"), 1000):
        factors = blocks.vectors_to_numpy(block.column("factors")).astype(float)[:, :count] * roots
        found |= dict(zip(block.column("post_id").to_pylist(), factors, strict=True))
    return found

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines import factorize
from pipelines.command_line.options import Options
from pipelines.stage.declaration import Places
from tests.transforms.interactions import factor_fixtures as fixtures
from transforms.tables import blocks, counts, parquet, schemas

DATE = "2024-06-01"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(str(tmp_path / "run"), str(tmp_path / "temporary"), str(tmp_path / "local"))


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(output=str(tmp_path), run_date=DATE)


def test_history_then_factors(places: Places, options: Options) -> None:
    rows = [row for row in fixtures.tasteful(60, 40) if row["strength"] == 1]
    interactions = [{**row, "kind": "like"} for row in rows] + [
        {"user_id": "u0", "post_id": "hidden", "kind": "hide"},
        {"user_id": "u1", "post_id": "r1", "kind": "like"},
    ]
    posts = [{"post_id": f"p{post}", "text": "hello", "sensitive": False} for post in range(40)]
    posts.append({"post_id": "r1", "repost_of": "p1", "sensitive": False})
    for name, found, schema in (("interactions", interactions, schemas.INTERACTIONS), ("posts", posts, schemas.POSTS)):
        block = pa.RecordBatch.from_pylist(found, schema=schema)
        parquet.write_file(f"{places.input(name)}/part-00000.parquet", block, schema)
    factorize.make_history(options, places)
    history = [
        row for path in parquet.list_files(places.output("history")) for row in parquet.read_file(path).to_pylist()
    ]
    assert {row["post_id"] for row in history} == {row["post_id"] for row in rows} | {"hidden", "p1"}

    described = factorize.factorize(options, places, factors=6)
    assert described == factorize.read_factors(places.output("collaborative"))
    found = parquet.read_file(parquet.list_files(places.output("collaborative"))[0])
    assert found.schema.equals(schemas.collaborative(6))
    liked = [row for row in history if row["weight"] > 0]
    expected, users, ids = fixtures.scaled(liked)
    assert found.column("post_id").to_pylist() == ids
    assert (described.num_users, described.num_posts) == (len(users), len(ids))
    exact = np.linalg.svd(expected).S[:6]
    np.testing.assert_allclose(described.singular_values, exact, rtol=1e-3)
    factors = blocks.vectors_to_numpy(found.column("factors"))
    np.testing.assert_allclose(np.linalg.norm(expected @ factors, axis=0), exact, rtol=1e-3)
    degrees = {post: sum(row["strength"] for row in liked if row["post_id"] == post) for post in ids}
    assert found.column("degree").to_pylist() == pytest.approx(list(degrees.values()))
    assert counts.read_counts(places.output("collaborative"))["collaborative.entries"] == len(liked)
    assert not Path(places.scratch("matrix")).exists()


@pytest.mark.parametrize("rows", [[], [fixtures.row("u", "p"), fixtures.row("u", "q")]])
def test_no_factors_and_that_is_said(
    places: Places, options: Options, rows: fixtures.Rows, caplog: pytest.LogCaptureFixture
) -> None:
    fixtures.write_history(places.output("history"), rows or [fixtures.row("u", "p", weight=-1)])
    with caplog.at_level(logging.WARNING):
        described = factorize.factorize(options, places)
    assert (described.singular_values, described.num_posts, described.num_users) == ([], len(rows), min(len(rows), 1))
    assert "no collaborative factors" in caplog.text
    assert factorize.read_factors(places.output("collaborative")) == described
    assert parquet.list_files(places.output("collaborative")) == []

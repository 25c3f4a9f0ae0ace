"""The stage that checks the tables of a run: valid ones leave statistics, others stop the run."""

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines import validate
from pipelines.command_line.options import Options, RunError
from pipelines.stage.execute import execute
from pipelines.stage.reports import Report, read_report, report_path
from tests.pipelines import valid_tables
from tests.pipelines.flat_store import FlatStore
from transforms.tables import blocks, files, parquet, schemas
from transforms.validate.table_specs import TABLE_SPECS

DAY = "2026-01-31"
EMPTY = {
    "interactions": schemas.INTERACTIONS,
    "rejects/ingest": schemas.REJECTS,
    "media": schemas.MEDIA,
    "rejects/extract": schemas.REJECTS,
}
Change = Callable[[pa.RecordBatch], pa.RecordBatch]


def options(output: Path) -> Options:
    return Options(output=str(output), run_date=DAY)


def write(directory: Path, table: str, rows: pa.RecordBatch, schema: pa.Schema | None = None) -> None:
    parquet.write_file(parquet.part_path(str(directory / table), 0), rows, schema or rows.schema)


def report(directory: Path, stage: str, *names: str) -> None:
    """The report of a stage that has written some tables as they are now."""
    rows = {table: parquet.count_rows(str(directory / table)) for table in names}
    left = {table: files.list_sizes(str(directory / table)) for table in names}
    counts = {f"{name}.written": rows.get(name, 0) for name in ("posts", "interactions", "users")}
    made = Report(stage, 1.0, 1, rows, counts, id=stage, files=left)
    files.write_json(report_path(str(directory), stage), vars(made))


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with a run of valid tables."""
    output = tmp_path_factory.mktemp("valid")
    directory = output / "runs" / DAY
    posts = [{"post_id": f"p{i}", "sensitive": False, "lang": "en"} for i in range(6)]
    write(directory, "posts", pa.RecordBatch.from_pylist(posts, schemas.POSTS))
    write(directory, "users", pa.RecordBatch.from_pylist([{"user_id": f"u{i}"} for i in range(4)], schemas.USERS))
    features = schemas.features({"image": 2})
    image = [None, *([float(i), 1.0] for i in range(5))]
    columns = [{"post_id": f"p{i}", "image": image[i]} for i in range(6)]
    write(directory, "features", pa.RecordBatch.from_pylist(columns, features))
    for name, schema in EMPTY.items():
        write(directory, name, schemas.empty(schema))
    report(directory, "ingest", "posts", "interactions", "users", "rejects/ingest")
    report(directory, "extract", "features", "media", "rejects/extract")
    execute(valid_tables.STAGE, options(output))
    return output


def test_valid_tables_leave_statistics(valid: Path) -> None:
    found = execute(validate.STAGE, options(valid))
    statistics = files.read_json(str(valid / "runs" / DAY / "statistics" / "statistics.json"))
    assert statistics["rows"] == {
        **dict.fromkeys((*EMPTY, "history"), 0),
        **dict.fromkeys(("posts", "features", "fused", "collaborative", "item_embeddings"), 6),
        **dict.fromkeys(("post_profiles", "candidates"), 6),
        **dict.fromkeys(("users", "user_embeddings", "user_scales"), 4),
        **{"recommendations": 12, "similar_posts": 18},
    }
    assert statistics["modalities"]["image"] == {"rows": 5, "mean": [2, 1], "deviation": [1.41421, 0]}
    assert statistics["made_with"] == {
        "image": "opencv of 2 numbers",
        "video": "none",
        "audio": "none",
        "embeddings": "in the space of 2026-01-01",
        "recommendations": "--k 50",
        "similar_posts": "--similar_k 20",
    }
    assert list(found.files["statistics"]) == ["statistics.json"]


def test_tables_may_lie_in_an_object_store(valid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = {
        f"flat://bucket/out/{path.relative_to(valid)}": (path.read_bytes(), 1.0)
        for path in valid.rglob("*")
        if path.is_file() and "statistics" not in path.parts and path.name != "validate.json"
    }
    monkeypatch.setattr(FlatStore, "objects", objects)
    found = execute(validate.STAGE, dataclasses.replace(options(valid), output="flat://bucket/out"))
    assert list(found.files["statistics"]) == ["statistics.json"]
    assert f"flat://bucket/out/runs/{DAY}/statistics/statistics.json" in objects


def test_every_table_that_stages_write_has_a_specification() -> None:
    assert set(validate.TABLES) == set(TABLE_SPECS)


def replace(column: str, values: pa.Array) -> Change:
    return lambda rows: rows.set_column(rows.schema.get_field_index(column), rows.schema.field(column), values(rows))


def not_a_number(rows: pa.RecordBatch) -> pa.Array:
    vectors = blocks.vectors_to_numpy(rows.column("embedding")).copy()
    vectors[2, 1] = np.nan
    return blocks.numpy_to_vectors(vectors)


@pytest.mark.parametrize(
    ("table", "change", "says"),
    [
        ("item_embeddings", replace("embedding", not_a_number), "item_embeddings: embedding is not finite in 1 rows"),
        (
            "recommendations",
            replace("rank", lambda rows: pa.array(np.full(rows.num_rows, 1, np.int32))),
            "recommendations: rank does not count from 1 for each user_id in 8 rows",
        ),
        (
            "users",
            replace("user_id", lambda rows: pa.array(["u1", "u1", "u2", "u3"])),
            "users: user_id stands more than once in 2 rows",
        ),
        ("fused", lambda rows: rows.slice(1), "fused: its post_ids are not those of posts"),
        (
            "candidates",
            replace("post_id", lambda rows: pa.array([*"abcde", "p5"])),
            "candidates: its post_ids are not those of posts",
        ),
        ("user_scales", lambda rows: rows.drop_columns("scales"), "user_scales: column scales is missing in 4 rows"),
        ("posts", lambda rows: rows.slice(1), "posts: 5 rows, but its stage wrote 6"),
    ],
)
def test_tables_that_are_not_as_they_have_to_be_stop_the_run(
    valid: Path, tmp_path: Path, table: str, change: Change, says: str
) -> None:
    output = tmp_path / "out"
    shutil.copytree(valid, output)
    directory = output / "runs" / DAY
    shutil.rmtree(directory / "statistics", ignore_errors=True)
    validate_report = Path(report_path(str(directory), "validate"))
    validate_report.unlink(missing_ok=True)
    write(directory, table, change(parquet.read_file(parquet.part_path(str(directory / table), 0))))
    # A stage that wrote the wrong thing and knows nothing of it: its report tells of the files as they are.
    for name in ("ingest", "recommend"):
        made = read_report(str(directory), name)
        assert made is not None
        for each in made.files:
            made.files[each] = files.list_sizes(str(directory / each))
        files.write_json(report_path(str(directory), name), vars(made))
    with pytest.raises(RunError, match=re.escape(says)) as raised:
        execute(validate.STAGE, options(output))
    assert str(raised.value).startswith("invalid tables: ")
    assert not (directory / "statistics").exists() and not validate_report.exists()

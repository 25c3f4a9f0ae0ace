"""embed and recommend on a world of two topics: fused by the real fuse stage, a model that is a ridge regression."""

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines import embed, factorize, fuse, recommend
from pipelines.command_line.options import Options, UsageError
from pipelines.stage import declaration, execute
from tests.transforms.embed.space_fixtures import write_model
from transforms.embed import user_embeddings
from transforms.embed.embedding_space import read_space
from transforms.search import cells
from transforms.tables import blocks, counts, parquet, schemas
from transforms.text.token_counts import text_terms

NOW = datetime.datetime(2024, 5, 31, tzinfo=datetime.UTC)
WORDS = {"football": "football goal match striker league", "cooking": "cooking soup onion butter oven"}
TOPICS = list(WORDS)
NUM_POSTS = 40


def make_posts() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    posts: list[dict[str, Any]] = []
    for i in range(NUM_POSTS):
        topic = TOPICS[i % 2]
        words = rng.choice(WORDS[topic].split(), 4)
        posts.append(
            {
                "post_id": f"{topic}{i:02d}",
                "author_id": f"author{i % 5}",
                "created_at": NOW - datetime.timedelta(days=i),
                "text": f"{topic} " + " ".join(words),
                "sensitive": i in (4, 5),
                "reply_to": "football00" if i in (6, 7) else None,
            }
        )
    posts.append({"post_id": "repost", "repost_of": "cooking01", "created_at": NOW, "sensitive": False})
    posts.append({"post_id": "empty", "author_id": "author9", "created_at": NOW, "sensitive": False})
    return posts


def act(user: str, post: str, kind: str = "like") -> dict[str, Any]:
    return {"user_id": user, "post_id": post, "kind": kind, "created_at": NOW}


INTERACTIONS = [
    *[act("fan", f"football{i:02d}") for i in (0, 2, 8)],
    act("cook", "repost"),
    act("hater", "football00", "hide"),
    act("fan", "not_in_the_input"),
    act("convert", "football02"),
    *[act(f"crowd{i}", f"football{2 * (i + j) % 24:02d}") for i in range(12) for j in range(3)],
    *[act(f"crowd{i}", f"cooking{2 * (i + j) % 24 + 1:02d}") for i in range(12, 24) for j in range(3)],
]
CROWD = {f"crowd{i}": "history" for i in range(24)}
USERS: list[dict[str, Any]] = [
    {"user_id": "says_cooking", "interests": ["cooking"], "bio": "soup and butter"},
    {"user_id": "says_nothing_known", "bio": "zxqw"},
    {"user_id": "fan", "blocked_authors": ["author2"]},
    {"user_id": "author1"},
    {"user_id": "convert", "interests": ["cooking"], "bio": "soup and butter"},
]


def write(directory: Path, table: str, rows: list[dict[str, Any]], schema: pa.Schema, part_rows: int) -> None:
    block = pa.RecordBatch.from_pylist(rows, schema=schema)
    pieces = list(blocks.split_rows(block, part_rows)) or [block]
    for i, piece in enumerate(pieces):
        parquet.write_file(str(directory / table / f"part-{i:05d}.parquet"), piece, schema)


def write_features(directory: Path, posts: list[dict[str, Any]]) -> None:
    block = pa.RecordBatch.from_pylist(posts, schema=schemas.POSTS)
    terms, term_counts = text_terms(block.column("text"))
    columns = [block.column(name) for name in ("post_id", "author_id", "created_at")]
    schema = schemas.features({})
    features = pa.RecordBatch.from_arrays([*columns, terms, term_counts], schema=schema)
    parquet.write_file(str(directory / "features" / "part-00000.parquet"), features, schema)


def write_ridge(directory: Path) -> None:
    """A model whose latent vector is the fused one and whose factors are told by a ridge regression on the others'."""
    modalities, fused, mask = read_fused(directory)
    encoder = np.eye(fused.shape[1], dtype=np.float32)
    if modalities[-1][0] != "collaborative":
        write_model(directory / "model", modalities, encoder, None)
        return
    offset = modalities[-1][1]
    liked = mask[:, -1] > 0
    content, factors = fused[liked, :offset].astype(float), fused[liked, offset:]
    decoder = np.zeros((fused.shape[1], factors.shape[1]), np.float32)
    decoder[:offset] = np.linalg.solve(content.T @ content + 0.1 * np.eye(offset), content.T @ factors)
    write_model(directory / "model", modalities, encoder, decoder)


def read_fused(directory: Path) -> tuple[tuple[tuple[str, int, int], ...], np.ndarray, np.ndarray]:
    layout = json.loads((directory / "fused" / "_layout.json").read_text())["modalities"]
    block = blocks.concat(list(parquet.read_blocks(str(directory / "fused"), 1000)))
    values, mask = (blocks.vectors_to_numpy(block.column(name)) for name in ("fused", "mask"))
    return tuple((entry["name"], entry["offset"], entry["width"]) for entry in layout), values, mask


def make_run(output: Path, interactions: list[dict[str, Any]], **flags: Any) -> Path:
    """A run directory that has everything but what embed and recommend write."""
    directory = output / "runs" / "2024-05-31"
    posts = make_posts()
    write(directory, "posts", posts, schemas.POSTS, 15)
    write(directory, "interactions", interactions, schemas.INTERACTIONS, 2)
    write(directory, "users", USERS, schemas.USERS, 3)
    write_features(directory, posts)
    execute.execute(fuse.STAGE, options_of(output, text_width=8, **flags))
    execute.execute(factorize.STAGE, options_of(output, text_width=8, **flags))
    write_ridge(directory)
    return output


@pytest.fixture(scope="module")
def fused_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("out"), INTERACTIONS, factors=3)


def options_of(output: Path, **flags: Any) -> Options:
    return Options(output=str(output), run_date="2024-05-31", **flags)


def run(output: Path, **flags: Any) -> dict[str, list[dict[str, Any]]]:
    options = options_of(output, **flags)
    for each in (embed.STAGE, recommend.STAGE):
        execute.execute(each, options)
    return {name: table(output, name) for name in (*embed.STAGE.writes, *recommend.STAGE.writes)}


def table(output: Path, name: str) -> list[dict[str, Any]]:
    directory = str(output / "runs" / "2024-05-31" / name)
    return [row for block in parquet.read_blocks(directory, 1000) for row in block.to_pylist()]


def lists(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    by_user: dict[str, list[dict[str, Any]]] = {}
    for row in found["recommendations"]:
        by_user.setdefault(row["user_id"], []).append(row)
    return by_user


def topics(rows: list[dict[str, Any]]) -> set[str]:
    return {row["post_id"].rstrip("0123456789") for row in rows}


def test_everybody_gets_what_is_known_of_them(fused_run: Path) -> None:
    found = run(fused_run, k=6)
    sources = {row["user_id"]: row["source"] for row in found["user_embeddings"]}
    assert sources == {
        "fan": "history",
        "cook": "history",
        "hater": "none",
        "says_cooking": "interests",
        "says_nothing_known": "none",
        "author1": "none",
        "convert": "both",
        **CROWD,
    }
    by_user = lists(found)
    assert topics(by_user["fan"]) == {"football"}
    assert topics(by_user["cook"]) == topics(by_user["says_cooking"]) == {"cooking"}
    authors = {row["post_id"]: row["author_id"] for row in found["candidates"]}
    assert "author2" not in {authors[row["post_id"]] for row in by_user["fan"]}
    assert {row["because_post_id"] for row in by_user["cook"]} == {"cooking01"}
    assert {row["reason"] for row in by_user["says_cooking"]} == {"interests"}
    assert {row["reason"] for row in by_user["hater"]} == {"popular"}
    assert "football00" not in {row["post_id"] for row in by_user["hater"]}
    popularity = {row["post_id"]: row["popularity"] for row in found["candidates"] if row["author_id"] != "author1"}
    assert popularity[by_user["author1"][0]["post_id"]] == max(popularity.values()) > 0
    assert "author1" not in {authors[row["post_id"]] for row in by_user["author1"]}


def vectors_of(rows: list[dict[str, Any]], key: str, column: str) -> dict[str, np.ndarray]:
    return {row[key]: np.array(row[column]) for row in rows}


def test_the_contracts_hold(fused_run: Path) -> None:
    found = run(fused_run, k=100, num_parts=3)
    users = vectors_of(found["user_embeddings"], "user_id", "embedding")
    items = vectors_of(found["item_embeddings"], "post_id", "embedding")
    assert len(items) == len(found["post_profiles"]) == NUM_POSTS + 2
    named = {row["post_id"]: row["modalities"] for row in found["item_embeddings"]}
    assert (named["empty"], named["football00"]) == ([], ["text", "collaborative"])
    assert named["football38"] == ["text"]
    assert not items["empty"].any()
    seen = {(row["user_id"], row["post_id"]) for row in table(fused_run, "history")}
    assert ("cook", "cooking01") in seen and ("fan", "not_in_the_input") in seen
    hidden = {"repost", "football04", "cooking05"}
    for user, rows in lists(found).items():
        assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
        assert not {(user, row["post_id"]) for row in rows} & seen
        assert not {row["post_id"] for row in rows} & hidden
        for row in rows:
            if row["reason"] != "popular":
                assert row["score"] == pytest.approx(users[user] @ items[row["post_id"]], rel=1e-4, abs=1e-6)
    for row in found["similar_posts"]:
        assert row["post_id"] != row["neighbor_id"]
        assert not {row["post_id"], row["neighbor_id"]} & hidden
    nearest = [row for row in found["similar_posts"] if row["rank"] == 1]
    assert len(nearest) == NUM_POSTS - 2
    assert all(topics([row]) == {row["neighbor_id"].rstrip("0123456789")} for row in nearest)
    directory = fused_run / "runs" / "2024-05-31" / "user_embeddings"
    assert counts.read_counts(str(directory))["profiles.liked.entries_without_vector"] == 1


def test_scores_are_the_sum_of_what_the_liked_posts_say(fused_run: Path) -> None:
    found = run(fused_run, k=20, num_parts=2)
    space = read_space(*(str(fused_run / "runs" / "2024-05-31" / name) for name in ("fused", "collaborative")))
    assert len(space.singular_values) == 3 and all(space.widths)
    profiles = vectors_of(found["post_profiles"], "post_id", "profile")
    items = vectors_of(found["item_embeddings"], "post_id", "embedding")
    scales = {user: np.repeat(v, space.widths) for user, v in
              vectors_of(found["user_scales"], "user_id", "scales").items()}  # fmt: skip
    half_life = space.tuning.recency or np.inf
    liked = [row for row in table(fused_run, "history") if row["weight"] > 0 and row["post_id"] in profiles]
    explained = 0
    for row in (row for row in found["recommendations"] if row["reason"] == "history" and row["user_id"] in CROWD):
        item = items[row["post_id"]]
        parts = {
            entry["post_id"]: entry["strength"] * 0.5 ** (entry["recency"] / half_life)
            * float(scales[row["user_id"]] * profiles[entry["post_id"]] @ item[:-1])
            for entry in liked if entry["user_id"] == row["user_id"]
        }  # fmt: skip
        assert row["score"] == pytest.approx(sum(parts.values()) + item[-1], rel=1e-4, abs=1e-5)
        loudest = max(parts.values())
        if loudest > 0:
            assert parts[row["because_post_id"]] == pytest.approx(loudest, rel=1e-4)
            explained += 1
    assert explained > 100


def test_tables_do_not_depend_on_the_number_of_parts(fused_run: Path) -> None:
    first, second = (run(fused_run, k=10, num_parts=num_parts) for num_parts in (1, 4))
    for name in first:
        one, other = (sorted(found[name], key=row_key) for found in (first, second))
        assert [row_key(row) for row in one] == [row_key(row) for row in other], name
    for key in ("reason", "because_post_id"):
        assert [row[key] for row in sorted(first["recommendations"], key=row_key)] == [
            row[key] for row in sorted(second["recommendations"], key=row_key)
        ]


def test_tables_do_not_depend_on_cells(fused_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {"k": 10, "num_parts": 3, "max_per_author": 2, "include_sensitive": True}
    first = run(fused_run, **flags)
    monkeypatch.setattr(cells, "MIN_POSTS", 1)
    second = run(fused_run, **flags)
    assert (fused_run / "runs" / "2024-05-31" / "candidates" / "_regions").is_dir()
    # What bounds the scores is all that is added.
    bounds = [row.pop("leading") for row in second["candidates"]]
    assert {len(numbers) for numbers in bounds} == {len(second["candidates"][0]["embedding"]) + 1}
    for name in recommend.STAGE.writes:
        one, other = (sorted(found[name], key=row_key) for found in (first, second))
        assert one == other, name


def test_a_part_is_one_scan_of_the_catalog_unless_its_lists_are_long(tmp_path: Path) -> None:
    for name in ("user_embeddings", "history"):
        (tmp_path / name).mkdir()
    users = pa.record_batch({"user_id": pa.array([f"u{i}" for i in range(18_000)])})
    parquet.write_file(str(tmp_path / "user_embeddings" / "part-0.parquet"), users, users.schema)
    history = schemas.empty(schemas.HISTORY)
    parquet.write_file(str(tmp_path / "history" / "part-0.parquet"), history, schemas.HISTORY)
    places = declaration.Places(str(tmp_path), str(tmp_path), str(tmp_path))
    assert recommend.num_parts(Options(k=50), places) == 2
    assert recommend.num_parts(Options(k=1000), places) == 18
    assert recommend.num_parts(Options(k=50, num_parts=7), places) == 7


def row_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("user_id", "post_id", "rank", "neighbor_id") if name in row)


@pytest.mark.parametrize(("worth", "topic"), [(0.01, "football"), (100.0, "cooking")])
def test_interests_count_as_much_as_they_are_worth(
    fused_run: Path, monkeypatch: pytest.MonkeyPatch, worth: float, topic: str
) -> None:
    monkeypatch.setattr(user_embeddings, "INTERESTS_WORTH", worth)
    found = run(fused_run, k=5)
    mine = lists(found)["convert"]
    assert topics(mine) == {topic}
    assert {row["reason"] for row in mine} == {"history" if topic == "football" else "interests"}


def test_a_new_post_is_found_by_what_it_is_about(fused_run: Path) -> None:
    found = run(fused_run, k=100)
    cold = {row["post_id"] for row in found["item_embeddings"] if row["modalities"] == ["text"]}
    assert len(cold) > 10
    ranks: dict[bool, list[int]] = {True: [], False: []}
    for row in found["recommendations"]:
        if row["user_id"] in CROWD and row["post_id"] in cold:
            fond_of = "football" if int(row["user_id"].removeprefix("crowd")) < 12 else "cooking"
            ranks[topics([row]) == {fond_of}].append(row["rank"])
    assert min(len(ranks[True]), len(ranks[False])) > 50
    assert np.mean(np.array(ranks[True])[:, None] < np.array(ranks[False])) > 0.8


def test_without_interactions_interests_find_posts(tmp_path: Path) -> None:
    found = run(make_run(tmp_path, []), k=6)
    assert {row["source"] for row in found["user_embeddings"]} == {"interests", "none"}
    by_user = lists(found)
    assert topics(by_user["says_cooking"]) == {"cooking"}
    assert {row["score"] for row in by_user["author1"]} == {0.0}
    nearest = [row for row in found["similar_posts"] if row["rank"] == 1]
    assert len(nearest) == NUM_POSTS - 2
    assert all(topics([row]) == {row["neighbor_id"].rstrip("0123456789")} for row in nearest)


def test_flags_reach_the_lists(fused_run: Path) -> None:
    found = run(
        fused_run, k=50, max_age_days=10, max_per_author=1, exclude_replies=True, include_sensitive=True,
        include_seen=True, similar_k=0,
    )  # fmt: skip
    assert found["similar_posts"] == []
    rows = {row["post_id"]: row for row in found["candidates"]}
    by_user = lists(found)
    shown = {row["post_id"] for row in found["recommendations"]}
    assert all(rows[post]["created_at"] >= datetime.datetime(2024, 5, 22, tzinfo=datetime.UTC) for post in shown)
    assert shown & {"football04", "cooking05"} and not shown & {"football06", "cooking07"}
    mine = {row["post_id"] for row in by_user["fan"]}
    assert mine & {"football00", "football02", "football08"}
    for listed in by_user.values():
        authors = [rows[row["post_id"]]["author_id"] for row in listed]
        assert len(set(authors)) == len(authors)


def test_weights_of_kinds_reach_the_history(tmp_path: Path) -> None:
    output = make_run(tmp_path, INTERACTIONS, kind_weights="like=3", half_life_days=0.0)
    assert {row["weight"] for row in table(output, "history")} == {3.0, -1.0}
    assert {row["strength"] for row in table(output, "history")} == {2.0, 0.0}


def test_bad_kind_weights_are_bad_usage(fused_run: Path) -> None:
    with pytest.raises(UsageError, match="--kind_weights must be like like=1,hide=-1, got 'like'"):
        execute.execute(factorize.STAGE, options_of(fused_run, kind_weights="like"))

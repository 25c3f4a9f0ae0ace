"""The demo world end to end: its right answer is known, so every count and most recommendations can be checked."""

import collections
import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.demo_world import DemoWorld, make_world
from transforms.media.decode import MEDIA_KINDS
from transforms.tables import rejects, schemas

pytestmark = pytest.mark.timeout(900)


class Demo:
    """A finished run of the demo: its directory, what it printed, and the world it was made from."""

    def __init__(self, output: Path, printed: str, world: DemoWorld) -> None:
        self.output, self.printed, self.world = output, printed, world
        self.run_dir = output / "runs" / world.run_date

    def table(self, name: str) -> pa.Table:
        return pq.read_table(self.run_dir / name)

    @property
    def stages(self) -> dict[str, Any]:
        stages: dict[str, Any] = json.loads((self.run_dir / "metrics.json").read_text())["stages"]
        return stages

    @property
    def counts(self) -> dict[str, int]:
        return {k: v for name in ("ingest", "extract") for k, v in self.stages[name]["counts"].items()}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`fusefeed demo` in a process of its own, as a user runs it."""
    output = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "demo", "--output", str(output)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Demo(output, done.stdout, make_world(str(tmp_path_factory.mktemp("world"))))


def test_latest_names_the_run_and_nothing_temporary_is_left(demo: Demo) -> None:
    assert (demo.output / "LATEST").read_text() == f"{demo.world.run_date}\n"
    left = [p for p in demo.run_dir.rglob("*") if p.name.startswith("_") and p.name not in ALLOWED]
    assert left == []


ALLOWED = {
    "_lineage.json",
    "_continuity.json",
    "_stages",
    "_counts.json",
    "_layout.json",
    "_time.json",
    "_factors.json",
    "_tuning.json",
    "_blocks.npz",
    "_text_factors.npz",
}


def test_the_summary_tells_what_happened(demo: Demo) -> None:
    lines = demo.printed.splitlines()
    assert lines[0].startswith(f"run {demo.world.run_date} published in ")
    for name, truth in demo.world.inputs.items():
        line = next(line for line in lines if line.startswith(f"{name} "))
        most = max(truth.rejected.values())
        code = min(code for code, number in truth.rejected.items() if number == most)
        numbers = truth.rows, truth.written, truth.duplicates, sum(truth.rejected.values()), most
        assert [int(number) for number in re.findall(r"\d+", line.replace(",", ""))] == list(numbers)
        assert line.endswith(f"rejected, most often as {code} ({most})")
    start = next(number for number, line in enumerate(lines) if line.startswith("backtest "))
    assert "better than the best baseline" in lines[start + 1] and "better than popularity" in lines[start + 2]
    assert sum(" gets " in line for line in lines) == 5
    texts = [text for text in demo.table("posts")["text"].to_pylist() if text]
    assert not any(text[:20] in demo.printed for text in texts)


@pytest.mark.parametrize("name", ["posts", "interactions", "users"])
def test_every_row_is_accounted_for(demo: Demo, name: str) -> None:
    truth, counts = demo.world.inputs[name], demo.counts
    assert counts[f"{name}.read"] == truth.rows
    assert counts[f"{name}.written"] == truth.written == demo.table(name).num_rows
    assert counts[f"{name}.rejected"] == sum(truth.rejected.values())
    assert counts[f"{name}.duplicates"] == truth.duplicates
    for field, number in truth.unknown_fields.items():
        assert counts[f"{name}.fields_ignored.{field}"] == number


def test_every_bad_row_has_its_reject(demo: Demo) -> None:
    expected: collections.Counter[str] = collections.Counter()
    for truth in demo.world.inputs.values():
        expected.update(truth.rejected)
    table = demo.table("rejects/ingest")
    assert table.schema.equals(schemas.REJECTS)
    assert collections.Counter(table["code"].to_pylist()) == expected
    assert set(expected) <= rejects.CODES.keys()


def test_every_broken_medium_is_rejected_with_its_code_and_costs_nothing_else(demo: Demo) -> None:
    table = demo.table("rejects/extract")
    found = {(r["id"], r["source"], r["code"]) for r in table.select(["id", "source", "code"]).to_pylist()}
    assert found == set(demo.world.broken_media)
    counts = demo.counts
    for claimed, number in demo.world.num_media.items():
        kind = claimed if claimed in MEDIA_KINDS else "unknown"
        assert counts[f"media.{kind}.referenced"] == number
        outcomes = [counts.get(f"media.{kind}.{outcome}", 0) for outcome in ("features", "missing", "rejected")]
        assert sum(outcomes) == number
    features = {r["post_id"]: r for r in demo.table("features").select(["post_id", "text_terms"]).to_pylist()}
    assert len(features) == demo.world.inputs["posts"].written
    assert all(features[post_id]["text_terms"] for post_id, _, _ in demo.world.broken_media)


def test_tables_have_exactly_the_declared_schemas(demo: Demo) -> None:
    width = demo.table("item_embeddings").schema.field("embedding").type.list_size
    expected = {
        "posts": schemas.POSTS,
        "interactions": schemas.INTERACTIONS,
        "users": schemas.USERS,
        "item_embeddings": schemas.item_embeddings(width),
        "user_embeddings": schemas.user_embeddings(width),
        "recommendations": schemas.RECOMMENDATIONS,
        "similar_posts": schemas.SIMILAR_POSTS,
    }
    for name, schema in expected.items():
        assert demo.table(name).schema.equals(schema), name


def test_the_newest_version_of_an_edited_post_wins(demo: Demo) -> None:
    texts = dict(zip(*(demo.table("posts")[name].to_pylist() for name in ("post_id", "text")), strict=True))
    assert {post: texts[post] for post in demo.world.edited_posts} == demo.world.edited_posts


def _vectors(table: pa.Table, key: str) -> dict[str, np.ndarray]:
    values = np.array(table["embedding"].combine_chunks().values).reshape(table.num_rows, -1)
    return dict(zip(table[key].to_pylist(), values.astype(np.float64), strict=True))


def test_scores_are_inner_products_of_the_embeddings(demo: Demo) -> None:
    items = _vectors(demo.table("item_embeddings"), "post_id")
    users = _vectors(demo.table("user_embeddings"), "user_id")
    rows = demo.table("recommendations").to_pylist()
    checked = 0
    for row in rows:
        if row["reason"] in ("history", "interests"):
            assert row["score"] == pytest.approx(users[row["user_id"]] @ items[row["post_id"]], rel=1e-4, abs=1e-6)
            checked += 1
    assert checked > len(rows) / 2


def test_nobody_gets_what_must_be_left_out(demo: Demo) -> None:
    posts = {post["post_id"]: post for post in demo.table("posts").to_pylist()}
    blocked = {user["user_id"]: set(user["blocked_authors"] or ()) for user in demo.table("users").to_pylist()}
    seen = set(zip(*(demo.table("interactions")[n].to_pylist() for n in ("user_id", "post_id")), strict=True))
    ranks = collections.defaultdict(list)
    for row in demo.table("recommendations").to_pylist():
        post = posts[row["post_id"]]
        assert (row["user_id"], row["post_id"]) not in seen
        assert post["author_id"] != row["user_id"]
        assert post["author_id"] not in blocked.get(row["user_id"], ())
        assert not post["sensitive"]
        assert not (post["repost_of"] and not post["text"] and not post["media"])
        if row["because_post_id"] is not None:
            assert row["reason"] == "history" and row["because_post_id"] != row["post_id"]
        ranks[row["user_id"]].append(row["rank"])
    assert all(found == list(range(1, 51)) for found in ranks.values())
    everyone = set(demo.table("users")["user_id"].to_pylist()) | {user for user, _ in seen}
    assert ranks.keys() == everyone


def _share_of_topic(demo: Demo, profiles: set[str], top: int, num_tastes: int = 0) -> float:
    """How often a user's first `top` recommendations are of the user's topics, over what chance would give; only of
    users with so many topics, if that is not 0."""
    world = demo.world
    lifts = []
    table = demo.table("recommendations")
    for user, tastes in world.user_tastes.items():
        if world.user_profiles[user] not in profiles or not tastes or num_tastes not in (0, len(tastes)):
            continue
        rows = table.filter(pc.and_(pc.equal(table["user_id"], user), pc.less_equal(table["rank"], top)))
        hits = np.mean([world.post_topics[post] in tastes for post in rows["post_id"].to_pylist()])
        lifts.append(hits / (len(tastes) / len(set(world.post_topics.values()))))
    assert lifts
    return float(np.mean(lifts))


def test_users_get_their_topics(demo: Demo) -> None:
    """Chance is 1; the best that can be had is 6 for a user of one topic, 3 for a user of two."""
    assert _share_of_topic(demo, {"both", "history", "no_row"}, 10) > 2.5


def test_users_of_two_topics_get_both(demo: Demo) -> None:
    """Of what they meet of both, a quarter is of the lesser one."""
    topics, top = demo.world.post_topics, collections.defaultdict(list)
    for row in demo.table("recommendations").select(["user_id", "rank", "post_id"]).to_pylist():
        top[row["user_id"]].append((row["rank"], topics[row["post_id"]]))
    shares = []
    for user, main in demo.world.main_tastes.items():
        if demo.world.user_profiles[user] in ("both", "history", "no_row"):
            (lesser,) = demo.world.user_tastes[user] - {main}
            ordered = [topic for _, topic in sorted(top[user])]
            assert lesser in ordered, user
            shares.append([np.mean([topic == wanted for topic in ordered[:20]]) for wanted in (main, lesser)])
    main_share, lesser_share = np.mean(shares, axis=0)
    assert main_share > 0.5 and lesser_share > 0.15


def test_users_of_whom_only_interests_are_known_get_their_topics(demo: Demo) -> None:
    assert _share_of_topic(demo, {"interests"}, 10, num_tastes=1) >= 5
    assert _share_of_topic(demo, {"interests"}, 10, num_tastes=2) > 2.5


def test_users_of_whom_nothing_is_known_get_popular_posts(demo: Demo) -> None:
    users = {r["user_id"]: r["source"] for r in demo.table("user_embeddings").select(["user_id", "source"]).to_pylist()}
    reasons = collections.defaultdict(set)
    for row in demo.table("recommendations").to_pylist():
        reasons[row["user_id"]].add(row["reason"])
    unknown = [user for user, profile in demo.world.user_profiles.items() if profile == "nothing" and user in users]
    assert unknown
    assert all(users[user] == "none" and reasons[user] == {"popular"} for user in unknown)
    assert all("popular" not in reasons[user] for user, source in users.items() if source != "none")


def test_similar_posts_are_of_the_same_topic(demo: Demo) -> None:
    topics = demo.world.post_topics
    rows = demo.table("similar_posts").to_pylist()
    assert all(row["post_id"] != row["neighbor_id"] for row in rows)
    same = [topics[r["post_id"]] == topics[r["neighbor_id"]] for r in rows if r["rank"] <= 5]
    assert np.mean(same) > 3 / 6


def test_metrics_and_manifest_agree_with_the_tables(demo: Demo) -> None:
    manifest = json.loads((demo.run_dir / "manifest.json").read_text())
    for table, rows in manifest["rows"].items():
        assert demo.table(table).num_rows == rows
    assert manifest["versions"]["apache-beam"]
    assert {Path(f["path"]).name for f in manifest["inputs"]["posts"]} == {"posts-1.jsonl", "posts-2.jsonl.gz"}
    assert f'fusefeed_table_rows{{run="{demo.world.run_date}",stage="ingest",table="posts"}} 600' in (
        (demo.run_dir / "metrics.prom").read_text().splitlines()
    )


def test_statistics_are_those_of_the_tables(demo: Demo) -> None:
    metrics = json.loads((demo.run_dir / "metrics.json").read_text())
    found, posts, features = metrics["statistics"], demo.table("posts"), demo.table("features")
    assert metrics["drift"]["why_not"] == "there is no published run that is older"
    assert found["rows"]["posts"] == posts.num_rows
    assert found["nulls"]["posts"]["text"] == posts["text"].null_count
    assert sum(found["values"]["posts"]["lang"].values()) == posts["lang"].drop_null().length()
    for modality, column in (("text", "text_terms"), ("image", "image"), ("video", "video"), ("audio", "audio")):
        assert found["modalities"][modality]["rows"] == features[column].drop_null().length(), modality
    image = np.array(features["image"].drop_null().to_pylist())
    np.testing.assert_allclose(found["modalities"]["image"]["mean"], image.mean(axis=0), rtol=1e-5, atol=1e-9)
    lengths = np.linalg.norm(np.array(demo.table("user_embeddings")["embedding"].to_pylist()), axis=1)
    assert found["norms"]["user_embeddings"]["median"] == pytest.approx(np.median(lengths[lengths > 0]), rel=0.03)
    since = pc.max(posts["created_at"]).as_py() - datetime.timedelta(days=1)
    assert 0 < found["latest"]["rows"]["posts"] <= pc.sum(pc.greater_equal(posts["created_at"], since)).as_py()


def test_every_step_tells_its_rows_bytes_time_and_rejects(demo: Demo) -> None:
    rejects = demo.table("rejects")
    for stage in ("ingest", "extract"):
        steps = demo.stages[stage]["steps"]
        assert sum(step["rejects"] for step in steps.values()) == pc.sum(pc.equal(rejects["stage"], stage)).as_py()
        assert steps["WriteRejects/Write/WriteFile"]["bytes_in"] > 0
    assert demo.stages["ingest"]["steps"]["Write posts/WriteFile"]["rows_in"] == 600
    decoding = [step for label, step in demo.stages["extract"]["steps"].items() if "ExtractPart" in label]
    assert sum(step["milliseconds"] for step in decoding) > 0
    assert all(demo.stages[stage]["steps"] for stage in demo.stages if stage != "train")  # that uses no Beam
    labels = f'run="{demo.world.run_date}",stage="ingest",step="Write posts/WriteFile",counter="rows_in"'
    assert f"fusefeed_step{{{labels}}} 600" in (demo.run_dir / "metrics.prom").read_text().splitlines()


def test_no_text_of_a_post_is_in_what_is_printed_or_in_rejects(demo: Demo) -> None:
    texts = [t for t in demo.table("posts")["text"].to_pylist() if t and len(t) > 20]
    messages = " ".join(filter(None, demo.table("rejects")["message"].to_pylist()))
    assert not [t for t in texts if t[:20] in demo.printed or t[:20] in messages]

"""The demo world is what it says it is: read back here with other means than fusefeed's own."""

import collections
import csv
import datetime
import filecmp
import glob
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.demo_world import LANGUAGES, TOPICS, DemoWorld, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> DemoWorld:
    return make_world(str(tmp_path_factory.mktemp("world")))


def lines_of(path: str) -> list[bytes]:
    data = Path(path).read_bytes()
    return (gzip.decompress(data) if path.endswith(".gz") else data).removesuffix(b"\n").split(b"\n")


def fault_of(line: bytes, ids: tuple[str, ...], check: Callable[[dict[str, Any]], str | None]) -> str | None:
    """The reject code of a JSON line, None where it is good."""
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError:
        return "encoding_invalid"
    except json.JSONDecodeError:
        return "row_malformed"
    if not isinstance(row, dict):
        return "row_not_object"
    if any(not row.get(name) for name in ids):
        return "id_missing"
    return check(row)


def time_of(value: Any) -> datetime.datetime:
    if isinstance(value, datetime.datetime):
        return value
    if isinstance(value, int):
        return datetime.datetime.fromtimestamp(value / 1000, datetime.UTC)
    return datetime.datetime.fromisoformat(value)


def time_fault(row: dict[str, Any]) -> str | None:
    try:
        time_of(row.get("created_at", 0))
    except ValueError:
        return "time_invalid"
    return None


def check_post(row: dict[str, Any]) -> str | None:
    good = isinstance(row.get("text", ""), str) and isinstance(row.get("media", []), list)
    return time_fault(row) or (None if good else "field_invalid")


def check_user(row: dict[str, Any]) -> str | None:
    return None if isinstance(row.get("interests", []), list) else "field_invalid"


def check_interaction(row: dict[str, Any]) -> str | None:
    return time_fault(row) or ("field_invalid" if isinstance(row.get("value"), str) else None)


def split_rows(paths: list[str], ids: tuple[str, ...], check: Callable[..., str | None]) -> tuple[list[Any], Any]:
    """The good rows of JSONL files, and how many bad ones there are by code."""
    lines = [(line, fault_of(line, ids, check)) for path in paths for line in lines_of(path)]
    rejected = collections.Counter(code for _, code in lines if code)
    return [json.loads(line) for line, code in lines if code is None], rejected


def posts_of(world: DemoWorld) -> dict[str, dict[str, Any]]:
    """The posts that are left, of two versions the newer one."""
    rows, _ = split_rows(sorted(glob.glob(world.posts)), ("post_id",), check_post)
    return {row["post_id"]: row for row in sorted(rows, key=lambda row: time_of(row["created_at"]))}


def interactions_of(world: DemoWorld) -> tuple[list[dict[str, Any]], Any]:
    rows: list[dict[str, Any]] = []
    rejected: collections.Counter[str] = collections.Counter()
    for path in sorted(glob.glob(world.interactions)):
        if path.endswith(".jsonl"):
            good, bad = split_rows([path], ("user_id", "post_id"), check_interaction)
            rows += good
            rejected += bad
            continue
        if path.endswith(".parquet"):
            found: list[tuple[dict[str, Any], str | None]] = [(row, None) for row in pq.read_table(path).to_pylist()]
        else:
            header, *lines = csv.reader(io.StringIO(Path(path).read_text(encoding="utf-8")))
            found = [
                (dict(zip(header, line, strict=False)), None if len(line) == len(header) else "row_malformed")
                for line in lines
            ]
        for row, fault in found:
            fault = fault or (None if row["user_id"] and row["post_id"] else "id_missing") or time_fault(row)
            fault = fault or ("field_invalid" if row.get("value") else None)
            rejected += collections.Counter([fault] if fault else [])
            rows += [] if fault else [row]
    return rows, rejected


def test_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_world(str(tmp_path / name), num_posts=100, num_users=20, seed=seed)
    files = sorted(str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*") if path.is_file())
    same, different, missing = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)
    assert (sorted(same), different, missing) == (files, [], [])
    assert (tmp_path / "a/posts-1.jsonl").read_bytes() != (tmp_path / "c/posts-1.jsonl").read_bytes()


def test_is_small(world: DemoWorld) -> None:
    root = Path(world.media_root).parent
    assert sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) < 8_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_posts": 99}, "num_posts must be at least 100, got 99"),
        ({"num_users": 19}, "num_users must be at least 20, got 19"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_refuses_worlds_too_small(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_world(str(tmp_path), **arguments)


def test_posts_have_the_planted_defects(world: DemoWorld) -> None:
    rows, rejected = split_rows(sorted(glob.glob(world.posts)), ("post_id",), check_post)
    truth = world.inputs["posts"]
    assert dict(rejected) == truth.rejected
    assert len(rows) + rejected.total() == truth.rows
    assert len({row["post_id"] for row in rows}) == truth.written == 600
    assert {name: sum(name in row for row in rows) for name in ("client", "geo")} == truth.unknown_fields
    posts = posts_of(world)
    assert {post_id: posts[post_id]["text"] for post_id in world.edited_posts} == world.edited_posts
    assert len(world.edited_posts) == 5
    assert set(posts) == set(world.post_topics)


def test_interactions_have_the_planted_defects(world: DemoWorld) -> None:
    rows, rejected = interactions_of(world)
    truth = world.inputs["interactions"]
    assert dict(rejected) == truth.rejected
    assert len(rows) + rejected.total() == truth.rows
    different = {(row["user_id"], row["post_id"], row["kind"], time_of(row["created_at"])) for row in rows}
    assert len(different) == truth.written
    assert sum("device" in row for row in rows) == truth.unknown_fields["device"]


def test_users_have_the_planted_defects(world: DemoWorld) -> None:
    rows, rejected = split_rows([world.users], ("user_id",), check_user)
    truth = world.inputs["users"]
    assert dict(rejected) == truth.rejected
    assert len(rows) + rejected.total() == truth.rows
    users = {row["user_id"]: row for row in rows}
    assert len(users) == truth.written
    assert sum("followers" in row for row in rows) == truth.unknown_fields["followers"]
    profiles = collections.Counter(world.user_profiles.values())
    assert profiles == {"nothing": 10, "interests": 20, "history": 20, "no_row": 16, "both": 134}
    assert all(profile == "no_row" or user in users for user, profile in world.user_profiles.items())
    assert {user for user, row in users.items() if "interests" in row} == {
        user for user, profile in world.user_profiles.items() if profile in ("interests", "both")
    }
    assert all("nothing" not in row.get("interests", ()) for row in users.values())


def test_posts_cover_topics_languages_and_forms(world: DemoWorld) -> None:
    posts = posts_of(world)
    assert collections.Counter(world.post_topics.values()) == dict.fromkeys(TOPICS, 100)
    assert {row["lang"] for row in posts.values() if "lang" in row} == set(LANGUAGES)
    assert 40 <= len({row["author_id"] for row in posts.values()}) <= 60
    reposts = [row for row in posts.values() if "repost_of" in row]
    assert len(reposts) == 30
    assert not any("text" in row or "media" in row for row in reposts)
    assert any(row["repost_of"] not in posts for row in reposts)
    assert any("reply_to" in row for row in posts.values())
    assert any(row.get("sensitive") for row in posts.values())
    bare = [row for row in posts.values() if not {"text", "media", "repost_of"} & set(row)]
    assert len(bare) == 9
    only = collections.Counter(
        row["media"][0]["kind"] for row in posts.values() if "text" not in row and row.get("media")
    )
    assert only == {"image": 48, "video": 15, "audio": 15}


def test_media_decode_except_where_broken(world: DemoWorld) -> None:
    entries = [(post_id, entry) for post_id, row in posts_of(world).items() for entry in row.get("media", ())]
    assert collections.Counter(entry["kind"] for _, entry in entries) == world.num_media
    broken = {(post_id, uri) for post_id, uri, _ in world.broken_media}
    assert broken <= {(post_id, entry["uri"]) for post_id, entry in entries}
    assert any("alt" in entry for _, entry in entries)
    sounding = 0
    for post_id, entry in entries:
        if (post_id, entry["uri"]) in broken:
            continue
        path = os.path.join(world.media_root, entry["uri"])
        if entry["kind"] == "image":
            image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
            assert image is not None and min(image.shape[:2]) >= 100, path
            continue
        with av.open(path) as container:
            frames = list(container.decode(video=0) if entry["kind"] == "video" else container.decode(audio=0))
            sounding += bool(entry["kind"] == "video" and container.streams.audio)
        seconds = float(frames[-1].time) + 0.15
        assert len(frames) >= 14 and 0.9 < seconds < 3.2, path
    assert 5 < sounding < world.num_media["video"]


def test_broken_media_are_broken(world: DemoWorld) -> None:
    root = Path(world.media_root)
    uri = {code: uri for _, uri, code in world.broken_media}
    assert len(uri) == 11
    jpeg = (root / uri["image_truncated"]).read_bytes()
    assert jpeg[:2] == b"\xff\xd8" and not jpeg.endswith(b"\xff\xd9")
    assert (root / uri["media_empty"]).stat().st_size == 0
    assert cv2.imdecode(np.fromfile(root / uri["image_undecodable"], np.uint8), cv2.IMREAD_COLOR) is None
    assert not (root / uri["media_missing"]).exists()
    assert (root / uri["media_wrong_kind"]).read_bytes()[4:8] == b"ftyp"
    assert (root / uri["image_too_large"]).read_bytes()[16:24] == (60_000).to_bytes(4) * 2
    for code in ("video_undecodable", "audio_undecodable"):
        with pytest.raises(av.FFmpegError):
            av.open(str(root / uri[code]))
    assert not (root / uri["media_outside_root"]).resolve().is_relative_to(root.resolve())
    assert uri["media_scheme_not_allowed"].startswith("http:")


def test_users_meet_their_topics_and_leave_enough(world: DemoWorld) -> None:
    posts, (rows, _) = posts_of(world), interactions_of(world)
    known = [row for row in rows if row["post_id"] in posts]
    assert len(known) < len(rows)  # some posts are gone
    on_topic = [world.post_topics[row["post_id"]] in world.user_tastes[row["user_id"]] for row in known]
    assert 0.85 < np.mean(on_topic) < 0.97
    assert not any(on for on, row in zip(on_topic, known, strict=True) if row["kind"] == "hide")
    seen = collections.defaultdict(set)
    for row in known:
        seen[row["user_id"]].add(row["post_id"])
        assert time_of(row["created_at"]) > time_of(posts[row["post_id"]]["created_at"])
        assert posts[row["post_id"]]["author_id"] != row["user_id"]
    assert {user for user, profile in world.user_profiles.items() if profile in ("history", "no_row", "both")} == set(
        seen
    )
    for user, tastes in world.user_tastes.items():
        left = [
            post_id
            for post_id, row in posts.items()
            if world.post_topics[post_id] in tastes and post_id not in seen[user] and row["author_id"] != user
            if "repost_of" not in row and not row.get("sensitive")
        ]
        assert len(left) >= 50 or not tastes


def test_users_of_two_topics_meet_three_times_as_many_posts_of_the_main_one(world: DemoWorld) -> None:
    rows, _ = interactions_of(world)
    met = collections.defaultdict(set)
    for row in rows:
        met[row["user_id"]].add(row["post_id"])
    shares = []
    for user, main in world.main_tastes.items():
        assert main in world.user_tastes[user] and len(world.user_tastes[user]) == 2
        (lesser,) = world.user_tastes[user] - {main}
        if user in met:
            topics = collections.Counter(world.post_topics.get(post) for post in met[user])
            shares.append(topics[main] / (topics[main] + topics[lesser]))
            assert 0.6 < shares[-1] < 0.9, user
    assert len(shares) > 80 and 0.73 < np.mean(shares) < 0.78


def nearest_topic_share(vectors: np.ndarray, topics: np.ndarray) -> float:
    """Share of odd rows whose nearest mean of the even rows' topics is their own topic."""
    vectors = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-9)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    means = np.stack([vectors[::2][topics[::2] == topic].mean(0) for topic in TOPICS])
    return float(np.mean(np.array(TOPICS)[(vectors[1::2] @ means.T).argmax(1)] == topics[1::2]))


def test_topics_can_be_told_from_texts_but_not_from_one_word(world: DemoWorld) -> None:
    rows = [row for row in posts_of(world).values() if "text" in row]
    topics = np.array([world.post_topics[row["post_id"]] for row in rows])
    texts = [row["text"] + " " + " ".join(row.get("hashtags", ())) for row in rows]
    pairs = [{text[at : at + 3].lower() for at in range(len(text) - 2)} for text in texts]
    terms = [term for term, count in collections.Counter(term for pair in pairs for term in pair).items() if count > 2]
    counts = np.array([[term in pair for term in terms] for pair in pairs], float)
    assert 0.5 < nearest_topic_share(counts, topics) < 1
    # The best single term of a topic finds no more than a part of its posts.
    found = [counts[topics == topic].mean(0) for topic in TOPICS]
    for index, share in enumerate(found):
        elsewhere = np.mean([other for place, other in enumerate(found) if place != index], axis=0)
        assert (share - elsewhere).max() < 0.6


def test_topics_can_be_told_from_pictures_and_tones(world: DemoWorld) -> None:
    broken = {uri for _, uri, _ in world.broken_media}
    vectors: dict[str, list[np.ndarray]] = {"image": [], "audio": []}
    topics: dict[str, list[str]] = {"image": [], "audio": []}
    for post_id, row in posts_of(world).items():
        for entry in row.get("media", ()):
            if entry["kind"] not in vectors or entry["uri"] in broken:
                continue
            path = os.path.join(world.media_root, entry["uri"])
            topics[entry["kind"]].append(world.post_topics[post_id])
            if entry["kind"] == "image":
                image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
                small = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA)
                vectors["image"].append(small.ravel().astype(float))
                continue
            with av.open(path) as container:
                resample = av.AudioResampler("flt", "mono", 16_000).resample
                samples = np.hstack(
                    [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resample(frame)]
                )
            spectrum = np.abs(np.fft.rfft(samples[:14_000]))
            vectors["audio"].append(np.log(np.array([part.mean() for part in np.array_split(spectrum, 30)]) + 1e-3))
    assert 0.6 < nearest_topic_share(np.array(vectors["image"]), np.array(topics["image"])) < 1
    assert nearest_topic_share(np.array(vectors["audio"]), np.array(topics["audio"])) > 0.6


def test_truth_is_written_too(world: DemoWorld) -> None:
    truth = json.loads((Path(world.media_root).parent / "truth.json").read_text(encoding="utf-8"))
    assert truth["post_topics"] == world.post_topics
    assert {user: set(tastes) for user, tastes in truth["user_tastes"].items()} == world.user_tastes

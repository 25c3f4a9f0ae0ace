"""Writes the demo world: posts (JSONL, one file gzipped), interactions (Parquet, CSV, JSONL), users (JSONL), media."""

import collections
import csv
import dataclasses
import datetime
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.demo_world import defects
from pipelines.demo_world.people import User, author_topics, make_interactions, make_users
from pipelines.demo_world.posts import LAST_DAY, Post, make_posts

BadLines = Sequence[tuple[bytes, str]]


@dataclasses.dataclass(frozen=True)
class InputTruth:
    """Expected counts of one input: rows in its files, how many of them must become rejects (by code) or duplicates,
    and how many good rows have each field that fusefeed does not know."""

    rows: int
    rejected: dict[str, int]
    duplicates: int
    unknown_fields: dict[str, int]

    @property
    def written(self) -> int:
        """Rows that must be left: rows - rejected - duplicates."""
        return self.rows - sum(self.rejected.values()) - self.duplicates


@dataclasses.dataclass(frozen=True)
class DemoWorld:
    """Where the input is, and the right answer. See the package's docstring."""

    posts: str
    interactions: str
    users: str
    media_root: str
    run_date: str
    post_topics: dict[str, str]
    user_tastes: dict[str, set[str]]  # empty where nothing is known of the user; not in users/: history only
    main_tastes: dict[str, str]  # of a user of two topics, the one of three quarters of what the user meets of both
    user_profiles: dict[str, str]  # both, history, interests, no_row (as history), nothing
    inputs: dict[str, InputTruth]  # posts, interactions, users
    num_media: dict[str, int]  # media entries of the posts that are left, by kind, broken ones included
    broken_media: list[tuple[str, str, str]]  # post_id, uri, code
    edited_posts: dict[str, str]  # posts given in two versions -> the text of the newer one, which wins


def make_world(output_dir: str, *, num_posts: int = 600, num_users: int = 200, seed: int = 7) -> DemoWorld:
    """Writes the input files of a demo world below `output_dir` and returns what is true of them.

    Raises:
      ValueError: too few posts or users for every kind of them to appear, or a negative seed.
    """
    for name, value, least in (("num_posts", num_posts, 100), ("num_users", num_users, 20), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    cv2.setNumThreads(1)  # the pictures are small, and a process that may fork must not have threads of OpenCV
    out = Path(output_dir)
    posts = make_posts(seed, num_posts, author_topics(num_users))
    users = make_users(seed, num_users)
    broken = _attach_broken_media(seed, posts)
    _write_media(out / "media", posts, defects.broken_media(seed))
    edited, post_truth = _write_posts(out, seed, posts)
    world = DemoWorld(
        posts=str(out / "posts-*"),
        interactions=str(out / "interactions-*"),
        users=str(out / "users.jsonl"),
        media_root=str(out / "media"),
        run_date=LAST_DAY.date().isoformat(),
        post_topics={post.post_id: post.topic for post in posts},
        user_tastes={user.user_id: set(user.tastes) for user in users},
        main_tastes={user.user_id: user.tastes[0] for user in users if len(user.tastes) > 1},
        user_profiles={user.user_id: user.profile for user in users},
        inputs={
            "posts": post_truth,
            "interactions": _write_interactions(out, make_interactions(seed, users, posts)),
            "users": _write_users(out, users),
        },
        num_media=dict(collections.Counter(entry["kind"] for post in posts for entry in post.row.get("media", ()))),
        broken_media=broken,
        edited_posts=edited,
    )
    _write_truth(out, world)
    return world


def _attach_broken_media(seed: int, posts: list[Post]) -> list[tuple[str, str, str]]:
    """Gives every broken media entry to a post with nothing but text; returns post_id, uri, code of each."""
    hosts = [post for post in posts if "text" in post.row and "media" not in post.row]
    broken = defects.broken_media(seed)
    places = np.linspace(0, len(hosts) - 1, len(broken)).astype(int)
    attached = []
    for place, media in zip(places, broken, strict=True):
        hosts[place].row.setdefault("media", []).append({"kind": media.kind, "uri": media.uri})
        attached.append((hosts[place].post_id, media.uri, media.code))
    return attached


def _write_media(root: Path, posts: list[Post], broken: list[defects.BrokenMedia]) -> None:
    files = {media.uri: media.data for media in broken if media.data is not None}
    for post in posts:
        files |= post.files
    for uri, data in files.items():
        path = root / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(path, data)


def _write_posts(out: Path, seed: int, posts: list[Post]) -> tuple[dict[str, str], InputTruth]:
    """Two files: the older half with ISO times, the newer half gzipped with epoch milliseconds."""
    half = len(posts) // 2
    older = [post.row for post in posts[:half]]
    newer = [post.row | {"created_at": _epoch_ms(post.created_at)} for post in posts[half:]]
    texts = [row for row in older if "text" in row]
    edited = [texts[place] for place in np.linspace(3, len(texts) - 1, 5).astype(int)]
    for number, row in enumerate(edited):
        time = datetime.datetime.fromisoformat(row["created_at"]) - datetime.timedelta(hours=5)
        version = {"post_id": row["post_id"], "author_id": row["author_id"], "text": "first version, with a typpo"}
        if number % 2:  # read after the newer version, which has to win all the same
            newer.insert(7 * number, version | {"created_at": _epoch_ms(time)})
        else:
            older.insert(7 * number, version | {"created_at": time.isoformat()})
    repeated = [row for row in newer if row.get("text") and "client" not in row and "geo" not in row][-2:]
    newer += repeated
    bad = defects.BAD_POST_LINES
    _put(out / "posts-1.jsonl", _mix(_lines(older), bad[::2]))
    _put(out / "posts-2.jsonl.gz", gzip.compress(_mix(_lines(newer), bad[1::2]), mtime=0))
    truth = InputTruth(
        rows=len(older) + len(newer) + len(bad),
        rejected=_by_code(bad),
        duplicates=len(edited) + len(repeated),
        unknown_fields=_count_fields([*older, *newer], ("client", "geo")),
    )
    return {row["post_id"]: row["text"] for row in edited}, truth


def _write_interactions(out: Path, rows: list[dict[str, Any]]) -> InputTruth:
    """Three files: the oldest half as Parquet, then CSV with ISO times, the newest fifth as JSONL with epoch ms."""
    cuts = (len(rows) // 2, len(rows) * 4 // 5)
    archive, middle, newest = rows[: cuts[0]], rows[cuts[0] : cuts[1]], rows[cuts[1] :]
    # Exports repeat rows: some twice in a file, some in two files. And some posts are gone.
    repeats = [archive[-3:], middle[5:9] + archive[:2], newest[:3]]
    gone = {"user_id": rows[0]["user_id"], "post_id": "p-deleted", "kind": "like", "created_at": LAST_DAY}
    archive, middle, newest = archive + repeats[0], middle + repeats[1], [*newest, gone, *repeats[2]]
    without_post = {"user_id": "u0002", "post_id": None, "kind": "like", "created_at": LAST_DAY}
    _write_parquet(out / "interactions-1.parquet", [*archive, without_post])
    table = [[row["user_id"], row["post_id"], row["kind"], _iso(row["created_at"]), ""] for row in middle]
    header = b"user_id,post_id,kind,created_at,value\n"
    _put(out / "interactions-2.csv", header + _mix(_csv_lines(table), defects.BAD_INTERACTION_CSV_LINES))
    lines = [row | {"created_at": _epoch_ms(row["created_at"])} for row in newest]
    for line in lines[::25]:
        line["device"] = "phone"  # not a field that fusefeed knows
    _put(out / "interactions-3.jsonl", _mix(_lines(lines), defects.BAD_INTERACTION_LINES))
    bad = [*defects.BAD_INTERACTION_CSV_LINES, *defects.BAD_INTERACTION_LINES, (b"", "id_missing")]
    return InputTruth(
        rows=len(archive) + len(middle) + len(newest) + len(bad),
        rejected=_by_code(bad),
        duplicates=sum(len(part) for part in repeats),
        unknown_fields=_count_fields(lines, ("device",)),
    )


def _write_users(out: Path, users: list[User]) -> InputTruth:
    """One JSONL file; the first and last versions of two users differ, the last read wins."""
    rows = [user.row for user in users if user.profile != "no_row"]
    known = [row for row in rows if "interests" in row and "followers" not in row]
    stale = [{"user_id": row["user_id"], "interests": ["nothing", "yet"]} for row in known[1:3]]
    bad = defects.BAD_USER_LINES
    _put(out / "users.jsonl", _mix(_lines([*stale, *rows]), bad))
    unknown = _count_fields(rows, ("followers",))
    return InputTruth(len(stale) + len(rows) + len(bad), _by_code(bad), len(stale), unknown)


def _put(path: Path, data: bytes) -> None:
    """Writes a file; one that has these bytes already stays as it is, so that a run made from it stands."""
    if not (path.is_file() and path.read_bytes() == data):
        path.write_bytes(data)


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    names = ("user_id", "post_id", "kind")
    columns: dict[str, pa.Array] = {name: pa.array([row[name] for row in rows], pa.string()) for name in names}
    columns["created_at"] = pa.array([row["created_at"] for row in rows], pa.timestamp("ms", tz="UTC"))
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    _put(path, sink.getvalue())


def _write_truth(out: Path, world: DemoWorld) -> None:
    """truth.json: the right answer, for whoever looks at the results by hand."""
    truth = dataclasses.asdict(world)
    truth["user_tastes"] = {user: sorted(tastes) for user, tastes in world.user_tastes.items()}
    for name in ("posts", "interactions", "users", "media_root"):
        truth[name] = Path(truth[name]).name  # relative: the same bytes wherever the world is written
    (out / "truth.json").write_text(json.dumps(truth, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _lines(rows: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(row, ensure_ascii=False).encode() for row in rows]


def _csv_lines(table: list[list[str]]) -> list[bytes]:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(table)
    return out.getvalue().encode().splitlines()


def _mix(lines: list[bytes], bad: BadLines) -> bytes:
    """A file of the good lines in their order with the bad ones spread among them."""
    mixed = list(lines)
    for place, (line, _) in zip(np.linspace(1, len(lines), len(bad)).astype(int)[::-1], bad, strict=True):
        mixed.insert(int(place), line)
    return b"\n".join(mixed) + b"\n"


def _by_code(bad: BadLines) -> dict[str, int]:
    return dict(sorted(collections.Counter(code for _, code in bad).items()))


def _count_fields(rows: list[dict[str, Any]], names: Sequence[str]) -> dict[str, int]:
    return {name: sum(name in row for row in rows) for name in names}


def _epoch_ms(time: datetime.datetime) -> int:
    return int(time.timestamp() * 1000)


def _iso(time: datetime.datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")

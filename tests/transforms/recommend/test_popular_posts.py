import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from transforms.recommend import popular_posts
from transforms.recommend.rerank import Preferences
from transforms.search.catalog import Catalog
from transforms.search.eligibility import Eligibility
from transforms.search.exclusions import Exclusions
from transforms.tables import parquet, schemas

NOW = datetime.datetime(2024, 6, 1, tzinfo=datetime.UTC)
LANGUAGES = ("en", "de", None, "fi")


def write(directory: Path, posts: list[dict[str, Any]], num_files: int = 2) -> Catalog:
    rest = {"embedding": [0.0], "profile": [0.0], "sensitive": False, "is_repost": False, "is_reply": False}
    for i in range(num_files):
        block = pa.RecordBatch.from_pylist(
            [rest | post for post in posts[i::num_files]], schema=schemas.candidates(1, 1)
        )
        parquet.write_file(str(directory / f"part-{i:05d}.parquet"), block, block.schema)
    return Catalog(str(directory))


def make_posts(number: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    return [
        {
            "post_id": f"p{i:03d}",
            "author_id": f"a{rng.integers(6)}",
            "lang": LANGUAGES[int(rng.integers(3)) if i else 3],
            "created_at": NOW - datetime.timedelta(days=int(rng.integers(20))),
            "popularity": float(rng.integers(0, 6)) / 3,
        }
        for i in range(number)
    ]


def lists_of(ranked: Any, num_users: int) -> list[list[str]]:
    assert (np.diff(ranked.query) >= 0).all()
    ids = np.array(ranked.post_id.to_pylist(), object)
    lists = [ids[ranked.query == user].tolist() for user in range(num_users)]
    assert ranked.rank.tolist() == [rank for got in lists for rank in range(1, len(got) + 1)]
    return lists


def obvious(posts: list[dict[str, Any]], lang: str | None, excluded: set[str], k: int, cap: int | None) -> list[str]:
    def place(post: dict[str, Any]) -> tuple[bool, float, str]:
        can_read = lang is None or post["lang"] in (None, lang)
        return not (can_read and post["popularity"] > 0), -np.float32(post["popularity"]), post["post_id"]

    got: list[str] = []
    used: dict[str, int] = {}
    for post in sorted(posts, key=place):
        if post["post_id"] in excluded or used.get(post["author_id"], 0) >= (cap or len(posts)):
            continue
        used[post["author_id"]] = used.get(post["author_id"], 0) + 1
        got.append(post["post_id"])
    return got[:k]


@pytest.mark.parametrize(("k", "cap", "spare", "read_rows"), [(5, None, 4, 65_536), (4, 1, 2, 7), (200, None, 4, 50)])
def test_lists_equal_the_obvious_computation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, k: int, cap: int | None, spare: int, read_rows: int
) -> None:
    monkeypatch.setattr(popular_posts, "_SPARE", spare)
    monkeypatch.setattr(popular_posts, "_READ_ROWS", read_rows)
    posts = make_posts(150)
    languages = [None, "de", "en", "de", "fi", "sv"]
    # The second reader of German has seen all German posts, the third user nearly everything.
    seen = {3: {post["post_id"] for post in posts if post["lang"] == "de"}, 2: {f"p{i:03d}" for i in range(3, 150)}}
    user = np.repeat(list(seen), [len(of_user) for of_user in seen.values()])
    excluded = Exclusions(
        user, pa.array([post for of_user in seen.values() for post in sorted(of_user)]),
        np.empty(0, np.int64), pa.array([], pa.string()),
    )  # fmt: skip
    ranked = popular_posts.popular(
        pa.array(languages, pa.string()), write(tmp_path, posts), k,
        eligibility=Eligibility(), exclusions=excluded, max_per_author=cap,
    )  # fmt: skip
    popularity = {post["post_id"]: np.float32(post["popularity"]) for post in posts}
    assert [popularity[post] for post in ranked.post_id.to_pylist()] == ranked.score.tolist()
    for place, got in enumerate(lists_of(ranked, len(languages))):
        assert got == obvious(posts, languages[place], seen.get(place, set()), k, cap), place


def test_younger_posts_come_first_where_they_are_preferred(tmp_path: Path) -> None:
    given = [("old", "de", 4, 20), ("new", "de", 3, 0), ("other", "en", 9, 0), ("worst", "de", 1, 0)]
    posts = [
        {"post_id": name, "lang": lang, "popularity": liked, "created_at": NOW - datetime.timedelta(days=days)}
        for name, lang, liked, days in given
    ]
    catalog = write(tmp_path, posts, 1)
    german = pa.array(["de"])
    for wanted, expected in (
        (Preferences(), ["old", "new", "worst", "other"]),
        (Preferences(half_life_days=10, now=NOW), ["new", "old", "worst", "other"]),
    ):
        ranked = popular_posts.popular(
            german, catalog, 4, eligibility=Eligibility(), exclusions=Exclusions.none(), preferences=wanted
        )
        assert lists_of(ranked, 1) == [expected]


def test_no_posts_give_no_lists(tmp_path: Path) -> None:
    catalog = write(tmp_path, [], 1)
    ranked = popular_posts.popular(
        pa.array(["de", None]), catalog, 4, eligibility=Eligibility(), exclusions=Exclusions.none()
    )
    assert lists_of(ranked, 2) == [[], []]

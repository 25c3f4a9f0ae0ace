"""Users of the demo world: what they like, what they say of themselves and what they did in 30 days."""

import dataclasses
import datetime
from typing import Any

import numpy as np

from pipelines.demo_world.posts import LAST_DAY, Post
from pipelines.demo_world.words import HASHTAGS, LANGUAGE_SHARES, LANGUAGES, TOPICS, WORDS, draw, sentence

KINDS = ("view", "like", "repost", "bookmark", "reply")
KIND_SHARES = (0.45, 0.32, 0.08, 0.1, 0.05)
OFF_TOPIC = 0.1  # share of the posts a user meets that are not of the user's topics
MAIN_SHARE = 0.75  # what a user of two topics meets of the first one, of what is of both
# What is known of a user, and how many are so. No "row" means: only seen in interactions.
PROFILES = {
    "nothing": 0.05,  # a row without interests, no interactions
    "interests": 0.10,  # no interactions
    "history": 0.10,  # a row without interests
    "no_row": 0.08,
    "both": 0.67,
}


@dataclasses.dataclass(frozen=True)
class User:
    """A user as written to the input, the user's topics (the main one first; none where nothing is known) and what is
    known."""

    row: dict[str, Any]
    tastes: tuple[str, ...]
    profile: str

    @property
    def user_id(self) -> str:
        return str(self.row["user_id"])

    @property
    def has_history(self) -> bool:
        return self.profile in ("history", "no_row", "both")


def author_topics(num_users: int) -> dict[str, str]:
    """The users who also write posts, a quarter of all, with the topic each mostly writes about."""
    return {user_id(index): TOPICS[index % len(TOPICS)] for index in range(num_users // 4)}


def user_id(index: int) -> str:
    return f"u{index:04d}"


def make_users(seed: int, count: int) -> list[User]:
    """`count` users with one or two topics each; authors most like the topic that they write about, and one more."""
    order = np.random.default_rng([seed, 3]).permutation(count)
    bounds = np.cumsum(list(PROFILES.values())) * count
    profiles = np.array(list(PROFILES))[np.searchsorted(bounds, order + 0.5)]
    authors = author_topics(count)
    return [_user(seed, index, str(profiles[index]), authors) for index in range(count)]


def _user(seed: int, index: int, profile: str, authors: dict[str, str]) -> User:
    rng = np.random.default_rng([seed, 4, index])
    lang = str(rng.choice(LANGUAGES, p=LANGUAGE_SHARES))
    row: dict[str, Any] = {"user_id": user_id(index), "lang": lang}
    if profile == "nothing":
        return User(row, (), profile)
    own = authors.get(row["user_id"], TOPICS[index % len(TOPICS)])
    other = str(rng.choice([topic for topic in TOPICS if topic != own]))
    tastes = (own, other) if row["user_id"] in authors or rng.random() < 0.4 else (own,)
    if profile in ("interests", "both"):
        words = [word for topic in sorted(tastes) for word in draw(rng, WORDS[topic][lang], 3)]
        row["interests"] = words + [draw(rng, HASHTAGS[topic])[0] for topic in sorted(tastes) if rng.random() < 0.5]
        if rng.random() < 0.6:
            row["bio"] = sentence(rng, min(tastes), lang)
    if rng.random() < 0.12:
        blocked = [author for author, topic in authors.items() if topic not in tastes]
        row["blocked_authors"] = [str(author) for author in rng.choice(blocked, min(2, len(blocked)), replace=False)]
    if rng.random() < 0.1:
        row["followers"] = int(rng.integers(5_000))  # not a field that fusefeed knows
    return User(row, tastes, profile)


def make_interactions(seed: int, users: list[User], posts: list[Post]) -> list[dict[str, Any]]:
    """Interactions of the last 30 days, oldest first: user_id, post_id, kind, created_at (datetime)."""
    rng = np.random.default_rng([seed, 5])
    popularity = rng.lognormal(0, 0.7, len(posts))
    rows = [row for user in users if user.has_history for row in _history(seed, user, posts, popularity)]
    return sorted(rows, key=lambda row: (row["created_at"], row["user_id"], row["post_id"], row["kind"]))


def _history(seed: int, user: User, posts: list[Post], popularity: np.ndarray) -> list[dict[str, Any]]:
    rng = np.random.default_rng([seed, 6, int(user.user_id[1:])])
    allowed = np.array([_may_meet(user, post) for post in posts])
    topics = np.array([post.topic for post in posts])
    liked = np.isin(topics, user.tastes)
    own_language = np.array([post.row.get("lang") == user.row["lang"] for post in posts])
    weights = popularity * np.where(own_language, 2.5, 1.0) * allowed
    # At most a quarter of what there is of a topic: the rest is what there is to recommend.
    most = int((allowed & (topics == user.tastes[0])).sum() / 4 / (MAIN_SHARE if len(user.tastes) > 1 else 1))
    num_posts = int(np.clip(6 + rng.geometric(1 / 14), 7, max(7, most)))
    num_strays = int(rng.binomial(num_posts, OFF_TOPIC))
    num_lesser = round((1 - MAIN_SHARE) * (num_posts - num_strays)) if len(user.tastes) > 1 else 0
    num_main = num_posts - num_strays - num_lesser
    parts = ((topics == user.tastes[0], num_main), (topics == user.tastes[-1], num_lesser), (~liked, num_strays))
    rows: list[dict[str, Any]] = []
    for wanted, number in parts:
        share = weights * wanted
        number = min(number, int((share > 0).sum()))
        if not number:
            continue
        for place in rng.choice(len(posts), number, replace=False, p=share / share.sum()):
            rows += _meeting(rng, user, posts[int(place)], on_topic=bool(liked[place]))
    return rows


def _may_meet(user: User, post: Post) -> bool:
    author = post.row["author_id"]
    return author != user.user_id and author not in user.row.get("blocked_authors", ())


def _meeting(rng: np.random.Generator, user: User, post: Post, on_topic: bool) -> list[dict[str, Any]]:
    """One or two interactions of a user with a post: seen, then liked, say; half of the off-topic ones hidden."""
    kinds = [str(rng.choice(KINDS, p=KIND_SHARES))]
    if kinds[0] != "view" and rng.random() < 0.5:
        kinds.insert(0, "view")
    if not on_topic and rng.random() < 0.5:
        kinds = ["hide"]
    time = max(post.created_at, LAST_DAY - datetime.timedelta(days=30))
    left = (LAST_DAY + datetime.timedelta(hours=23) - time).total_seconds()
    time += datetime.timedelta(seconds=int(min(rng.exponential(4 * 86_400) + 60, rng.uniform(0.5, 0.99) * left)))
    base = {"user_id": user.user_id, "post_id": post.post_id}
    return [
        base | {"kind": kind, "created_at": time + datetime.timedelta(seconds=20 * step)}
        for step, kind in enumerate(kinds)
    ]

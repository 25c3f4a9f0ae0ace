"""Posts of the demo world: who says what in which language, with which media files."""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.demo_world.clips import clip_file
from pipelines.demo_world.pictures import picture_file
from pipelines.demo_world.tones import tone_file
from pipelines.demo_world.words import LANGUAGE_SHARES, LANGUAGES, TOPICS, UNSPACED, hashtags, sentence, topic_words

LAST_DAY = datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC)
DAYS = 40  # the posts' days; interactions are of the last 30
# What a post consists of, and how many do. The last kind has text and, by chance, media of every kind.
FORMS = {"repost": 0.05, "nothing": 0.015, "picture": 0.08, "clip": 0.025, "tone": 0.025, "text": 0.805}
# How probable a picture, a clip and a tone are beside a text.
BESIDE_TEXT = {"picture": 0.64, "clip": 0.09, "tone": 0.11}
KINDS = {"picture": ("image", "images"), "clip": ("video", "clips"), "tone": ("audio", "tones")}
_MAKERS = {"picture": picture_file, "clip": clip_file, "tone": tone_file}


@dataclasses.dataclass
class Post:
    """A post as it is written to the input, the files its media point to (path -> bytes), and what it is about."""

    row: dict[str, Any]
    topic: str
    created_at: datetime.datetime
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)

    @property
    def post_id(self) -> str:
        return str(self.row["post_id"])


def make_posts(seed: int, count: int, author_topics: dict[str, str]) -> list[Post]:
    """`count` posts, oldest first, as many of each topic as of any other, by authors who mostly keep to their topic."""
    rng = np.random.default_rng([seed, 1])
    topics = rng.permutation(np.resize(TOPICS, count))
    seconds = np.sort(rng.choice(DAYS * 86_400, count, replace=False))
    forms = rng.permutation(np.repeat(list(FORMS), _shares(tuple(FORMS.values()), count)))
    posts: list[Post] = []
    for index in range(count):
        created_at = LAST_DAY - datetime.timedelta(days=DAYS) + datetime.timedelta(seconds=int(seconds[index]))
        posts.append(_post(seed, index, str(topics[index]), str(forms[index]), created_at, author_topics, posts))
    return posts


def _shares(shares: Sequence[float], count: int) -> np.ndarray:
    """Whole numbers as near to `shares` of `count` as rounding down allows; the last takes the rest."""
    numbers = (np.array(shares) * count).astype(int)
    numbers[-1] += count - numbers.sum()
    return numbers


def _post(
    seed: int,
    index: int,
    topic: str,
    form: str,
    created_at: datetime.datetime,
    author_topics: dict[str, str],
    earlier: list[Post],
) -> Post:
    rng = np.random.default_rng([seed, 2, index])
    lang = str(rng.choice(LANGUAGES, p=LANGUAGE_SHARES))
    at_home = [author for author, own in author_topics.items() if own == topic]
    author = str(rng.choice(at_home if at_home and rng.random() < 0.85 else list(author_topics)))
    row: dict[str, Any] = {"post_id": f"p{index:05d}", "author_id": author, "created_at": created_at.isoformat()}
    post = Post(row, topic, created_at)
    same = [other for other in earlier if other.topic == topic and other.row.get("text")]
    if form == "repost":
        # Some originals are gone, as in every export.
        known = same and rng.random() > 0.08
        row["repost_of"] = str(rng.choice([other.post_id for other in same])) if known else "p-deleted"
        return post
    if form in KINDS:
        _add_media(rng, post, form, lang)
    if form == "text":
        _add_text(rng, post, lang, same)
        for maker, probability in BESIDE_TEXT.items():
            if rng.random() < probability:
                _add_media(rng, post, maker, lang)
    if rng.random() < 0.04:
        row |= {"sensitive": True, "labels": ["graphic"]}
    if rng.random() < 0.05:
        row["client"] = "web"  # not a field that fusefeed knows
    if rng.random() < 0.02:
        row["geo"] = {"lat": 48.1, "lon": 11.6}
    return post


def _add_text(rng: np.random.Generator, post: Post, lang: str, same: list[Post]) -> None:
    """Text, hashtags (in the text or in their own field) and sometimes what the post replies to."""
    text, tags = sentence(rng, post.topic, lang), hashtags(rng, post.topic)
    if rng.random() < 0.5:
        text = " ".join([text, *(f"#{tag}" for tag in tags)])
    elif tags:
        post.row["hashtags"] = tags
    post.row |= {"text": text, "lang": lang}
    if same and rng.random() < 0.12:
        post.row["reply_to"] = str(rng.choice([other.post_id for other in same]))


def _add_media(rng: np.random.Generator, post: Post, maker: str, lang: str) -> None:
    """A media file of the post's topic (two pictures now and then), some with a text for those who cannot see it."""
    kind, folder = KINDS[maker]
    for number in range(2 if maker == "picture" and rng.random() < 0.08 else 1):
        ending, data = _MAKERS[maker](rng, post.topic)
        name = f"{post.post_id}-ジャズ" if post.topic == "jazz" and rng.random() < 0.1 else f"{post.post_id}-{number}"
        uri = f"{folder}/{name}.{ending}"
        entry = {"kind": kind, "uri": uri}
        if rng.random() < 0.25:
            words = topic_words(rng, post.topic, lang, 3, stray=0.05)
            entry["alt"] = ("" if lang in UNSPACED else " ").join(words)
        post.files[uri] = data
        post.row.setdefault("media", []).append(entry)

"""Data made in code, the same every time: texts, posts, interactions, users and fused vectors, as Arrow tables."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

RUN_DATE = "2026-01-31"
VOCABULARY = 60_000
TOPICS = 50
CHUNK = 100_000
_START = 1_767_225_600_000_000  # 2026-01-01 in microseconds
_MONTH = 30 * 86_400 * 1_000_000
_SYLLABLES = """
ka lo mi ne ru sa to vi xe yo ba du fe gi ho ju zé на со ра стре cla bro tion ment ing er plu qua sch
""".split()  # noqa: SIM905


def vocabulary(num_words: int = VOCABULARY) -> pa.StringArray:
    """Distinct words of two to four syllables, some in other letters than ASCII."""
    base = len(_SYLLABLES)
    words = []
    for number in range(num_words):
        syllables, left = [], number + base
        while left:
            left, digit = divmod(left, base)
            syllables.append(_SYLLABLES[digit])
        words.append("".join(syllables))
    return pa.array(words)


def zipf(random: np.random.Generator, num_draws: int, num_values: int, exponent: float = 1.05) -> np.ndarray:
    """Draws of 0..num_values-1, the small ones often: probability ~ 1 / (rank + 2.7)^exponent (Mandelbrot's form)."""
    shares = np.cumsum(1 / (np.arange(num_values) + 2.7) ** exponent)
    return np.searchsorted(shares, random.random(num_draws) * shares[-1]).astype(np.int64)


def texts(random: np.random.Generator, topics: np.ndarray) -> pa.StringArray:
    """A text for each topic: 5 to 20 words, half of them from the topic's own part of the vocabulary."""
    lengths = random.integers(5, 21, len(topics))
    ranks = zipf(random, int(lengths.sum()), VOCABULARY)
    topical = random.random(len(ranks)) < 0.5
    spread = np.repeat(topics, lengths)
    ranks[topical] = (ranks[topical] * TOPICS + spread[topical]) % VOCABULARY
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    words = vocabulary().take(pa.array(ranks))
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), words), " ")
    ends = pa.array([" ok.", "!\n", ' "quoted"', " 🎉", " https://example.org/a?b=1"])
    return pc.binary_join_element_wise(joined, ends.take(pa.array(random.integers(0, len(ends), len(topics)))), "")


def ids(prefix: str, numbers: np.ndarray) -> pa.StringArray:
    """Ids like p0000012."""
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 7, "0")
    return pc.binary_join_element_wise(pa.scalar(prefix), digits, "")


def posts(num_posts: int, seed: int = 0) -> Iterator[pa.Table]:
    """post_id, author_id, created_at, text, lang and hashtags, in tables of CHUNK rows."""
    for start in range(0, num_posts, CHUNK):
        random = np.random.default_rng([seed, start])
        size = min(CHUNK, num_posts - start)
        topics = random.integers(0, TOPICS, size)
        times = pa.array(_START + random.integers(0, _MONTH, size), pa.timestamp("us", tz="UTC"))
        tags = vocabulary(TOPICS * 4).take(pa.array(topics * 4 + random.integers(0, 4, size)))
        offsets = pa.array(np.arange(size + 1, dtype=np.int32))
        yield pa.table(
            {
                "post_id": ids("p", np.arange(start, start + size)),
                "author_id": ids("a", zipf(random, size, max(1, num_posts // 10), 0.8)),
                "created_at": times,
                "text": texts(random, topics),
                "lang": pa.array(["en", "fr", "uk"]).take(pa.array(topics % 3)),
                "hashtags": pa.ListArray.from_arrays(offsets, tags),
            }
        )


def write_posts_jsonl(path: Path, num_posts: int) -> None:
    """Posts as one JSONL file."""
    with open(path, "wb") as file:
        for table in posts(num_posts):
            file.write("\n".join(_json_lines(table)).encode() + b"\n")


def _json_lines(table: pa.Table) -> list[str]:
    text = table["text"]
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n")):
        text = pc.replace_substring(text, plain, escaped)
    pieces: list[pa.ChunkedArray | pa.Scalar] = []
    for name, column in (
        ("post_id", table["post_id"]),
        ("author_id", table["author_id"]),
        ("created_at", pc.strftime(table["created_at"], "%Y-%m-%dT%H:%M:%SZ")),
        ("text", text),
        ("lang", table["lang"]),
    ):
        pieces += [pa.scalar(f'{"," if pieces else "{"}"{name}":"'), column, pa.scalar('"')]
    tags = pc.list_element(table["hashtags"], 0)
    pieces += [pa.scalar(',"hashtags":["'), tags, pa.scalar('"],"sensitive":false}')]
    lines: list[str] = pc.binary_join_element_wise(*pieces, "").to_pylist()
    return lines


def write_posts_table(directory: Path, num_posts: int, rows_per_part: int = 50_000) -> None:
    """Posts as the canonical table that ingest writes."""
    from transforms.tables import parquet, schemas

    part = 0
    for table in posts(num_posts):
        block = parquet.to_block(table.append_column("sensitive", pa.repeat(False, table.num_rows)))
        for start in range(0, block.num_rows, rows_per_part):
            path = directory / f"part-{part:05d}.parquet"
            parquet.write_file(str(path), block.slice(start, rows_per_part), schemas.POSTS)
            part += 1


def interactions(num_rows: int, num_users: int, num_posts: int, seed: int = 0) -> pa.Table:
    """Users meet posts, mostly of the topic that is theirs (posts * 7 % TOPICS stands for it); some do it often."""
    random = np.random.default_rng([seed, 1])
    users = zipf(random, num_rows, num_users, 0.5)
    found = zipf(random, num_rows, num_posts, 0.7)
    found = np.where(random.random(num_rows) < 0.6, (found // TOPICS * TOPICS + users % TOPICS) % num_posts, found)
    kinds = pa.DictionaryArray.from_arrays(
        pa.array(random.choice(3, num_rows, p=[0.7, 0.2, 0.1]).astype(np.int8)), ["view", "like", "repost"]
    )
    return pa.table(
        {
            "user_id": ids("u", users),
            "post_id": ids("p", found),
            "kind": kinds.cast(pa.string()),
            "created_at": pa.array(_START + random.integers(0, _MONTH, num_rows), pa.timestamp("us", tz="UTC")),
        }
    )


def write_users(path: Path, num_users: int) -> None:
    """Users with one word of interest each, as Parquet."""
    words = vocabulary(TOPICS * 4).take(pa.array(np.arange(num_users) % TOPICS * 4))
    offsets = pa.array(np.arange(num_users + 1, dtype=np.int32))
    interests = pa.ListArray.from_arrays(offsets, words)
    pq.write_table(pa.table({"user_id": ids("u", np.arange(num_users)), "interests": interests}), path)


def unit_vectors(num_rows: int, width: int, seed: int) -> np.ndarray:
    """[num_rows, width] float32 around some centers, of about unit length, like embeddings of posts on topics."""
    random = np.random.default_rng([seed, 2])
    centers = np.random.default_rng(0).standard_normal((TOPICS, width)).astype(np.float32)
    rows = random.standard_normal((num_rows, width), np.float32)
    rows += centers[random.integers(0, TOPICS, num_rows)]
    return rows / np.sqrt(2 * width).astype(np.float32)

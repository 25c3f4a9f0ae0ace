import random

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from transforms.text import token_counts, tokenizer

# What is read by different patterns, glued together and set apart in every way.
PIECES = """
# @ :// www. https:// . & _ < #Tag #tag #ClimateChange #climatechange
a B 12 12345 é 日 本 ไ 한 국 👍 🏽 \u0301 \u200d ﷺ ´ x@y.z ＃
""".split()  # noqa: SIM905
SPACES = [" ", "\n", "\t", "\x0b", "\x0c", "\x1c", "\x85", "\u3000", "\u2028", "", ""]


def _texts(number: int, seed: int) -> list[str | None]:
    choose = random.Random(seed)
    texts: list[str | None] = [
        "".join(choose.choice(PIECES) + choose.choice(SPACES) for _ in range(choose.randint(0, 30)))
        for _ in range(number)
    ]
    texts[::11] = [None] * len(texts[::11])
    return texts


def _lists(number: int, seed: int) -> list[list[str | None] | None]:
    choose, values = random.Random(seed), _texts(3 * number, seed)
    lists: list[list[str | None] | None] = [choose.sample(values, choose.randint(0, 3)) for _ in range(number)]
    lists[::7] = [None] * len(lists[::7])
    return lists


def _expected(texts: list[str | None], *lists: list[list[str | None] | None]) -> list[dict[str, int] | None]:
    return [tokenizer.count_terms(*row) or None for row in zip(texts, *lists, strict=True)]


def _found(columns: tuple[pa.ListArray, pa.ListArray]) -> list[dict[str, int] | None]:
    rows = list(zip(*(column.to_pylist() for column in columns), strict=True))
    assert all(terms is None or terms == sorted(terms) for terms, _ in rows)
    return [terms and dict(zip(terms, counts, strict=True)) for terms, counts in rows]


@pytest.mark.parametrize("max_rows", [5, 1000])
def test_a_block_is_read_like_its_posts_one_by_one(max_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_counts, "MAX_ROWS", max_rows)
    texts, hashtags, alts = _texts(600, 1), _lists(600, 2), _lists(600, 3)
    lists = [pa.array(column, pa.list_(pa.string())) for column in (hashtags, alts)]
    columns = token_counts.text_terms(pa.array(texts, pa.string()), *lists)
    assert _found(columns) == _expected(texts, hashtags, alts)
    sliced = token_counts.text_terms(pa.array(texts, pa.string())[7:300], *(column[7:300] for column in lists))
    assert _found(sliced) == _found(columns)[7:300]


def test_limits_hold_in_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_counts, "MAX_BYTES", 1000)
    many = " ".join(f"w{number}" for number in range(2 * tokenizer.MAX_TERMS))
    texts = [many, "short", "ab " * tokenizer.MAX_CHARACTERS, None, "日" * tokenizer.MAX_CHARACTERS]
    hashtags: list[list[str | None] | None] = [["Tag"], None, ["Tag"], [many, "Tag"], []]
    columns = token_counts.text_terms(pa.array(texts), pa.array(hashtags, pa.list_(pa.string())))
    assert _found(columns) == _expected(texts, hashtags)
    assert pc.list_value_length(columns[0]).to_pylist()[0] == tokenizer.MAX_TERMS


def test_no_posts_have_no_terms() -> None:
    terms, counts = token_counts.text_terms(pa.array([], pa.string()))
    assert (len(terms), terms.type, counts.type) == (0, pa.list_(pa.string()), pa.list_(pa.int32()))

import unicodedata

import pyarrow as pa
import pytest

from transforms.text import tokenizer
from transforms.text.token_counts import text_terms
from transforms.text.tokenizer import count_terms


def _terms(*arguments: object) -> set[str]:
    return set(count_terms(*arguments))  # type: ignore[arg-type]


def test_terms_are_distinct_sorted_and_counted() -> None:
    terms, counts = text_terms(
        pa.array(["The cat and THE dog", None, "!!", ""]),
        pa.array([None, None, ["Cats"], None], pa.list_(pa.string())),
        pa.array([["a dog"], None, None, []], pa.list_(pa.string())),
    )
    assert terms.type == pa.list_(pa.string()) and counts.type == pa.list_(pa.int32())
    assert terms.to_pylist() == [["and", "cat", "dog", "the"], None, ["#cats", "cats"], None]
    assert counts.to_pylist() == [[1, 1, 2, 2], None, [1, 1], None]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Café NAÏVE Ærø İstanbul STRASSE straße", {"cafe", "naive", "aero", "istanbul", "strasse"}),
        ("ὈΔΥΣΣΕΎΣ Οδυσσευς", {"οδυσσευσ"}),
        ("йога Ёлка", {"йога", "ёлка"}),
        ("हिन्दी में लिखा", {"हिन्दी", "में", "लिखा"}),
        ("السَّلامُ عليكـم أحمد", {"السلام", "عليكم", "احمد"}),
        ("שָׁלוֹם", {"שלום"}),
        ("𝓱𝓮𝓵𝓵𝓸 ﬁsh", {"hello", "fish"}),
        ("東京は", {"東", "京", "東京", "京は"}),
        ("タワー", {"タワ", "ワー"}),
        ("ﾊﾟ", {"パ"}),
        ("ไทย", {"ไท", "ทย", "ไทย"}),
        ("ລາວ", {"ລາ", "າວ", "ລາວ"}),
        ("မြန်မာ", {"မြန်", "န်မာ", "မြန်မာ"}),
        ("ខ្មែរ", {"ខ្មែ", "មែរ", "ខ្មែរ"}),
        ("한국어는", {"한국어는", "한국", "국어", "어는"}),
        ("mp3 in 2024, ٣٤ cats, 1234567 times", {"mp3", "in", "2024", "34", "cats", "<number>", "times"}),
        ("see HTTPS://www.Example.com:80/a?b=c and www.x.org", {"see", "url:example.com", "and", "url:x.org"}),
        ("@bob@mastodon.social or a.b@c.de", {"<mention>", "or"}),
        (
            "#ClimateChange #snake_case C# #1",
            {"#climatechange", "climate", "change", "#snake_case", "snake", "case", "1"},
        ),
        ("#日本 ＃日本", {"#日本", "日", "本", "日本"}),
        ("👍🏽👍 👩🏽‍💻🇩🇪🇫🇷 ❤️", {"👍", "👩‍💻", "🇩🇪", "🇫🇷", "❤"}),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿", {"🏴󠁧󠁢󠁥󠁮󠁧󠁿"}),
    ],
)
def test_every_script_has_its_terms(written: str, expected: set[str]) -> None:
    found = _terms(written)
    assert found == {unicodedata.normalize("NFC", term) for term in expected}
    # However the input was normalized, the terms are the same.
    assert _terms(unicodedata.normalize("NFD", written)) == found


def test_plain_words_are_read_alike_beside_what_is_not_plain() -> None:
    plain = "The quick brown fox 42 jumps over 123456 lazy_dogs"
    alone = count_terms(plain)
    assert alone == {
        **dict.fromkeys(["the", "quick", "brown", "fox", "42", "jumps", "over", "<number>", "lazy", "dogs"], 1)
    }
    for other, added in (("日", {"日": 1}), ("#go", {"#go": 1, "go": 1}), ("😀", {"😀": 1})):
        assert count_terms(f"{plain} {other}") == alone | added


def test_a_tag_in_the_text_and_in_the_list_counts_once() -> None:
    assert count_terms("I like #SciFi", ["scifi", "#SciFi", "Space Opera", None, "#"]) == {
        "#scifi": 1, "sci": 1, "fi": 1, "like": 1, "#spaceopera": 1, "space": 1, "opera": 1
    }  # fmt: skip


def test_interests_and_bio_of_a_user_meet_the_terms_of_posts() -> None:
    post = _terms("Growing tomatoes #UrbanGardening 🍅")
    user = _terms("I grow tomatoes", ["urban gardening", "🍅"])
    assert {"#urbangardening", "urban", "gardening", "tomatoes", "🍅"} <= post & user


@pytest.mark.parametrize(
    "written",
    ["\ud800 lone \udfff", "\x00\x01\x1b[31m", "a\u0300" * 5000, "\u202eabc\u2066", "👩\u200d" * 3000, "#" * 5000,
     "@" * 5000, "a" * 20_000, "ก" + "\u0e34" * 5000, "www." * 3000, "x@" * 5000, "é" + "a" * 19_000,
     "#" + "ab" * 9000],
)  # fmt: skip
def test_hostile_texts_give_few_short_clean_terms(written: str) -> None:
    terms, _ = text_terms(pa.array(["seed"]), pa.array([[written.encode("utf-8", "ignore").decode()]]))
    assert len(terms) == 1
    for term in count_terms(written, [written], [written]):
        assert 0 < len(term) <= 2 * tokenizer.MAX_TAG
        assert not any(unicodedata.category(c) in ("Cc", "Cs") or c.isspace() for c in term)


def test_a_post_has_a_bounded_number_of_terms() -> None:
    assert len(count_terms(" ".join(f"w{i}" for i in range(5000)))) == tokenizer.MAX_TERMS
    assert "end" not in count_terms("a " * tokenizer.MAX_CHARACTERS + "end")
    assert "end" not in count_terms("a " * tokenizer.MAX_CHARACTERS, None, ["end"])

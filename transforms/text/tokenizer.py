"""Terms of texts in any language: words, hashtags, emoji, and character n-grams where a script has no white space.

Rules by script, independent of the language:

  * Text is NFKC-normalized and case folded. Diacritics are removed from Latin and Greek letters (people omit them when
    typing, and both spellings have to match) and from Arabic and Hebrew ones (with the tatweel), but not in scripts
    where a mark makes another letter (Cyrillic й, Japanese が, the vowels of Indic scripts).
  * Words have 2 to 40 characters. Hangul words also give their character bigrams, as particles are attached to them.
  * Han, kana, Thai, Lao, Khmer and Myanmar: Han characters alone, pairs of Han and kana; pairs and triples of the
    others' characters with their marks.
  * `#ClimateChange` gives `#climatechange` and the words `climate` and `change`; the same tag in the text and in the
    list of hashtags counts once.
  * A URL gives `url:HOST`, a mention or e-mail address `<mention>`, a number of more than four digits `<number>`;
    shorter ones stay (years), in ASCII digits.
  * An emoji is a term: flags and joined sequences as a whole, without skin tones and presentation marks.

Terms have no white space and no control characters. Only the first MAX_CHARACTERS of a post and its first MAX_TERMS
distinct terms are used.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np

MAX_CHARACTERS = 20_000
MAX_TERMS = 1_000
MAX_WORD = 40
MAX_TAG = 100

URL_TERM = "url:"
MENTION = "<mention>"
NUMBER = "<number>"

# A term, or all terms of a hashtag.
Read = str | tuple[str, ...]


def count_terms(
    text: str | None, hashtags: Iterable[str | None] | None = None, alts: Iterable[str | None] | None = None
) -> dict[str, int]:
    """Term counts of one post, in order of first occurrence."""
    found: dict[str, int] = {}
    budget = MAX_CHARACTERS
    tags: set[str] = set()
    for piece in (text, *(alts or ())):
        if piece and budget > 0:
            _add(found, read_text(piece[:budget]), tags)
            budget -= len(piece)
    for tag in hashtags or ():
        if tag and budget > 0:
            _add(found, (read_tag(tag),), tags)
            budget -= min(len(tag), MAX_TAG)
    return found


def _add(found: dict[str, int], read: Iterable[Read], tags: set[str]) -> None:
    for one in read:
        if isinstance(one, str):
            _count(found, one)
        elif one and one[0] not in tags:
            tags.add(one[0])
            for term in one:
                _count(found, term)


def _count(found: dict[str, int], term: str) -> None:
    if term in found:
        found[term] += 1
    elif len(found) < MAX_TERMS:
        found[term] = 1


def read_text(text: str) -> list[Read]:
    """Terms of a text, and the result of `read_tag` for each hashtag in it.

    No pattern matches across white space, so a text may be split there and read in pieces. ASCII text that is neither a
    URL, a mention nor a hashtag needs only one fast pattern, also next to text that is.
    """
    found: list[Read] = []

    def take(match: re.Match[str]) -> str:
        found.extend(_read_tokens(match.group()))
        return " "

    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    if _HAS_SPECIAL(text):
        text = _special().sub(take, text)
    if not text.isascii():
        text = _NOT_ASCII.sub(take, text)
    plain = _PLAIN_WORDS(text.lower())
    if _HAS_LONG(text):
        plain = [NUMBER if word.isdigit() and len(word) > 4 else word for word in plain if len(word) <= MAX_WORD]
    return found + plain if found else plain


_PLAIN_WORDS = re.compile(r"[a-z0-9]{2,}|[0-9]").findall
_HAS_LONG = re.compile(r"[0-9]{5}|[A-Za-z0-9]{41}").search
_HAS_SPECIAL = re.compile(r"[@#]|://|[wW]{3}\.").search
# A stretch without white space that is not all ASCII; the look-behind keeps the search linear.
_NOT_ASCII = re.compile(r"(?<![!-~])[!-~]*[^\x00-\x7f]\S*")


def _read_tokens(text: str) -> Iterator[Read]:
    for match in _token().finditer(text):
        kind = match.lastgroup
        token = match.group()
        if kind == "word":
            yield from words(token)
        elif kind == "tag":
            yield read_tag(token)
        elif kind == "url":
            yield URL_TERM + _host(token)
        elif kind == "mention":
            yield MENTION
        else:
            yield fold_emoji(token)


def read_tag(tag: str) -> tuple[str, ...]:
    """`#tag` and its words, which count once a post; () if there are none."""
    return _tag_terms(tag[:MAX_TAG])


@functools.lru_cache(maxsize=16_384)
def _tag_terms(tag: str) -> tuple[str, ...]:
    tag = unicodedata.normalize("NFKC", tag.strip().lstrip("#＃"))
    joined = "".join(match.group() for match in _tag_part().finditer(fold(tag)))
    if not joined:
        return ()
    terms = ["#" + joined]
    for match in _token().finditer(_CAMEL.sub(r"\1 \2", tag).replace("_", " ")):
        if match.lastgroup == "word":
            terms.extend(words(match.group()))
        elif match.lastgroup == "emoji":
            terms.append(fold_emoji(match.group()))
    return tuple(terms)


_CAMEL = re.compile(r"([^\W\d_A-Z]|\d)([A-Z])")


def _host(url: str) -> str:
    host = url.split("://")[-1].split("/")[0].split("?")[0].split("@")[-1].split(":")[0].casefold()
    return re.sub(r"[^\w.-]", "", host.removeprefix("www."))[:MAX_WORD].strip(".")


def words(token: str) -> Iterator[str]:
    """The terms of one unbroken token (letters, marks and digits, NFKC)."""
    token = fold(token)
    if token.isdecimal():
        yield _fold_number(token)
        return
    if token.isascii():
        if 2 <= len(token) <= MAX_WORD:
            yield token
        return
    for match in _run().finditer(token):
        run = match.group()
        kind = match.lastgroup
        if kind == "east":
            yield from (character for character in run if _HAN_CHARACTER(character))
            yield from (run[i : i + 2] for i in range(len(run) - 1))
            if len(run) == 1 and not _HAN_CHARACTER(run):
                yield run
        elif kind == "south":
            clusters = _cluster().findall(run)
            yield from ("".join(clusters[i : i + 2]) for i in range(max(1, len(clusters) - 1)))
            yield from ("".join(clusters[i : i + 3]) for i in range(len(clusters) - 2))
        elif len(run) <= MAX_WORD and (len(run) > 1 or "\uac00" <= run <= "\ud7a3"):
            yield run
            if len(run) > 2 and "\uac00" <= run[0] <= "\ud7a3":
                yield from (run[i : i + 2] for i in range(len(run) - 1))


def _fold_number(token: str) -> str:
    if len(token) > 4:
        return NUMBER
    return token if token.isascii() else "".join(str(unicodedata.decimal(digit)) for digit in token)


def fold(text: str) -> str:
    """The text case folded and without the diacritics that this module removes (see its docstring)."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKD", text.casefold())
    text = _LATIN_MARKS.sub(r"\1", text)
    text = _SEMITIC_MARKS.sub("", text)
    return unicodedata.normalize("NFC", text.translate(_LETTERS))


# Base letters of Latin and Greek with the marks behind them (NFKD).
_LATIN_MARKS = re.compile("([a-zæøłđıœ\u0370-\u03ff\u1f00-\u1fff])[\u0300-\u036f]+")
# Arabic vowel signs, hamza above and below, Quranic marks, the tatweel; Hebrew points and accents.
_SEMITIC_MARKS = re.compile("[\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")
# Letters that do not decompose but are typed without; Persian and Arabic forms of one letter.
_LETTERS = str.maketrans(
    {"æ": "ae", "ø": "o", "ł": "l", "đ": "d", "ı": "i", "œ": "oe", "ς": "σ"}
    | {"ی": "ي", "ى": "ي", "ک": "ك", "ة": "ه", "\u200c": "", "\u200d": "", "\ufe0e": "", "\ufe0f": ""}
)

_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_KANA = "\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_SOUTH = "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecd\u0edc-\u0edf\u1000-\u103f\u1050-\u109d\uaa60-\uaa7f\u1780-\u17d3"
_HAN_CHARACTER = re.compile(f"[{_HAN}]").match

# Pictographs. ©, ®, ™ and the digits of keycaps are none here.
_PICTURE = (
    "\u203c\u2049\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u25fe\u2600-\u27bf\u2934\u2935\u2b05-\u2b55\u3030\u303d"
    "\U0001f004-\U0001f0ff\U0001f170-\U0001f19a\U0001f201-\U0001f251\U0001f300-\U0001f3fa\U0001f400-\U0001faff"
)
_TONE = "\U0001f3fb-\U0001f3ff"
_FLAG = "\U0001f1e6-\U0001f1ff"
_UNIT = f"[{_PICTURE}][\ufe0e\ufe0f{_TONE}]*[\U000e0020-\U000e007f]{{0,8}}"
_EMOJI = f"[{_FLAG}]{{2}}|{_UNIT}(?:\u200d{_UNIT}){{0,8}}|[{_FLAG}{_TONE}]"
_TONES = re.compile(f"[\ufe0e\ufe0f{_TONE}]")


def fold_emoji(emoji: str) -> str:
    """An emoji without its skin tones and presentation marks (a tone alone stays)."""
    return _TONES.sub("", emoji) or emoji


_patterns: dict[str, re.Pattern[str]] = {}


def _pattern(name: str, source: str) -> re.Pattern[str]:
    """Compiles a pattern at its first use, with {mark} for all combining marks, which `\\w` does not match."""
    if name not in _patterns:
        _patterns[name] = re.compile(source.replace("{mark}", _marks()))
    return _patterns[name]


def _marks() -> str:
    points = [point for point in range(0x300, 0x1F000) if unicodedata.category(chr(point))[0] == "M"]
    marks = np.array(points)
    breaks = np.flatnonzero(np.diff(marks) > 1)
    starts = marks[np.concatenate([[0], breaks + 1])]
    ends = marks[np.concatenate([breaks, [len(marks) - 1]])]
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(starts, ends, strict=True))


_URL = r"(?P<url>(?:[hH][tT]{2}[pP][sS]?://|[wW]{3}\.)[^\s<>\"']+)"
_MENTION = r"(?P<mention>(?<![\w@])@\w[\w.-]*(?:@[\w.-]+)?|(?<![\w.+-])\w[\w.+-]*@\w[\w-]*\.[\w.-]+)"
_TAG = r"(?P<tag>(?<![\w#&])\#(?=\d*[^\W\d])(?:[\w{mark}]|[\u200c\u200d](?=\w))*)"


def _special() -> re.Pattern[str]:
    return _patterns.get("special") or _pattern("special", f"{_URL}|{_MENTION}|{_TAG}")


def _token() -> re.Pattern[str]:
    word = r"(?P<word>[^\W_](?:[^\W_]|[{mark}]|[\u0640\u200c\u200d](?=[^\W_]))*)"
    return _patterns.get("token") or _pattern("token", f"{_URL}|{_MENTION}|{_TAG}|(?P<emoji>{_EMOJI})|{word}")


def _tag_part() -> re.Pattern[str]:
    return _patterns.get("tag_part") or _pattern("tag_part", rf"[\w{{mark}}]+|{_EMOJI}")


def _run() -> re.Pattern[str]:
    """Stretches of one kind of script in a token: east (Han and kana), south (Thai to Khmer), any other."""
    return _patterns.get("run") or _pattern(
        "run", f"(?P<east>[{_HAN}{_KANA}]+)|(?P<south>[{_SOUTH}]+)|(?P<other>[^{_HAN}{_KANA}{_SOUTH}]+)"
    )


def _cluster() -> re.Pattern[str]:
    return _patterns.get("cluster") or _pattern("cluster", "[^{mark}][{mark}]{0,6}|[{mark}]{1,6}")

import doctest

import pytest

from pipelines.command_line import plain_text
from pipelines.command_line.plain_text import one_line


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[2J",  # clears the screen
        "\x1b]0;title\x07",
        "\x9b31m",  # the same sequences in one character
        "\r",
        "\n",
        "\x08" * 3,
        "\u202e",  # right to left override
        "\u2066",
        "\u200b",
        "\u2028",
        "\ud800",  # half a surrogate pair, which cannot be encoded
        "\U000e0041",  # an invisible tag
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_a_blank(hostile: str) -> None:
    shown = one_line(f"before{hostile}after")
    assert shown.isprintable() and shown.encode()
    assert shown.startswith("before ") and shown.endswith("after") and len(shown) == len(hostile) + 11


def test_words_of_all_scripts_stay() -> None:
    for text in ("Heute Kette 🎺", "هل يعرف أحد", "วันนี้เนย", "स्वाद", "トマト"):
        assert one_line(text) == text


def test_the_length_has_a_limit_however_long_the_text_is() -> None:
    assert one_line("x" * 10, 10) == "x" * 10
    assert one_line("x" * 11, 10) == "x" * 7 + "..."
    assert len(one_line("\x00" * 10_000_000)) == plain_text.MAX_CHARACTERS


def test_the_example_is_true() -> None:
    failed, attempted = doctest.testmod(plain_text)
    assert attempted and not failed

"""Text from outside the program, made safe to print at a terminal."""

import unicodedata

MAX_CHARACTERS = 1000
# Of a name, such as that of a method: they contain names of modalities, which come from the input.
NAME_CHARACTERS = 60


def one_line(value: str, max_characters: int = MAX_CHARACTERS) -> str:
    """At most so many characters of a text, with blanks for what a terminal would obey or hide.

    These are control characters (escape sequences begin with one), marks of direction, line breaks and characters
    that no standard defines (Unicode's categories C, Zl and Zp). A text that is cut ends with "...".

    Example:
      >>> one_line("red \\x1b[31malert", 10)
      'red  [3...'
    """
    start = value[: max_characters + 1]
    safe = "".join(" " if unicodedata.category(each)[0] == "C" or each in "\u2028\u2029" else each for each in start)
    return safe if len(safe) <= max_characters else safe[: max(max_characters - 3, 0)] + "..."

"""Languages of posts and users: the part of a tag that decides whether somebody can read a post."""

import pyarrow as pa
import pyarrow.compute as pc

# Language, then perhaps script, region and more (BCP 47); an underscore as in POSIX locales.
_TAG = r"^\s*(?P<primary>[A-Za-z]{2,3})(?:[-_].*)?\s*$"
# ISO 639-2: no language, several, one without a code, undetermined.
_NO_LANGUAGE = pa.array(["zxx", "mul", "mis", "und"])


def primary_language(lang: pa.Array) -> pa.Array:
    """The primary subtag in lower case, "pt" of "pt-BR" and of "PT_br": [n] string, null where no language is given."""
    found = pc.utf8_lower(pc.struct_field(pc.extract_regex(lang, _TAG), "primary"))
    return pc.if_else(pc.is_in(found, value_set=_NO_LANGUAGE), pa.scalar(None, pa.string()), found)

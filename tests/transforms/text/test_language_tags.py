import pyarrow as pa

from transforms.text.language_tags import primary_language


def test_the_primary_subtag_in_lower_case() -> None:
    told = ["en", "pt-BR", "PT_br", " de ", "zh-Hant-TW", "haw"]
    assert primary_language(pa.array(told)).to_pylist() == ["en", "pt", "pt", "de", "zh", "haw"]


def test_what_tells_no_language_is_null() -> None:
    told = [None, "", "und", "UND-x", "zxx", "mul", "e", "english", "1a", "e\nn"]
    assert primary_language(pa.array(told, pa.string())).to_pylist() == [None] * len(told)

import dataclasses
import datetime

import pytest

from pipelines import run
from pipelines.command_line.options import GROUPS, Options, UsageError, parse

STAGES = "all, ingest, extract, fuse, factorize, train, embed, recommend, validate, evaluate"


def _parse(*words: str) -> Options:
    return parse("run", "d", words)


def test_words_become_options() -> None:
    options = _parse("--posts", "a,b", "--media_root", "m", "n", "--k=3", "--include_seen", "--", "--runner=X", "--k=9")
    assert options.posts == "a,b"
    assert options.media_root == ("m", "n")
    assert options.k == 3 and options.include_seen and not options.include_sensitive
    assert options.beam_args == ("--runner=X", "--k=9")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pots", "x"], "unknown flag --pots, did you mean --posts?"),
        (["--quux"], "unknown flag --quux; flags of Beam come after --"),
        (["--post", "x"], "unknown flag --post, did you mean --posts?"),
        (["x"], "unexpected word 'x'; every flag begins with --"),
        (["--k", "0"], "--k must be at least 1, got 0"),
        (["--k", "10001"], "--k must be at most 10000, got 10001"),
        (["--k", "many"], "--k: invalid int value: 'many'"),
        (["--k"], "--k: expected one argument"),
        (["--diversity", "nan"], "--diversity must be at least 0, got nan"),
        (["--run_date", "2026-02-30"], "--run_date must be a date YYYY-MM-DD, got '2026-02-30'"),
        (["--run_date", "../x"], "--run_date must be a date YYYY-MM-DD, got '../x'"),
        (
            ["--run_date", "2026-01-02:2026-01-01"],
            "--run_date must not end before it begins, got '2026-01-02:2026-01-01'",
        ),
        (["--run_date", "2026-01-02:"], "--run_date must be a date YYYY-MM-DD, got ''"),
        (["--force", "train", "trian"], f"--force must be one of {STAGES}, got 'trian'"),
        (["--video_encoder", "keras"], "--video_encoder must be one of opencv, none, got 'keras'"),
        (["--image_encoder", "resnet"], "--image_encoder must be opencv, none or keras:PATH, got 'resnet'"),
    ],
)
def test_bad_words_are_named_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        _parse(*words)
    assert str(error.value) == message


def test_options_are_checked_however_they_are_made() -> None:
    assert [each.name for each in run.all_stages()] == STAGES.split(", ")[1:]
    with pytest.raises(ValueError, match="--latent must be at least 1, got 0"):
        Options(latent=0)
    with pytest.raises(ValueError, match="--seed must be at least 0, got -1"):
        dataclasses.replace(Options(), seed=-1)


def test_cold_posts_are_for_the_cold_split() -> None:
    assert Options(cold_posts="ids.txt", backtest_split="cold").cold_posts == "ids.txt"
    for others in ({}, {"backtest_split": "cold", "holdout": "t.csv"}):
        with pytest.raises(ValueError, match="--cold_posts needs --backtest_split cold"):
            Options(cold_posts="ids.txt", **others)


def test_every_flag_says_what_it_is_for() -> None:
    flags = [field for group in GROUPS for field in dataclasses.fields(group)]
    assert all(field.metadata["help"] for field in flags)
    assert [field.name for field in flags] == sorted({field.name for field in flags}, key=[f.name for f in flags].index)
    assert {field.name for field in flags} == {field.name for field in dataclasses.fields(Options)} - {"beam_args"}


def test_the_run_is_named_by_the_day() -> None:
    assert Options(run_date="2026-01-31").run_name == "2026-01-31"
    assert datetime.date.fromisoformat(Options().run_name)


def test_a_range_of_dates_names_a_run_a_day() -> None:
    assert _parse("--run_date", "2024-02-28:2024-03-01").run_names == ["2024-02-28", "2024-02-29", "2024-03-01"]
    assert _parse("--run_date", "2024-02-28").run_names == ["2024-02-28"]
    with pytest.raises(UsageError, match="--run_date must be one date here, got the range 2024-02-28:2024-03-01"):
        _ = _parse("--run_date", "2024-02-28:2024-03-01").run_name

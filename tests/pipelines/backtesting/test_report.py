import copy
import html.parser
from typing import Any

import pytest

from pipelines.backtesting import report

BAD = "<script>alert('x')</script>&\""


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.02}


def evaluation() -> dict[str, Any]:
    def method(mean: float) -> dict[str, Any]:
        measures = {name: interval(mean) for name in report.SHOWN}
        inside = {name: interval(mean / 2) for name in report.SLICE_MEASURES}
        return {
            "measures": measures,
            "lead": measures,
            "slices": {"warm posts": inside, f"language {BAD}": inside},
            "lists": {"coverage@10": 0.5, "gini@10": 0.25},
        }

    return {
        "run": "2026-01-31",
        "split": {
            "kind": "time",
            "fraction": 0.2,
            "cut": "2026-01-20T00:00:00+00:00",
            "interactions": {"train": 80_000, "held_out": 20_000, "of_unknown_users": 7},
        },
        "about": {"users": 1234, "targets": 9999, "eligible_posts": 777},
        "notes": [f"a note {BAD}"],
        "skipped": {"EASE": "too many posts", "kNN": BAD},
        "methods": {"popular": method(0.1), "fusefeed": method(0.2), f"content kNN ({BAD})": method(0.15)},
        "slices": {"warm posts": 1200, f"language {BAD}": 30, "cold posts": 0},
    }


def ablations() -> dict[str, Any]:
    """One part that is needed, one that is in the way, one that does nothing, each in two rankings."""

    def of(mean: float, lead: float | None) -> dict[str, Any]:
        found = {
            "users": 1234,
            "posts": 777,
            "measures": {name: interval(mean) for name in report.SLICE_MEASURES},
        }
        return found if lead is None else found | {"lead": {name: interval(lead) for name in report.SLICE_MEASURES}}

    return {
        name: {"warm": of(mean, lead), "cold": of(mean, lead)}
        for name, mean, lead in (
            ("fusefeed", 0.2, None),
            ("without text", 0.1, 0.1),
            (f"without {BAD}", 0.195, 0.005),
            ("no content block", 0.25, -0.05),
        )
    }


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(value: dict[str, Any]) -> Tags:
    tags = Tags()
    tags.feed(report.html(value))
    tags.close()
    assert tags.open == []
    return tags


def test_the_report_escapes_everything_and_needs_nothing_from_elsewhere() -> None:
    tags = parsed(evaluation())
    names = {tag for tag, _ in tags.seen}
    assert not names & {"script", "link", "img", "iframe", "object"}
    for _, attributes in tags.seen:
        assert not {"src", "href", "onload", "onclick"} & set(attributes)
    assert tags.text.count(BAD) >= 6
    assert "<script" not in report.html(evaluation())
    assert "url(" not in report.html(evaluation()) and "@import" not in report.html(evaluation())


def test_the_report_has_the_numbers_best_first() -> None:
    text = parsed(evaluation()).text
    assert text.index("fusefeed") < text.index("content kNN") < text.index("popular")
    assert "1,234 users, 9,999 posts to find of 777" in text
    assert "0.2000 0.1900 to 0.2200" in text
    assert "warm posts (1,200 users)" in text and "cold posts" not in text
    assert "EASE: too many posts" in text
    assert "Interactions: held out 20,000, of unknown users 7, train 80,000." in text


def test_the_ablations_are_sentences() -> None:
    found = evaluation() | {"ablations": ablations()}
    lines = [line for line in report.table(found).split("\n") if line.startswith("cold posts: ")]
    assert lines == [
        "cold posts: removing text lowers recall@20 by 0.100 (significant)",
        f"cold posts: removing {BAD} changes recall@20 by -0.005 (not significant)",
        "cold posts: removing the content block raises recall@20 by 0.050 (significant)",
    ]
    text = parsed(found).text
    assert text.count(lines[0]) == 1 and "warm: 777 posts, 1,234 users" in text
    assert "no content block0.2500 0.2400 to 0.2700" in text and "-0.0500 -0.0600 to -0.0300" in text
    assert "Ablations" not in parsed(evaluation()).text and report.findings({}) == []


def test_the_report_says_how_it_is_measured() -> None:
    text = parsed(evaluation()).text
    for source in ("McSherry and Najork 2008", "Cañamares, Castells and Moffat 2020", "Krichene and Rendle 2020"):
        assert source in text
    head = [f"{measure}@{k}" for measure in ("recall", "ndcg", "map", "hit_rate") for k in (10, 20, 50)]
    assert list(report.SHOWN) == [*head, "mrr@10"]


def test_the_table_is_aligned_and_says_what_was_left_out() -> None:
    lines = report.table(evaluation()).split("\n")
    assert lines[0].startswith("backtest (time split): held out is all after 2026-01-20T00:00:00+00:00; 1,234 users")
    assert lines[1].split() == ["method", *report.ON_SCREEN]
    assert [line.split()[0] for line in lines[2:5]] == ["fusefeed", "content", "popular"]
    assert len({len(line) for line in lines[1:5]}) == 1
    assert lines[5] == "not measured: EASE: too many posts"
    assert lines[-1] == f"note: a note {BAD}"


def test_a_name_from_the_input_cannot_command_the_terminal() -> None:
    found = evaluation()
    name = "content kNN (\x1b[2J\u202ename\n" + "x" * 5000
    found["methods"][name] = found["methods"].pop("popular")
    found["ablations"] = {name: ablations()["without text"]}
    printed = report.table(found).split("\n")
    assert all(line.isprintable() and len(line) <= 1000 for line in printed)
    assert len({len(line) for line in printed[1:5]}) == 1 and len(printed[1]) < 150


def test_where_nothing_was_measured_that_is_said() -> None:
    bare = {"run": "2026-01-31", "split": {"kind": "user", "fraction": 0.2}, "notes": ["nothing lies before the cut"]}
    assert report.table(bare).split("\n") == [
        "backtest (user split): held out is the newest 20% of each user's interactions",
        "note: nothing lies before the cut",
    ]
    assert "nothing lies before the cut" in parsed(copy.deepcopy(bare)).text
    named = {"kind": "cold", "cold_posts": {"posts": 1500, "digest": "d"}}
    assert "all interactions with the 1,500 posts of --cold_posts" in report.split_line(bare | {"split": named})
    for kind, words in (("cold", "all interactions with 20% of the posts"), ("holdout", "a table of its own")):
        split = {"kind": kind} | ({"fraction": 0.2} if kind == "cold" else {})
        assert words in report.split_line(bare | {"split": split})


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        ("without text, retrained", "removing text (retrained)"),
        ("PCA for the autoencoder", "replacing the autoencoder with a PCA"),
        ("ridge map for the autoencoder", "replacing the autoencoder with a ridge map"),
        ("no trend", "removing the trend"),
        ("cosine of the content", "ranking by cosine of the content"),
    ],
)
def test_every_variant_is_the_subject_of_a_sentence(variant: str, sentence: str) -> None:
    lead = {"recall@20": interval(-0.3), "ndcg@10": interval(0.0)}
    expected = f"warm posts: {sentence} raises recall@20 by 0.300 (significant)"
    assert report.findings({variant: {"warm": {"lead": lead}}}) == [expected]

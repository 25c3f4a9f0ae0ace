"""The summary: what a person reads of a run in ten seconds."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.command_line.options import Options
from pipelines.publishing import summary
from pipelines.publishing.gate import Decision
from pipelines.stage.reports import Report
from transforms.tables import files, parquet, rejects, schemas

CODES = ["row_malformed", "id_missing"]
ESCAPE = "\x1b[31mred\x1b[0m\u202eevil\nline"


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}


def evaluation(ours: float, lead: float) -> dict[str, Any]:
    def method(mean: float) -> dict[str, Any]:
        return {"measures": {"recall@20": interval(mean)}, "lead": {"recall@20": interval(lead)}}

    methods = {"fusefeed": method(ours), "popular": method(0.1), "item kNN": method(0.15), "random": method(0.01)}
    about = {"users": 1000}
    return {"run": "2026-01-30", "split": {"kind": "time"}, "about": about, "methods": methods, "notes": ["a note"]}


@pytest.fixture
def directory(tmp_path: Path) -> str:
    lists = [
        {"user_id": f"u{user}", "rank": rank, "post_id": f"p{user}", "score": 1.0, "reason": "history"}
        for user in range(20)
        for rank in (1, 2)
    ]
    block = pa.RecordBatch.from_pylist(lists, schema=schemas.RECOMMENDATIONS)
    parquet.write_file(str(tmp_path / "recommendations" / "part-00000.parquet"), block, block.schema)
    posts = [{"post_id": f"p{number}", "text": f"{ESCAPE} {number} " + "word " * 50} for number in range(20)]
    block = pa.RecordBatch.from_pylist([post | {"sensitive": False} for post in posts], schema=schemas.POSTS)
    parquet.write_file(str(tmp_path / "posts" / "part-00000.parquet"), block, block.schema)
    for part, (sources, codes) in enumerate(
        ((["a.jsonl", "b.jsonl", "u.csv"], ["id_missing", "id_missing", "row_malformed"]), (["a.jsonl"] * 2, CODES))
    ):
        block = rejects.reject_block(source=sources, stage="ingest", code=codes)
        parquet.write_file(str(tmp_path / "rejects" / "ingest" / f"part-0000{part}.parquet"), block, block.schema)
    files.write_json(str(tmp_path / "metrics.json"), {"evaluation": evaluation(0.2, 0.05)})
    return str(tmp_path)


def lines(directory: str, decision: Decision = Decision(True), last: Any = None, **flags: Any) -> list[str]:  # noqa: B008
    counts = {"posts.read": 1234, "posts.written": 1230, "posts.rejected": 4, "rejects.row_malformed": 2}
    counts |= {"users.read": 9, "users.written": 8, "users.rejected": 1, "rejects.id_missing": 3}
    media = {
        "media.image.referenced": 107,
        "media.image.features": 6,
        "media.image.missing": 100,
        "media.image.rejected": 1,
        "rejects.media_empty": 1,
        "rejects.media_missing": 100,
        "rejects.vector_width": 200,
    }
    origin = {"files": {"posts": [["a.jsonl", 1, ""], ["b.jsonl", 1, ""]], "users": [["u.csv", 1, ""]]}}
    reports = [Report("ingest", 1.0, 1, {}, counts, origin=origin), Report("extract", 1.0, 1, {}, media)]
    options = Options(run_date="2026-01-31", **flags)
    return summary.text(options, reports, directory, 75, decision, last).splitlines()


def test_it_says_what_came_in_and_how_good_the_lists_are(directory: str) -> None:
    found = lines(directory, last=evaluation(0.19, 0.0))
    assert found[0] == "run 2026-01-31 published in 1 min 15 s"
    assert "posts         1,234 rows: 1,230 written, 0 duplicates, 4 rejected, most often as id_missing (3)" in found
    assert "users         9 rows: 8 written, 0 duplicates, 1 rejected, most often as row_malformed (1)" in found
    assert "interactions  0 rows: 0 written, 0 duplicates, 0 rejected" in found
    # Missing files and vectors of another width are no rejected files, however many there are.
    assert "media         107 files: 6 read, 100 missing, 1 rejected, most often as media_empty (1)" in found
    assert "vectors       200 rejected as vector_width" in found
    start = found.index("backtest      recall@20 is .200 (.190 to .210) for 1,000 users")
    assert [line.strip() for line in found[start + 1 : start + 4]] == [
        ".050 better than the best baseline, item kNN (.150; significant)",
        ".050 better than popularity (.100; significant)",
        ".010 better than the last published run, 2026-01-30 (.190; not significant)",
    ]
    assert found[-1] == "warning: a note"
    assert len(found) < 30


def test_a_refused_run_says_so_first_and_last(directory: str) -> None:
    found = lines(directory, Decision(False, "worse than popularity", True))
    assert found[0].startswith("run 2026-01-31 not published in ")
    assert found[-1] == "warning: not published: worse than popularity"
    assert "              no earlier published run to compare with" in found


def test_a_refused_run_that_is_published_all_the_same_is_a_warning(directory: str) -> None:
    found = lines(directory, Decision(True, "worse than popularity; published anyway (--no_gate)", True))
    assert found[0].startswith("run 2026-01-31 published in ")
    assert found[-1] == "warning: worse than popularity; published anyway (--no_gate)"


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ({}, "no backtest was run (--no_evaluate)"),
        ({"evaluation": {"notes": ["nothing lies before the cut"]}}, "nothing lies before the cut"),
    ],
)
def test_without_measurements_that_is_said_once(directory: str, metrics: dict[str, Any], why: str) -> None:
    files.write_json(f"{directory}/metrics.json", metrics)
    found = lines(directory)
    assert f"backtest      no measurements: {why}" in found
    assert sum(why in line for line in found) == 1


def test_popularity_may_be_the_best_baseline(directory: str) -> None:
    found = evaluation(0.09, -0.03)
    found["methods"]["item kNN"]["measures"]["recall@20"] = interval(0.05)
    files.write_json(f"{directory}/metrics.json", {"evaluation": found})
    (sentence,) = [line.strip() for line in lines(directory) if "baseline" in line or "than popularity" in line]
    assert sentence == ".030 worse than the best baseline, popularity (.100; significant)"


def test_texts_are_shown_only_if_asked_for_and_cannot_command_the_terminal(directory: str) -> None:
    hidden = [line for line in lines(directory) if " gets " in line]
    assert len(hidden) == 5 and not any("word" in line for line in hidden)
    shown = [line for line in lines(directory, show_text=True) if " gets " in line]
    assert len(shown) == 5
    for before, line in zip(hidden, shown, strict=True):
        assert line.startswith(before + ': "') and line.endswith('..."') and len(line) < len(before) + 90
        assert line.isprintable() and "evil line" in line


def test_names_and_ids_from_the_input_cannot_command_the_terminal(directory: str) -> None:
    found = evaluation(0.2, 0.05)
    found["methods"][f"content kNN ({ESCAPE}{'x' * 5000})"] = found["methods"].pop("item kNN")
    jump = {"before": 0.5, "now": 0.9, "low": 0.4, "high": 0.6, "size": 9.0, "most": f"{ESCAPE} from 0 to 1"}
    drift = {"before": "2026-01-30", "why_not": "", "jumps": ["values"], "compared": {"values": jump}}
    drift["different"] = {ESCAPE: "another width"}
    files.write_json(f"{directory}/metrics.json", {"evaluation": found, "drift": drift})
    rows = [{"user_id": "u" * 512, "rank": 1, "post_id": "p\u202e", "score": 1.0, "reason": "popular"}]
    block = pa.RecordBatch.from_pylist(rows, schema=schemas.RECOMMENDATIONS)
    parquet.write_file(f"{directory}/recommendations/part-00000.parquet", block, block.schema)
    printed = lines(directory)
    assert all(line.isprintable() and len(line) < 250 for line in printed if directory not in line)
    assert sum("evil line" in line for line in printed) == 3
    assert any(f"{'u' * 37}... gets p  (by popular)" in line for line in printed)


def test_a_share_has_three_decimals() -> None:
    assert [summary.decimals(value) for value in (0.1864, 1.0, 0.0)] == [".186", "1.000", ".000"]

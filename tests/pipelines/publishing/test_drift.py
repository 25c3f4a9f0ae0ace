"""Runs of consecutive days: alike, then with most pictures gone and in other languages."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipelines import extract, ingest, run, validate
from pipelines.command_line import console
from pipelines.command_line.options import Options
from pipelines.publishing import drift
from pipelines.stage.reports import Report
from tests.pipelines import valid_tables
from transforms.tables import files

# Pictures need no TensorFlow.
EXTRACT = dataclasses.replace(extract.STAGE, tensorflow=False)
STAGES = [ingest.STAGE, EXTRACT, valid_tables.STAGE, validate.STAGE]
POSTS, USERS = 240, 40
FIRST, SECOND, THIRD = "2026-01-01", "2026-01-02", "2026-01-03"


class World:
    """Input files, and the runs that are made of them."""

    def __init__(self, path: Path) -> None:
        self.path, self.output = path, path / "out"
        (path / "media").mkdir()
        rng = np.random.default_rng(0)
        for number in range(12):
            picture = rng.integers(0, 256, (16, 16, 3), np.uint8)
            cv2.imwrite(str(path / "media" / f"{number}.png"), picture)
        self.write_posts(["en", "de", "fr"])
        users = [{"user_id": f"u{i}", "lang": "en"} for i in range(USERS)]
        acts = [{"user_id": f"u{i % USERS}", "post_id": f"p{i}", "kind": "like"} for i in range(POSTS)]
        for name, rows in (("users", users), ("interactions", acts)):
            self._write(name, rows)

    def write_posts(self, languages: list[str]) -> None:
        posts: list[dict[str, Any]] = []
        for i in range(POSTS):
            posts.append({"post_id": f"p{i}", "text": f"word {i % 7}", "lang": languages[i % len(languages)]})
            if i % 3:
                posts[-1]["media"] = [{"kind": "image", "uri": f"{i % 12}.png"}]
        self._write("posts", posts)

    def _write(self, name: str, rows: list[dict[str, Any]]) -> None:
        (self.path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")

    def run(self, day: str, **flags: Any) -> int:
        given: dict[str, Any] = {name: str(self.path / f"{name}.jsonl") for name in ("posts", "interactions", "users")}
        given |= {"media_root": (str(self.path / "media"),), "audio_encoder": "none", "video_encoder": "none"}
        options = Options(**given, output=str(self.output), run_date=day, no_evaluate=True, **flags)
        try:
            return run.make_runs(options, STAGES)
        except Exception as error:
            return console.report_error("fusefeed run", error)

    def metrics(self, day: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.output / "runs" / day / "metrics.json").read_text())
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two runs of the same input; neither is stopped by --fail_on_drift."""
    made = World(tmp_path_factory.mktemp("world"))
    assert [made.run(day, fail_on_drift=True) for day in (FIRST, SECOND)] == [console.DONE, console.DONE]
    return made


def test_the_first_run_has_nothing_to_be_compared_with(world: World) -> None:
    found = world.metrics(FIRST)
    assert found["drift"]["why_not"] == "there is no published run that is older"
    assert found["drift"]["jumps"] == [] and found["drift"]["compared"] == {}
    statistics = found["statistics"]
    assert statistics["rows"]["posts"] == POSTS
    assert statistics["values"]["posts"]["lang"] == {"en": 80, "de": 80, "fr": 80}
    assert statistics["modalities"]["image"]["rows"] == POSTS * 2 // 3
    assert statistics["norms"]["user_embeddings"]["rows"] == USERS
    lines = (world.output / "runs" / FIRST / "metrics.prom").read_text().splitlines()
    assert f'fusefeed_statistic{{run="{FIRST}",statistic="posts with image"}} {2 / 3}' in lines


def test_the_same_input_again_is_no_drift(world: World) -> None:
    found = world.metrics(SECOND)["drift"]
    assert (found["before"], found["why_not"], found["jumps"]) == (FIRST, "", [])
    assert {name: one["size"] for name, one in found["compared"].items() if one["size"]} == {}
    assert {"posts with image", "values of posts.lang", "means of text, in deviations"} <= found["compared"].keys()


def test_an_input_that_has_changed_is_told_and_may_stop_the_run(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.write_posts(["th", "th", "en"])
    for number in range(8):
        (world.path / "media" / f"{number}.png").unlink()
    assert world.run(THIRD, fail_on_drift=True) == console.FAILED
    message = capsys.readouterr().err.splitlines()[-1]
    jumps = [
        "posts with image: before 0.667, now 0.25",
        "values of posts.lang: before 0, now 7.16 (limits 0 to 0.25, mostly th from 0.000 to 0.667)",
    ]
    assert f"statistics have jumped since {SECOND} (--fail_on_drift): " in message
    assert all(jump in message for jump in jumps), message
    assert (world.output / "LATEST").read_text() == f"{SECOND}\n"
    assert not (world.output / "runs" / THIRD / "metrics.json").exists()
    # Without the flag the same command has nothing to do but to publish, and warns.
    assert world.run(THIRD) == console.DONE
    printed = capsys.readouterr()
    assert printed.err.count(run.SKIPPED) == len(STAGES)
    assert all(jump in printed.out.splitlines()[-1] for jump in jumps)
    assert (world.output / "LATEST").read_text() == f"{THIRD}\n"
    found = world.metrics(THIRD)["drift"]
    assert {"posts with image", "values of posts.lang"} <= set(found["jumps"])
    lines = (world.output / "runs" / THIRD / "metrics.prom").read_text().splitlines()
    (line,) = [each for each in lines if each.startswith("fusefeed_drift{") and "posts with image" in each]
    assert float(line.split()[-1]) > 1


def metrics_of(path: Path, day: str, **values: Any) -> None:
    files.write_json(str(path / "runs" / day / "metrics.json"), {"run": day, **values})
    files.write_json(str(path / "runs" / day / "manifest.json"), {"published": True})


def test_a_run_before_that_left_no_statistics_is_said(tmp_path: Path) -> None:
    metrics_of(tmp_path, FIRST)
    directory = tmp_path / "runs" / SECOND
    options = Options(output=str(tmp_path), run_date=SECOND, fail_on_drift=True)
    assert drift.find(options, str(directory)) is None
    files.write_json(str(directory / "statistics" / "statistics.json"), {})
    found = drift.find(options, str(directory))
    assert found is not None
    assert list(drift.warnings(found)) == [f"statistics are not compared: {FIRST} has no statistics"]
    drift.check(Report("validate", 0, 0, {}, {}), options, str(directory))


def test_only_what_moved_most_is_shown(tmp_path: Path) -> None:
    size = drift.NUM_SHOWN + 2
    one = {"before": 0.5, "now": 12345.6, "low": 0.4, "high": 0.62, "size": 9.0, "most": ""}
    names = [f"statistic {number}" for number in range(size)]
    found = {"before": FIRST, "why_not": "", "jumps": names, "compared": dict.fromkeys(names, one)}
    jumped, different = drift.warnings(found | {"different": {"image": "keras:x, was opencv"}})
    before, *others = jumped.split("; ")
    assert before == (
        f"{size} of {size} statistics have jumped since {FIRST}: "
        "statistic 0: before 0.5, now 12,346 (limits 0.4 to 0.62)"
    )
    assert len(others) == drift.NUM_SHOWN and others[-1] == "2 more (drift in metrics.json)"
    assert different == f"image is not compared with {FIRST} (keras:x, was opencv)"

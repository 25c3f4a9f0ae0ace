"""Every benchmark at a tiny scale: data are the same each time, all sides do the same work, every figure is there.

The sides run in this process one after the other: libraries are imported once. How they run in processes of their own
is tested with the harness.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks import child, data, harness, topk
from benchmarks.__main__ import NAMES
from benchmarks.harness import OURS, Benchmark, Result, Sample
from benchmarks.process import THREAD_VARIABLES

TINY = 1e-4
SLOW = ("workers", "whole")
ALL = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in NAMES]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "1")


def _measure(benchmark: Benchmark, folder: Path) -> Result:
    result = Result(benchmark.name, benchmark.title, benchmark.prepare(folder, TINY), {}, {})
    for side in benchmark.sides:
        if (reason := harness.missing(side)) is not None:
            result.skipped[side.name] = reason
        else:
            result.samples[side.name] = [Sample(**child.measure(side.start(folder)))]
    harness._check_agreement(benchmark, result)
    result.checks = benchmark.check(folder) if benchmark.check else {}
    return result


@pytest.mark.parametrize("name", ALL)
def test_all_sides_do_the_same_work(name: str, tmp_path: Path) -> None:
    benchmark = harness.load(f"benchmarks.{name}")
    assert benchmark.name == name and benchmark.path == f"benchmarks.{name}"
    result = _measure(benchmark, tmp_path)
    for side, (sample,) in result.samples.items():
        assert sample.seconds > 0 and sample.peak_bytes > 0, side
        assert all(fact in sample.facts for fact in benchmark.agree) or side.endswith("1080p")
    for ratio in benchmark.ratios:
        needed = [ratio.side, *ratio.against]
        found = harness.figure(ratio, result, TINY)
        if found is None:
            assert set(needed) & set(result.skipped) or ratio.kind.startswith("share of"), ratio
        else:
            assert np.isfinite(found.value), ratio
            if ratio.kind in result.checks:
                assert found.met is not False, found


def test_exact_ranks_are_told_from_wrong_ones(tmp_path: Path) -> None:
    topk.prepare(tmp_path, TINY)
    topk.numpy(tmp_path)()
    right = np.load(tmp_path / "ranks-numpy.npy")
    np.save(tmp_path / f"ranks-{OURS}.npy", np.roll(right, 1, axis=1))
    shares = topk.check(tmp_path)
    assert shares["share of ranks of numpy that are exact"] > 0.99
    assert shares[f"share of ranks of {OURS} that are exact"] == 0


def test_posts_are_the_same_each_time_and_canonical(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        data.write_posts_jsonl(tmp_path / name, 500)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    (table,) = data.posts(500)
    assert len(set(table["post_id"].to_pylist())) == 500
    import pyarrow.json as pj

    read = pj.read_json(tmp_path / "one")
    assert read["text"].to_pylist() == table["text"].to_pylist()
    assert read["hashtags"].to_pylist() == table["hashtags"].to_pylist()


def test_words_are_distinct_and_frequent_ones_are_drawn_more_often() -> None:
    words = data.vocabulary().to_pylist()
    assert len(set(words)) == data.VOCABULARY
    counts = np.bincount(data.zipf(np.random.default_rng(0), 100_000, 1000), minlength=1000)
    assert counts[0] > 5 * counts[50] > 5 * counts[900]

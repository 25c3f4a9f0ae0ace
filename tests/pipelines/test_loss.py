import pytest

from pipelines import loss
from pipelines.options import Options, RunError
from pipelines.stage import Report


def report(stage: str, **counts: int) -> Report:
    return Report(stage, 1.0, 1, {}, {name.replace("__", "."): number for name, number in counts.items()})


def test_an_input_that_is_mostly_rejected_stops_the_run() -> None:
    counts = {"posts__read": 100, "posts__rejected": 60, "users__read": 10, "rejects__id_missing": 1}
    found = report("ingest", **counts, rejects__row_malformed=40, rejects__time_invalid=19, rejects__id_invalid=0)
    loss.check(found, Options(max_reject_ratio=0.6))
    with pytest.raises(RunError) as raised:
        loss.check(found, Options(max_reject_ratio=0.59))
    assert str(raised.value) == (
        "60 of 100 rows of posts were rejected, more than --max_reject_ratio 0.59; most often: row_malformed (40), "
        "time_invalid (19), id_missing (1)"
    )


def test_rows_of_a_later_date_are_not_lost() -> None:
    found = report("ingest", interactions__read=100, interactions__rejected=90, interactions__later=85)
    assert [entry.ratio for entry in loss.losses(found)] == [0, 5 / 15, 0]


def test_media_that_were_not_looked_for_are_not_lost() -> None:
    counts = {"referenced": 100, "features": 1, "missing": 50, "rejected": 49, "unreached": 45}
    found = report("extract", **{f"media__image__{name}": number for name, number in counts.items()})
    assert [entry.ratio for entry in loss.losses(found)] == [4 / 5, 0, 0, 0]
    with pytest.raises(RunError, match="4 of 5 media of kind image were rejected"):
        loss.check(found, Options(max_reject_ratio=0.5))
    loss.check(found, Options())


def test_other_stages_lose_nothing() -> None:
    assert not list(loss.losses(report("train", posts__read=1, posts__rejected=1)))

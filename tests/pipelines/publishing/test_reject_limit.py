import pytest

from pipelines.command_line.options import Options, RunError
from pipelines.publishing import reject_limit
from pipelines.stage.reports import Report


def report(stage: str, **counts: int) -> Report:
    return Report(stage, 1.0, 1, {}, {name.replace("__", "."): number for name, number in counts.items()})


def test_an_input_that_is_mostly_rejected_stops_the_run() -> None:
    counts = {"posts__read": 100, "posts__rejected": 60, "users__read": 10, "rejects__id_missing": 1}
    found = report("ingest", **counts, rejects__row_malformed=40, rejects__time_invalid=19, rejects__id_invalid=0)
    reject_limit.check(found, Options(max_reject_ratio=0.6))
    with pytest.raises(RunError) as raised:
        reject_limit.check(found, Options(max_reject_ratio=0.59))
    assert str(raised.value) == (
        "60 of 100 rows of posts were rejected, more than --max_reject_ratio 0.59; most frequent codes of ingest: "
        "row_malformed (40), time_invalid (19), id_missing (1) (rejects/ingest lists all)"
    )


def test_rows_of_a_later_date_are_not_lost() -> None:
    found = report("ingest", interactions__read=1000, interactions__rejected=900, interactions__later=850)
    assert [entry.ratio for entry in reject_limit.losses(found)] == [0, 50 / 150, 0]


def test_media_that_were_not_looked_for_are_not_lost() -> None:
    counts = {"referenced": 2000, "features": 20, "missing": 1000, "rejected": 980, "unreached": 900}
    found = report("extract", **{f"media__image__{name}": number for name, number in counts.items()})
    assert [entry.ratio for entry in reject_limit.losses(found)] == [4 / 5, 0, 0, 0]
    with pytest.raises(RunError, match="80 of 100 media of kind image were rejected"):
        reject_limit.check(found, Options(max_reject_ratio=0.5))
    reject_limit.check(found, Options())


def test_of_a_few_nothing_is_concluded() -> None:
    few = report("extract", media__video__referenced=99, media__video__rejected=99)
    assert [entry.ratio for entry in reject_limit.losses(few)] == [0, 0, 0, 0]
    reject_limit.check(few, Options(max_reject_ratio=0))


def test_other_stages_lose_nothing() -> None:
    assert not list(reject_limit.losses(report("train", posts__read=1, posts__rejected=1)))

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.command_line.options import RunError, UsageError
from pipelines.store import lock
from pipelines.store.lock import Holder
from tests.pipelines.flat_store import FlatStore
from transforms.tables import files

STORE = "flat://bucket/out"


HOLD = (
    "import sys, time\nfrom pipelines.command_line import console\nfrom pipelines.store import lock\n"
    "def work():\n  with lock.hold(sys.argv[1]): print('mine', flush=True); time.sleep(float(sys.argv[2]))\n"
    "  return 0\n"
    "sys.exit(console.exit_code('fusefeed run', work))\n"
)
ROOT = str(Path(__file__).resolve().parents[3])


def start(output: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that holds the lock on an output for some seconds."""
    words = [sys.executable, "-c", HOLD, str(output), str(seconds)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": ROOT})


def wait_until_held(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None and process.stdout.readline() == "mine\n"


@pytest.fixture
def elsewhere() -> Holder:
    return Holder("1" * 32, "far", 7, "2026-01-31T03:00:00+00:00", "fusefeed run")


def test_the_second_is_told_who_is_first_and_the_lock_goes_with_the_block(tmp_path: Path) -> None:
    with lock.hold(str(tmp_path)) as held:
        held.check()
        with pytest.raises(RunError, match=f"another command is at work here: pid {os.getpid()} on .+ since 20"):
            lock.hold(str(tmp_path)).__enter__()
        assert [path.name for path in tmp_path.iterdir()] == ["LOCK"]
    assert list(tmp_path.iterdir()) == []


def test_another_process_is_refused_in_one_line_that_names_the_holder(tmp_path: Path) -> None:
    with lock.hold(str(tmp_path)) as held:
        second = start(tmp_path, 60)
        said = second.communicate(timeout=30)[1]
        assert second.returncode == 1 and said.count("\n") == 1
        assert f"another command is at work here: {held.holder}; {held.path} goes with it" in said
        held.check()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = start(tmp_path, 60)
    wait_until_held(first)
    with pytest.raises(RunError, match=f"pid {first.pid} on "):
        lock.hold(str(tmp_path)).__enter__()
    first.kill()
    first.communicate()
    with lock.hold(str(tmp_path)) as held:
        held.check()
        said = capsys.readouterr().err
    assert said.startswith(f"took over the lock of pid {first.pid} on ") and said.endswith("its process is gone\n")
    assert said.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_a_lock_that_was_lost_is_noticed(tmp_path: Path) -> None:
    with lock.hold(str(tmp_path)) as held:
        (tmp_path / "LOCK").unlink()
        with pytest.raises(RunError, match="LOCK was removed; nothing more is written"):
            held.check()
        second = start(tmp_path, 60)
        wait_until_held(second)
        with pytest.raises(RunError, match=f"LOCK was taken over by pid {second.pid} on "):
            held.check()
    assert (tmp_path / "LOCK").exists()  # it is not ours to remove
    second.terminate()
    second.communicate()


def test_of_many_that_find_a_stale_lock_one_gets_it(tmp_path: Path) -> None:
    (tmp_path / "LOCK").write_text("{")
    every = [start(tmp_path, 3) for _ in range(4)]
    said = [process.communicate()[0] for process in every]
    assert sorted(said) == ["", "", "", "mine\n"]
    assert sorted(process.returncode for process in every) == [0, 1, 1, 1]


def test_a_command_that_a_scheduler_stops_gives_the_lock_back(tmp_path: Path) -> None:
    process = start(tmp_path, 60)
    wait_until_held(process)
    process.terminate()
    assert process.communicate(timeout=30)[1] == "fusefeed run: interrupted\n"
    assert process.returncode == 1 and list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/out cannot be written: Not a directory"):
        lock.hold(str(tmp_path / "file" / "out")).__enter__()


def test_on_an_object_store_too_there_is_one(
    elsewhere: Holder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)
    FlatStore.objects.clear()
    with lock.hold(STORE) as held, pytest.raises(RunError, match=f"pid {os.getpid()}"):
        held.check()
        lock.hold(STORE).__enter__()
    assert FlatStore.objects == {}
    text = json.dumps(dataclasses.asdict(elsewhere)).encode()
    FlatStore.objects[f"{STORE}/LOCK"] = (text, 1.0)
    with lock.hold(STORE):
        assert "took over the lock of pid 7 on far" in capsys.readouterr().err
    monkeypatch.setattr(lock.time, "sleep", lambda _: FlatStore.objects.update({f"{STORE}/LOCK": (text, 2e9)}))
    with pytest.raises(RunError, match="pid 7 on far"):  # who wrote last has it
        lock.hold(STORE).__enter__()


@pytest.mark.parametrize(("age", "stale"), [(0.0, False), (lock.STALE_SECONDS - 60, False), (86_400.0, True)])
def test_on_an_object_store_the_age_of_the_last_heartbeat_decides(
    elsewhere: Holder, age: float, stale: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)
    FlatStore.objects.clear()
    files.write_text(f"{STORE}/clock", "")
    now = FlatStore.objects.pop(f"{STORE}/clock")[1]
    FlatStore.objects[f"{STORE}/LOCK"] = (json.dumps(dataclasses.asdict(elsewhere)).encode(), now - age)
    if stale:
        with lock.hold(STORE):
            assert "no heartbeat for 24 h" in capsys.readouterr().err
    else:
        with pytest.raises(RunError, match="pid 7 on far since 2026-01-31"):
            lock.hold(STORE).__enter__()
        assert list(FlatStore.objects) == [f"{STORE}/LOCK"]


def test_the_heartbeat_beats_but_not_on_a_lock_that_was_lost(
    elsewhere: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    FlatStore.objects.clear()
    path = f"{STORE}/LOCK"
    with lock.hold(STORE) as held:
        first, until = FlatStore.objects[path], time.monotonic() + 30
        while FlatStore.objects[path] == first and time.monotonic() < until:
            time.sleep(0.01)
        assert FlatStore.objects[path][1] > first[1]
        monkeypatch.setattr(lock, "BEAT_SECONDS", 60.0)
        time.sleep(0.1)
        lost = FlatStore.objects[path] = (json.dumps(dataclasses.asdict(elsewhere)).encode(), 1.0)
        with pytest.raises(RunError, match="was taken over by pid 7 on far"):
            held.check()
    assert FlatStore.objects[path] == lost  # it is not ours to remove

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

STORE = "flat://bucket/out"


def write(path: Path, holder: Holder, age: float = 0.0) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(holder)))
    then = time.time() - age
    os.utime(path, (then, then))


def dead() -> Holder:
    """A holder on this machine whose process is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return dataclasses.replace(lock._me(), pid=process.pid, command="fusefeed run --posts x")


@pytest.fixture
def elsewhere() -> Holder:
    return Holder("1" * 32, "far", "another place", 7, "1", "2026-01-31T03:00:00+00:00", "fusefeed run")


def test_the_second_is_told_who_is_first_and_the_lock_goes_with_the_block(tmp_path: Path) -> None:
    with lock.hold(str(tmp_path)) as held:
        held.check()
        with pytest.raises(RunError, match=f"another command is at work here: pid {os.getpid()} on .+ since 20"):
            lock.hold(str(tmp_path)).__enter__()
        assert [path.name for path in tmp_path.iterdir()] == ["LOCK"]
    assert list(tmp_path.iterdir()) == []


def test_a_lock_whose_process_is_gone_is_taken_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = dead()
    write(tmp_path / "LOCK", gone)
    with lock.hold(str(tmp_path)):
        said = capsys.readouterr().err
    assert f"took over the lock of pid {gone.pid} on " in said and said.endswith("its process is gone\n")
    assert said.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_a_process_id_that_was_given_away_again_holds_nothing(tmp_path: Path) -> None:
    write(tmp_path / "LOCK", dataclasses.replace(lock._me(), started="another time"))
    with lock.hold(str(tmp_path)) as held:
        held.check()


@pytest.mark.parametrize(("age", "stale"), [(0.0, False), (lock.STALE_SECONDS - 60, False), (86_400.0, True)])
def test_from_elsewhere_the_heartbeat_tells(
    tmp_path: Path, elsewhere: Holder, age: float, stale: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "LOCK", elsewhere, age)
    if stale:
        with lock.hold(str(tmp_path)):
            assert "no heartbeat for 24 h" in capsys.readouterr().err
    else:
        with pytest.raises(RunError, match="pid 7 on far since 2026-01-31"):
            lock.hold(str(tmp_path)).__enter__()
        assert json.loads((tmp_path / "LOCK").read_text())["host"] == "far"


def test_the_heartbeat_beats_but_not_on_a_lock_that_was_lost(
    tmp_path: Path, elsewhere: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    path = tmp_path / "LOCK"
    with lock.hold(str(tmp_path)) as held:
        os.utime(path, (0, 0))
        until = time.monotonic() + 30
        while os.path.getmtime(path) == 0 and time.monotonic() < until:
            time.sleep(0.01)
        assert os.path.getmtime(path) > 0
        write(path, elsewhere, age=1000)
        before = os.path.getmtime(path)
        with pytest.raises(RunError, match="was taken over by pid 7 on far"):
            held.check()
        time.sleep(0.1)
        assert os.path.getmtime(path) == before
    assert path.exists()  # it is not ours to remove


def test_of_many_that_find_a_stale_lock_one_gets_it(tmp_path: Path) -> None:
    write(tmp_path / "LOCK", dead())
    code = (
        "import sys, time\nfrom pipelines.store import lock\nfrom pipelines.command_line.options import RunError\n"
        "try:\n  with lock.hold(sys.argv[1]): print('mine', flush=True); time.sleep(3)\n"
        "except RunError as error: print(error)\n"
    )
    root = str(Path(__file__).resolve().parents[3])
    words = [sys.executable, "-c", code, str(tmp_path)]
    all_of_them = [
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=root, env=os.environ | {"PYTHONPATH": root})
        for _ in range(4)
    ]
    said = [process.communicate()[0] for process in all_of_them]
    assert sorted(line.startswith("mine") for line in said) == [False, False, False, True], said


def test_a_command_that_a_scheduler_stops_gives_the_lock_back(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pipelines.command_line import console\nfrom pipelines.store import lock\n"
        "def work():\n  with lock.hold(sys.argv[1]): print('mine', flush=True); time.sleep(60)\n"
        "sys.exit(console.exit_code('fusefeed run', work))\n"
    )
    root = str(Path(__file__).resolve().parents[3])
    words = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root)
    assert process.stdout is not None and process.stdout.readline() == "mine\n"
    process.terminate()
    assert process.communicate(timeout=30)[1] == "fusefeed run: interrupted\n"
    assert process.returncode == 1 and list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_read_is_somebodys(tmp_path: Path) -> None:
    (tmp_path / "LOCK").write_text("{")
    with pytest.raises(RunError, match="an unknown command"):
        lock.hold(str(tmp_path)).__enter__()


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/out cannot be written: Not a directory"):
        lock.hold(str(tmp_path / "file" / "out")).__enter__()


def test_candidates_are_swept_and_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "LOCK-1").write_text("")
    lock.sweep(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    link = lock._link

    def swept_before(temporary: str, path: str) -> None:
        monkeypatch.setattr(lock, "_link", link)
        lock.sweep(str(tmp_path))
        link(temporary, path)

    monkeypatch.setattr(lock, "_link", swept_before)
    with lock.hold(str(tmp_path)) as held:
        held.check()


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

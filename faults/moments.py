"""Very many kills of very small runs: stages of a line each, so that most moments lie in what `run` does around them.

A process forks a run, kills it some thousandths of a second later and looks at the output as a reader would; then the
next, with other flags, another date. What `run` imports is there before the first fork.

    python -m faults.moments DIRECTORY [SEED] [TIMES]
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from faults.command import ROOT
from faults.world import STRAY, need
from pipelines import run
from pipelines.command_line.options import Options
from pipelines.stage.declaration import Places, Stage
from pipelines.store import runs
from transforms.tables import files

DATES = ("2026-01-01", "2026-01-02", "2026-01-03")


def _write(places: Places, table: str, number: int) -> None:
    for part in range(3):
        files.write_text(f"{places.output(table)}/part-{part}.txt", f"{number}\n")


def _read(directory: str, table: str) -> int:
    numbers = {int(files.read_text(f"{directory}/{table}/part-{part}.txt")) for part in range(3)}
    need(len(numbers) == 1, f"{directory}/{table} is made of two runs: {numbers}")
    return numbers.pop()


def _k(options: Options, places: Places) -> None:
    _write(places, "k", options.k)


def _latent(options: Options, places: Places) -> None:
    _write(places, "latent", options.latent)


def _product(options: Options, places: Places) -> None:
    _write(places, "product", _read(places.run_dir, "k") * _read(places.run_dir, "latent"))


STAGES = (
    Stage("extract", (), ("k",), _k, tensorflow=False, options=("k",)),
    Stage("fuse", (), ("latent",), _latent, tensorflow=False, options=("latent",)),
    Stage("embed", ("k", "latent"), ("product",), _product, tensorflow=False),
)


def stress(output: Path, seed: int, times: int) -> str:
    """Kills runs and checks after each what readers see; what came of it in a line.

    Raises:
      Broken: a reader met half a run, LATEST went away or back, or something is left when the last run is done.
    """
    moments = random.Random(seed)
    usual = 0.1
    killed, newest = 0, ""
    for _ in range(times):
        options = Options(
            output=str(output),
            run_date=moments.choice(DATES),
            k=moments.randint(1, 9),
            latent=moments.randint(1, 9),
            keep_runs=moments.choice((0, 2)),
            no_evaluate=True,
        )
        began = time.monotonic()
        code = _fork(options, moments.uniform(0, 1.2 * usual))
        if code == 0:
            usual += 0.2 * (time.monotonic() - began - usual)
        else:
            need(code == -signal.SIGKILL, f"a run failed with {code} after a kill")
            killed += 1
        latest = runs.latest(str(output))
        need(latest >= newest, f"LATEST named {newest}, then {latest or 'nothing'}")
        newest = latest
        for name in runs.names(str(output)):
            if name == latest or runs.is_published(str(output), name):
                check_reader(output, name)
    for name in DATES:
        last = Options(output=str(output), run_date=name, no_evaluate=True)
        need(_fork(last, 60.0) == 0, "the last run failed")
        check_reader(output, name)
    need(runs.latest(str(output)) == DATES[-1], "LATEST does not name the newest date")
    left = [str(path) for path in output.rglob("*") if STRAY.fullmatch(path.name)]
    need(not left, f"left behind: {', '.join(left)}")
    return f"{killed} of {times} runs of {usual * 1000:.0f} ms killed: readers never met half a run, nothing is left"


def check_reader(output: Path, name: str) -> None:
    """What its manifest lists is there, and all of it was made with the flags that the manifest tells.

    Raises:
      Broken: it is not.
    """
    directory = runs.directory(str(output), name)
    manifest: dict[str, Any] = files.read_json(f"{directory}/manifest.json")
    for table, listed in manifest["files"].items():
        need(files.list_sizes(f"{directory}/{table}") == listed, f"{directory}/{table} is not what the manifest lists")
    k, latent = (manifest["configuration"][flag] for flag in ("k", "latent"))
    found = [_read(directory, table) for table in ("k", "latent", "product")]
    need(found == [k, latent, k * latent], f"{directory} has {found}, its manifest k = {k} and latent = {latent}")


def _fork(options: Options, seconds: float) -> int:
    """Makes a run in another process and kills it after so long. Returns its exit code, negative for a signal."""
    child = os.fork()
    if not child:
        code = 99
        try:
            with (
                open(os.devnull, "w") as nowhere,
                contextlib.redirect_stdout(nowhere),
                contextlib.redirect_stderr(nowhere),
            ):
                code = run.make_runs(options, STAGES)
        finally:
            os._exit(code)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_a_process(directory: Path, seed: int, times: int) -> str:
    """`stress` in a process that does nothing else, so that it can be forked safely. Returns its line.

    Raises:
      Broken: as `stress`.
    """
    directory.mkdir(parents=True)
    words = [sys.executable, "-m", "faults.moments", str(directory), str(seed), str(times)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment)
    need(done.returncode == 0, (done.stderr.splitlines() or ["it said nothing"])[-1])
    return done.stdout.strip()


def main(argv: list[str]) -> int:
    """The command."""
    directory, seed, times = Path(argv[0]), *(int(word) for word in [*argv[1:], "0", "100"][:2])
    # The first run imports what runs import; afterwards nothing has to be imported after a fork.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        run.make_runs(Options(output=str(directory / "first"), run_date=DATES[0], no_evaluate=True), STAGES)
    print(stress(directory / "out", seed, times))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

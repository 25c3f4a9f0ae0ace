"""SIGKILL at random moments, then the same command."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from faults import command, world
from faults.world import Reference, need

PUBLISHED = ("metrics.json", "metrics.prom", "manifest.json")


def first_runs(reference: Reference, base: Path, moments: random.Random, times: int) -> Iterator[str]:
    """Kills a run `times` times, each in an output of its own, anywhere between its first stage and its end.

    Every second time all stages are as likely to be hit, else all seconds.
    """
    words = reference.world.words
    for number in range(times):
        output, scratch = base / f"kill-{number}", base / f"kill-{number}-scratch"
        stage, moment = reference.moment(moments, by_stage=number % 2 == 1)
        killed = _kill(words(output, *reference.words), scratch, stage, moment)
        _check_after(killed, reference, output)
        done = command.run(words(output, *reference.words), scratch)
        need(done.code == 0, f"the same command failed after a kill: {done.message}")
        worst = world.check_whole(reference, output, scratch)
        at = f"{stage} + {moment:.1f} s" + (" (the run was faster)" if killed.code == 0 else "")
        yield f"kill at {at}; then {len(world.redone(done))} stages in {done.seconds:.0f} s, {_same(worst)}"
        shutil.rmtree(output)


def publishing(reference: Reference, base: Path, moments: random.Random, times: int) -> Iterator[str]:
    """Kills runs of which only publishing is left, in the moment that this takes."""
    words, named = reference.world.words, 0
    for number in range(times):
        output, scratch = _unpublished(reference, base / f"publish-{number}"), base / f"publish-{number}-scratch"
        written = reference.world.run_dir(output) / moments.choice(PUBLISHED)
        _kill_at(words(output, *reference.words), scratch, written)
        if (output / "LATEST").exists():
            named += 1
            _check_readers(reference, output)
        done = command.run(words(output, *reference.words), scratch)
        need(done.code == 0 and not world.redone(done), f"the same command did not just publish: {done.message}")
        world.check_whole(reference, output, scratch)
        shutil.rmtree(output)
    yield f"{times} kills while it is published: LATEST named the whole run {named} times, else none"


def evaluating(reference: Reference, base: Path, moments: random.Random, times: int) -> Iterator[str]:
    """Kills runs in their backtest: nothing is published, and the same command comes to the same figures."""

    def words(output: Path) -> list[str]:
        return reference.world.words(
            output, *(word for word in reference.words if word != "--no_evaluate"), "--no_gate"
        )

    whole = _unpublished(reference, base / "evaluated")
    process = command.Command(words(whole), base / "evaluated-scratch")
    done = process.finish()
    need(done.code == 0, f"the undisturbed run failed: {done.message}")
    seconds = done.seconds - process.began()["[9/9]"]
    for number in range(times):
        output, scratch = _unpublished(reference, base / f"evaluate-{number}"), base / f"evaluate-{number}-scratch"
        moment = moments.uniform(0, seconds)
        killed = _kill(words(output), scratch, "[9/9]", moment)
        _check_after(killed, reference, output)
        done = command.run(words(output), scratch)
        need(done.code == 0, f"the same command failed after a kill: {done.message}")
        world.check_whole(reference, output, scratch)
        figures = [reference.world.run_dir(each) / "evaluation" / "evaluation.json" for each in (whole, output)]
        need(figures[0].read_bytes() == figures[1].read_bytes(), "the figures of the backtest are others")
        again = ", ".join(world.redone(done))
        yield f"evaluate killed after {moment:.1f} of {seconds:.0f} s; then {again} done, same figures"
        shutil.rmtree(output)


def _unpublished(reference: Reference, output: Path) -> Path:
    """A copy of the undisturbed run in the state in which only publishing is left."""
    shutil.copytree(reference.output, output)
    (output / "LATEST").unlink()
    for name in PUBLISHED:
        (reference.world.run_dir(output) / name).unlink()
    return output


def _kill_at(words: list[str], scratch: Path, written: Path) -> None:
    """Kills a command as soon as a file is there."""
    process = command.Command(words, scratch)
    while process.is_running() and not written.exists():
        pass  # publishing takes some thousandths of a second: no time to sleep
    process.kill()


def _kill(words: list[str], scratch: Path, stage: str, moment: float) -> command.Done:
    process = command.Command(words, scratch)
    process.wait_for(stage)
    process.sleep(moment)
    return process.kill()


def replacements(old: Reference, new: Reference, base: Path, moments: random.Random, times: int) -> Iterator[str]:
    """Kills runs that are to take the place of a published one: readers have the old tables, whole, or the new."""
    for number in range(times):
        output, scratch = base / f"replace-{number}", base / f"replace-{number}-scratch"
        shutil.copytree(old.output, output)
        words = new.world.words(output, *new.words, "--force", "all")
        stage, moment = new.moment(moments, by_stage=True)
        killed = _kill(words, scratch, stage, moment)
        readers_have = "the new tables"
        try:
            _check_readers(new, output)
        except world.Broken:
            _check_readers(old, output)
            readers_have = "the old tables"
        done = command.run(words, scratch)
        need(done.code == 0, f"the same command failed after a kill: {done.message}")
        worst = world.check_whole(new, output, scratch)
        need(killed.code != 0 or readers_have == "the new tables", "a run that was done left the old tables")
        yield f"replacement killed at {stage} + {moment:.1f} s: readers have {readers_have}; then {_same(worst)}"
        shutil.rmtree(output)


def _check_after(killed: command.Done, reference: Reference, output: Path) -> None:
    """A run that was killed is published or not (it may have been killed while it told what it did), but never half."""
    if (output / "LATEST").exists():
        _check_readers(reference, output)
    else:
        need(killed.code != 0, "a run that was done is not published")


def _check_readers(reference: Reference, output: Path) -> None:
    """What LATEST names is complete, by its manifest, and has the tables of this run."""
    name = (output / "LATEST").read_text().strip()
    need((output / "runs" / name / "manifest.json").exists(), "LATEST names a run without a manifest")
    for table in world.TABLES:
        world.check_same(reference.world.run_dir(reference.output) / table, output / "runs" / name / table)


def _same(worst: float) -> str:
    return f"tables equal within {worst:.1g}" if worst else "tables equal"

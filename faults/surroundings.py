"""What surrounds a run fails: the disk fills, the output becomes read-only, files are cut off under its hands."""

import contextlib
import dataclasses
import os
import random
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from faults import command, world
from faults.world import Reference, World, need

SETTLE = 60.0


class Disk:
    """A small file system in memory; `available` where this process may mount one."""

    def __init__(self, path: Path, megabytes: float) -> None:
        path.mkdir(parents=True)
        self.path = path
        self.available = self._mount("-t", "tmpfs", "-o", f"size={int(megabytes * 2**20)}", "tmpfs")

    def _mount(self, *words: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return subprocess.run(["mount", *words, str(self.path)], capture_output=True).returncode == 0
        return False

    def remount(self, options: str) -> None:
        """Changes its options; waits for a moment in which no file is open for writing."""
        until = time.monotonic() + SETTLE
        while not self._mount("-o", f"remount,{options}"):
            need(time.monotonic() < until, f"the disk cannot be made {options}")
            time.sleep(0.002)

    def remove(self) -> None:
        """Takes it away with all that is on it."""
        if self.available:
            subprocess.run(["umount", str(self.path)], check=True)


def full_disks(reference: Reference, base: Path, moments: random.Random, times: int) -> Iterator[str]:
    """The output's disk is too small for the run, by chance a little or much; then it has room."""
    size = sum(path.stat().st_size for path in reference.output.rglob("*") if path.is_file()) / 2**20
    for number in range(times):
        megabytes = size * moments.uniform(0.1, 0.9)
        disk = Disk(base / f"full-{number}", megabytes)
        scratch = base / f"full-{number}-scratch"
        if not disk.available:
            yield "full disk: a file system cannot be mounted here; see the limit on the size of files"
            return
        try:
            output = disk.path / "out"
            failed = command.run(reference.world.words(output, *reference.words), scratch)
            world.check_one_line(failed, "No space left on device")
            world.check_unpublished(output)
            disk.remount("size=1g")
            yield f"full disk of {megabytes:.2f} of {size:.2f} MB: {_mended(reference, output, scratch, failed)}"
        finally:
            disk.remove()


def small_files(reference: Reference, base: Path, moments: random.Random, times: int) -> Iterator[str]:
    """No file may have more than some bytes (RLIMIT_FSIZE), which is how a full disk looks to a program."""
    sizes = sorted(path.stat().st_size for path in reference.output.rglob("*.parquet"))
    for number in range(times):
        limit = moments.choice(sizes[len(sizes) // 2 : -1])
        output, scratch = base / f"small-{number}", base / f"small-{number}-scratch"

        def prepare(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        failed = command.run(reference.world.words(output, *reference.words), scratch, prepare)
        world.check_one_line(failed, "File too large")
        world.check_unpublished(output)
        yield f"no file above {limit:,} bytes: {_mended(reference, output, scratch, failed)}"
        shutil.rmtree(output)


def read_only(reference: Reference, base: Path, moments: random.Random, times: int) -> Iterator[str]:
    """The output's file system becomes read-only while the run is at work."""
    for number in range(times):
        disk = Disk(base / f"read-only-{number}", 1024)
        scratch = base / f"read-only-{number}-scratch"
        if not disk.available:
            yield "read-only: a file system cannot be mounted here"
            return
        try:
            output = disk.path / "out"
            process = command.Command(reference.world.words(output, *reference.words), scratch)
            stage, moment = reference.moment(moments, by_stage=True, last=0.8)
            process.wait_for(stage)
            process.sleep(moment)
            disk.remount("ro")
            failed = process.finish()
            world.check_one_line(failed, "Read-only file system")
            world.check_unpublished(output)
            disk.remount("rw")
            yield f"read-only at {stage} + {moment:.1f} s: {_mended(reference, output, scratch, failed)}"
        finally:
            disk.remove()


def shrinking_inputs(reference: Reference, base: Path, moments: random.Random, times: int) -> Iterator[str]:
    """An input file loses its end while ingest reads it."""
    for number in range(times):
        copied, output, scratch = (base / f"shrink-{number}{end}" for end in ("-world", "", "-scratch"))
        shutil.copytree(reference.world.root, copied)
        moved = _moved(reference.world, copied)
        victim = copied / "interactions-9.jsonl"
        # Duplicates: the tables stay as they are, but ingest reads for some seconds.
        line = (copied / "interactions-3.jsonl").read_bytes().split(b"\n")[0] + b"\n"
        victim.write_bytes(line * 600_000)
        whole = os.stat(victim)
        process = command.Command(moved.words(output, *reference.words), scratch)
        process.wait_for("[1/")
        moment = moments.uniform(1.0, 2.0)
        process.sleep(moment)
        os.truncate(victim, whole.st_size // 3)
        failed = process.finish()
        world.check_one_line(failed, "interactions-9.jsonl has changed")
        world.check_unpublished(output)
        victim.write_bytes(line * 600_000)
        done = command.run(moved.words(output, *reference.words), scratch)
        need(done.code == 0, f"the same command failed after mending: {done.message}")
        for table in world.TABLES:
            if not table.startswith("rejects"):  # which name other files
                dirs = reference.world.run_dir(reference.output), moved.run_dir(output)
                world.check_same(dirs[0] / table, dirs[1] / table)
        yield f"input cut off after {moment:.1f} s: {failed.message.split(': ', 1)[1]}; then tables equal"
        shutil.rmtree(copied)


def cut_shards(reference: Reference, base: Path, moments: random.Random, times: int) -> Iterator[str]:
    """A file of a table is cut off after its stage, just before the next one reads it."""
    victims = [("[3/", "features"), ("[4/", "posts"), ("[4/", "content"), ("[5/", "fused"), ("[6/", "history")]
    victims += [("[7/", "item_embeddings")]
    for number in range(times):
        before, table = moments.choice(victims)
        output, scratch = base / f"cut-{number}", base / f"cut-{number}-scratch"
        process = command.Command(reference.world.words(output, *reference.words), scratch)
        process.wait_for(before)
        shard = max((reference.world.run_dir(output) / table).glob("*.parquet"), key=lambda path: path.stat().st_size)
        os.truncate(shard, moments.randrange(shard.stat().st_size))
        failed = process.finish()
        world.check_one_line(failed, f"{table}/{shard.name} has")
        world.check_unpublished(output)
        yield f"{table}/{shard.name} cut off: {_mended(reference, output, scratch, failed)}"
        shutil.rmtree(output)


def _mended(reference: Reference, output: Path, scratch: Path, failed: command.Done) -> str:
    """Gives the same command again and says what came of it."""
    done = command.run(reference.world.words(output, *reference.words), scratch)
    need(done.code == 0, f"the same command failed after mending: {done.message}")
    world.check_whole(reference, output, scratch)
    said = failed.message.split(": ", 1)[-1]
    return f"{said!r}; then {len(world.redone(done))} stages in {done.seconds:.0f} s, tables equal"


def _moved(made: World, root: Path) -> World:
    """The world with its files in another place."""
    names = ("posts", "interactions", "users", "media_root")
    places = {name: getattr(made, name).replace(str(made.root), str(root)) for name in names}
    return dataclasses.replace(made, root=root, **places)

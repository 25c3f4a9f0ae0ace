"""Feeds broken rows and broken media to the program, seeded, and checks that it neither falls nor hangs nor miscounts.

    python -m faults.fuzz [--lines 10000] [--files 2000] [--seed 0] [--media DIR]

Rows: `fusefeed ingest` reads mutated posts, interactions and users. It has to end well, within its limit of memory, and
every line has to be a row, a reject or a duplicate. Media: mutated files go through the extractor as posts do. Every
file has to give features or exactly one reject, no group of files may take longer than its timeouts explain, and worker
and decoder process have to keep to their memory. DIR holds real media in folders named image, video and audio (default:
what lies beside the checkout); what is made in code is always among them.
"""

import argparse
import collections
import contextlib
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from faults import mutate

ROOT = Path(__file__).resolve().parents[1]
MEDIA = ROOT.parent / "shared" / "data" / "media"
TABLES = ("posts", "interactions", "users")
DECODE_SECONDS, DECODE_MIB = 10.0, 512
GROUP = 50  # Posts that are extracted at once.
# What a decoder takes besides what it decodes (pages of libraries); what the worker and `fusefeed ingest` may take.
STARTED_MIB, WORKER_MIB, INGEST_MIB = 192, 2048, 1024


class Broken(Exception):
    """Something that has to hold does not."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 1 where something did not hold."""
    options = parse(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="fusefeed-fuzz-") as folder:
            # Lines first: a command counts as its own what the process held that starts it.
            for line in fuzz_lines(Path(folder) / "lines", options.lines, options.seed):
                print(line, flush=True)
            for line in fuzz_media(Path(folder) / "media", options.files, options.seed, options.media):
                print(line, flush=True)
    except Broken as error:
        print(f"BROKEN: {error}", flush=True)
        return 1
    return 0


def fuzz_lines(folder: Path, number: int, seed: int) -> Iterator[str]:
    """Has `number` mutated lines ingested; gives what is worth telling.

    Raises:
      Broken: the command fails, takes too much memory or miscounts.
    """
    chosen = random.Random(f"{seed} lines")
    folder.mkdir(parents=True)
    words, num_lines = ["--output", str(folder / "out"), "--run_date", "2026-02-01"], {}
    for table in TABLES:
        num_lines[table] = _write_lines(folder, table, -(-number // len(TABLES)), chosen)
        words += [f"--{table}", str(folder / f"{table}*.jsonl*")]
    began = time.monotonic()
    code, peak_mib = _ingest(words)
    seconds = time.monotonic() - began
    if code:
        raise Broken(f"ingest of mutated lines ends with {code}")
    if peak_mib > INGEST_MIB:
        raise Broken(f"ingest took {peak_mib:.0f} MiB, expected at most {INGEST_MIB}")
    rejects = _check_rows(folder / "out" / "runs" / "2026-02-01", num_lines)
    total = sum(num_lines.values())
    yield f"lines: {total} read, {sum(rejects.values())} rejected, {seconds:.0f} s, peak {peak_mib:.0f} MiB"
    yield _listed(rejects)


def _write_lines(folder: Path, table: str, number: int, chosen: random.Random) -> int:
    """Three files of mutated lines, one of them compressed; returns how many lines are not blank."""
    real = mutate.real_rows(table, 50)
    filled = 0
    for part in range(3):
        # The first line is whole: a byte order mark there would be none of its own.
        lines = [real[0], *(mutate.mutate_line(chosen, real) for _ in range(-(-number // 3)))]
        data = b"\n".join(lines)
        filled += sum(bool(line.strip(b" \t\r")) for line in data.split(b"\n"))
        path = folder / f"{table}{part}.jsonl"
        if part:
            path.write_bytes(data)
        else:
            path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(data))
    return filled


def _ingest(words: Sequence[str]) -> tuple[int, float]:
    """Runs `fusefeed ingest`: its exit code and its peak in MiB."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "pipelines.cli", "ingest", *words], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, _mib(usage.ru_maxrss)


def _check_rows(run: Path, num_lines: Mapping[str, int]) -> "collections.Counter[str]":
    """The codes of the rejects, if lines, rows, duplicates and rejects add up."""
    import pyarrow.parquet as pq

    counted = json.loads((run / "posts" / "_counts.json").read_text())
    for table in TABLES:
        parts = {name: counted.get(f"{table}.{name}", 0) for name in ("read", "written", "rejected", "duplicates")}
        rows = sum(pq.read_metadata(path).num_rows for path in (run / table).glob("*.parquet"))
        if parts["read"] != num_lines[table] or parts["written"] != rows:
            raise Broken(f"{table}: {num_lines[table]} lines and {rows} rows on disk, but counted {parts}")
        if parts["read"] != parts["written"] + parts["rejected"] + parts["duplicates"]:
            raise Broken(f"{table} do not reconcile: {parts}")
    codes: list[str] = []
    for path in (run / "rejects" / "ingest").glob("*.parquet"):
        codes += pq.read_table(path).column("code").to_pylist()
    rejected = sum(counted.get(f"{table}.rejected", 0) for table in TABLES)
    if len(codes) != rejected:
        raise Broken(f"{rejected} rows are counted as rejected, but the rejects have {len(codes)}")
    return collections.Counter(codes)


def fuzz_media(folder: Path, number: int, seed: int, media: Path) -> Iterator[str]:
    """Has `number` mutated files extracted; gives what is worth telling.

    Raises:
      Broken: a file is lost or counted twice, a group takes too long, or too much memory is taken.
    """
    from pipelines.stage import peak_memory
    from transforms.extract.extract_features import Extractor
    from transforms.extract.reuse import MediaKeys
    from transforms.media.media_files import MediaLimits

    chosen = random.Random(f"{seed} media")
    folder.mkdir(parents=True)
    names = _write_media(folder, number, chosen, media)
    limits = MediaLimits(max_decode_seconds=DECODE_SECONDS, max_decode_mib=DECODE_MIB)
    encoders = {"image": "opencv", "video": "opencv", "audio": "logmel"}
    extractor = Extractor(encoders, {}, MediaKeys([str(folder)], "fuzz"), limits, 16, GROUP)
    codes: collections.Counter[str] = collections.Counter()
    worst, began = 0.0, time.monotonic()
    peak_memory.reset_peak()
    watch = _Watch(lambda: extractor.decoder.pid)
    for start in range(0, len(names), GROUP):
        group_began = time.monotonic()
        found = _extract(extractor, names[start : start + GROUP])
        # A crash may take the file's time twice, as it is tried again in a new process.
        slow = found["decoder_timeout"] + 2 * (found["decoder_crashed"] + found["decoder_memory"])
        spent = time.monotonic() - group_began - slow * DECODE_SECONDS
        if spent > GROUP * DECODE_SECONDS:
            raise Broken(f"a group of {GROUP} files took {spent:.0f} s beyond its timeouts")
        worst = max(worst, spent)
        codes.update(found)
    seconds, worker_mib = time.monotonic() - began, peak_memory.peak_bytes() / 2**20
    decoder_mib = watch.stop()
    extractor.close()
    if decoder_mib > DECODE_MIB + STARTED_MIB or worker_mib > WORKER_MIB:
        raise Broken(f"the decoder took {decoder_mib:.0f} MiB, the worker {worker_mib:.0f} MiB")
    yield (
        f"media: {len(names)} files, {codes.total()} rejected, {seconds:.0f} s, slowest {GROUP} {worst:.1f} s, "
        f"{extractor.decoder.num_started} decoder processes, peak {decoder_mib:.0f} MiB, worker {worker_mib:.0f} MiB"
    )
    yield _listed(codes)


def _write_media(folder: Path, number: int, chosen: random.Random, media: Path) -> list[tuple[str, str]]:
    """Mutated files; (kind, name) of each."""
    seeds = mutate.made_media()
    for kind, files in seeds.items():
        files += [path.read_bytes() for path in sorted((media / kind).glob("*")) if path.stat().st_size]
    names = []
    for index in range(number):
        kind = chosen.choice(sorted(seeds))
        # One in ten is spliced with files of other kinds, too.
        files = seeds[kind] if chosen.random() < 0.9 else [file for each in seeds.values() for file in each]
        names.append((kind, f"{index}.bin"))
        (folder / names[-1][1]).write_bytes(mutate.mutate_file(chosen, files))
    return names


def _extract(extractor: Any, names: Sequence[tuple[str, str]]) -> "collections.Counter[str]":
    """The codes of the rejects of some files, a post each, if every file has features or one reject."""
    import pyarrow as pa

    from transforms.tables import schemas
    from transforms.tables.rejects import CODES

    rows = [{"post_id": name, "sensitive": False, "media": [{"kind": kind, "uri": name}]} for kind, name in names]
    made = extractor.extract(pa.RecordBatch.from_pylist(rows, schema=schemas.POSTS))
    rejected = made.rejects.column("id").to_pylist()
    described = [
        row["post_id"]
        for row in made.features.select(["post_id", *extractor.encoders]).to_pylist()
        if any(row[kind] is not None for kind in extractor.encoders)
    ]
    if sorted(rejected + described) != sorted(name for _, name in names):
        raise Broken(f"{len(names)} files, but {len(described)} with features and {len(rejected)} rejects")
    counted = {what: _counted(made.counts, what) for what in ("referenced", "features", "rejected", "missing")}
    if counted != {"referenced": len(names), "features": len(described), "rejected": len(rejected), "missing": 0}:
        raise Broken(f"media do not reconcile: {counted}")
    codes = collections.Counter(made.rejects.column("code").to_pylist())
    if codes.keys() - CODES.keys():
        raise Broken(f"unknown codes: {sorted(codes.keys() - CODES.keys())}")
    return codes


def _counted(counts: Mapping[str, int], outcome: str) -> int:
    return sum(number for name, number in counts.items() if name.startswith("media.") and name.endswith(f".{outcome}"))


class _Watch:
    """The highest peak, in MiB, of processes that come and go, as often looked at as it takes to miss little (Linux).

    What a parent is told of its ended children is no use: it counts what the parent itself held when they began.
    """

    def __init__(self, find: Callable[[], int | None]) -> None:
        self._find, self._peak, self._stopped = find, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._stopped.wait(0.02):
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{self._find()}/status").read_text().splitlines()
                peak = next(line for line in lines if line.startswith("VmHWM:"))
                self._peak = max(self._peak, int(peak.split()[1]) / 2**10)

    def stop(self) -> float:
        """Stops looking; the peak."""
        self._stopped.set()
        self._thread.join()
        return self._peak


def _listed(codes: "collections.Counter[str]") -> str:
    return "  " + ", ".join(f"{code} {number}" for code, number in codes.most_common())


def _mib(maxrss: int) -> float:
    return maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m faults.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--lines", type=int, default=10_000, help="mutated lines (default 10000)")
    parser.add_argument("--files", type=int, default=2_000, help="mutated media files (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default 0)")
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder of real media")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())

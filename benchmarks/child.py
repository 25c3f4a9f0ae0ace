"""What a child process does: makes data, runs a side when told to, or checks results. Answers are lines of JSON.

python -m benchmarks.child prepare MODULE FOLDER SCALE | serve MODULE FOLDER SIDE | check MODULE FOLDER
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, Run, load
from benchmarks.process import Unavailable
from pipelines.stage import peak_memory


def main() -> None:
    """Does what the words say."""
    action, module, folder, *words = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    # Whatever the libraries print goes where errors go: standard output is for the answers.
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    benchmark = load(module)
    if action == "prepare":
        answer(dict(benchmark.prepare(Path(folder), float(words[0]))))
    elif action == "check" and benchmark.check is not None:
        answer(dict(benchmark.check(Path(folder))))
    elif action == "serve":
        serve(benchmark, words[0], Path(folder), answer)


def serve(benchmark: Benchmark, name: str, folder: Path, answer: Callable[[dict[str, Any]], None]) -> None:
    """Starts a side, then measures one repetition for every line on standard input."""
    side = next(side for side in benchmark.sides if side.name == name)
    try:
        run = side.start(folder)
    except Unavailable as reason:
        answer({"skip": str(reason)})
        return
    except ImportError as reason:
        if not side.needs:
            raise
        answer({"skip": f"cannot be imported: {reason}"})
        return
    answer({"ready": name})
    for _ in sys.stdin:
        answer(measure(run))


def measure(run: Run) -> dict[str, Any]:
    """seconds, cpu_seconds, peak_bytes and facts of one repetition."""
    gc.collect()
    peak_memory.reset_peak()
    began, cpu_began = time.perf_counter(), time.process_time()
    done = run()
    took = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu_began,
        "peak_bytes": peak_memory.peak_bytes(),
    }
    facts = dict(done() if callable(done) else done)
    return {name: facts.pop(name, value) for name, value in took.items()} | {"facts": facts}


if __name__ == "__main__":
    main()

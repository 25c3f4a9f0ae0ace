"""The command `fusefeed`: finds the stage and hands it the words that follow."""

import importlib
import sys
from collections.abc import Sequence

from pipelines.command_line import console
from pipelines.command_line.options import Options, parse

COMMANDS = {
    "run": "all stages in order, from raw posts to published recommendation tables",
    "demo": "makes a small world with a known answer and runs everything on it",
    "ingest": "raw posts, interactions and users -> one canonical form",
    "extract": "posts -> features of every modality",
    "fuse": "features -> one content vector a post, and the transform that makes it",
    "factorize": "interactions -> collaborative factors, tuned beside content",
    "train": "fused vectors -> the multimodal autoencoder",
    "embed": "fused vectors and interactions -> embeddings of posts and users",
    "recommend": "embeddings -> recommendations and similar posts",
    "validate": "whether every table is as declared, and its statistics",
    "evaluate": "a backtest of the same stages, beside baselines",
    "purge": "removes the runs that still have ids which --erase names",
}

USAGE = """usage: fusefeed COMMAND [flags] [-- Beam flags]

{commands}

fusefeed COMMAND --help lists the flags.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the words name. Returns the exit code: 0 done, 1 failed, 2 bad usage, 3 not published."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        commands = "\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items())
        print(USAGE.format(commands=commands), end="")
        return console.DONE if words else console.BAD_USAGE
    if words[0] not in COMMANDS:
        print(f"fusefeed: unknown command {words[0]!r}, expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return console.BAD_USAGE
    name = words[0]
    return console.exit_code(f"fusefeed {name}", lambda: run_command(name, parse(name, COMMANDS[name], words[1:])))


def run_command(name: str, options: Options) -> int:
    """Runs a command, a stage or one that has its own function; returns the exit code."""
    module = importlib.import_module(f"pipelines.{name}")
    if hasattr(module, "STAGE"):
        from pipelines.stage import execute

        execute.command(module.STAGE, options)
        return console.DONE
    code: int = getattr(module, name)(options)
    return code


if __name__ == "__main__":
    sys.exit(main())

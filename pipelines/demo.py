"""Makes the demo world, a small social network whose right answer is known, and runs everything on it.

Writes OUTPUT/world/ (the input) and OUTPUT/runs/ (the result).

    fusefeed demo --output demo-output
"""

import sys
from collections.abc import Sequence

from pipelines import run
from pipelines.command_line import console
from pipelines.command_line.options import Options, parse
from pipelines.store import paths

DESCRIPTION = "Makes a small world with a known answer and runs everything on it. Takes the flags of `fusefeed run`."
DEFAULT_OUTPUT = "demo-output"


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    return console.exit_code("fusefeed demo", lambda: demo(parse("demo", DESCRIPTION, _words(argv))))


def _words(argv: Sequence[str] | None) -> list[str]:
    return list(sys.argv[1:] if argv is None else argv)


def demo(options: Options) -> int:
    """Makes the world and runs all stages; what the flags say of input and run date gives way to the world's."""
    import dataclasses

    from pipelines.demo_world import make_world

    output = options.output or DEFAULT_OUTPUT
    world_dir = paths.join(output, "world")
    paths.check_writable(world_dir)
    world = make_world(world_dir)
    return run.run(
        dataclasses.replace(
            options,
            posts=world.posts,
            interactions=world.interactions,
            users=world.users,
            media_root=(world.media_root,),
            output=output,
            run_date=world.run_date,
        )
    )


if __name__ == "__main__":
    sys.exit(main())

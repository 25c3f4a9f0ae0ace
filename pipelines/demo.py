"""Makes the demo world, a small social network whose right answer is known, and runs everything on it.

Writes OUTPUT/world/ (the input) and OUTPUT/runs/ (the result).

    fusefeed demo --output demo-output
"""

from pipelines import run
from pipelines.command_line.options import Options
from pipelines.store import paths
from transforms.tables import files

DEFAULT_OUTPUT = "demo-output"


def demo(options: Options) -> int:
    """Makes the world and runs all stages; what the flags say of input and run date gives way to the world's."""
    import dataclasses

    from pipelines.demo_world import make_world

    output = options.output or DEFAULT_OUTPUT
    world_dir = files.join(output, "world")
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

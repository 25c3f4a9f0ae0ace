"""SIGKILL for many small runs; `make faults` has more of them, and real runs."""

from pathlib import Path

import pytest

from faults import moments, world
from pipelines.command_line.options import Options
from transforms.tables import files


def test_killed_at_any_moment_runs_never_show_a_half(tmp_path: Path) -> None:
    said = moments.in_a_process(tmp_path / "runs", seed=0, times=60)
    assert said.endswith("killed: readers never met half a run, nothing is left")
    assert int(said.split()[0]) > 10


def test_the_check_sees_half_a_run(tmp_path: Path) -> None:
    moments.run.make_runs(
        Options(output=str(tmp_path), run_date="2026-01-01", k=2, latent=3, no_evaluate=True), moments.STAGES
    )
    moments.check_reader(tmp_path, "2026-01-01")
    directory = tmp_path / "runs" / "2026-01-01"
    for part in range(3):
        files.write_text(f"{directory}/k/part-{part}.txt", "4\n")
    with pytest.raises(world.Broken, match=r"has \[4, 3, 6\], its manifest k = 2 and latent = 3"):
        moments.check_reader(tmp_path, "2026-01-01")
    (directory / "k" / "part-0.txt").unlink()
    with pytest.raises(world.Broken, match="is not what the manifest lists"):
        moments.check_reader(tmp_path, "2026-01-01")

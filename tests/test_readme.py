"""The README says what is true of the code where that can be checked."""

import re
from pathlib import Path

from pipelines import cli
from transforms.tables import rejects

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_every_reject_code_is_documented_as_in_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", README, re.MULTILINE)
    documented = {code: (meaning, remedy) for code, meaning, remedy in rows if code in rejects.CODES}
    assert documented == dict(rejects.CODES)


def test_every_stage_is_documented() -> None:
    stages = set(cli.COMMANDS) - {"run", "demo", "purge"}
    assert stages == set(re.findall(r"^\| `(\w+)` \|.+\|.+\|.+\|$", README, re.MULTILINE)) & stages


def test_the_first_two_commands_are_the_demo_and_the_tests() -> None:
    first = re.search(r"```\n(.+?)```", README, re.DOTALL)
    assert first is not None
    assert [line.split("#")[0].strip() for line in first[1].strip().splitlines()] == ["make demo", "make test"]

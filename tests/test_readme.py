"""The README and the pages in docs/ say what is true of the code where that can be checked."""

import re
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.command_line import options
from transforms.tables import rejects

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STAGES = (ROOT / "docs" / "stages.md").read_text(encoding="utf-8")
REJECT_CODES = (ROOT / "docs" / "reject-codes.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_reject_code_is_documented_as_in_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", REJECT_CODES, re.MULTILINE)
    documented = {code: (meaning, remedy) for code, meaning, remedy in rows}
    assert documented == dict(rejects.CODES)
    assert len(rows) == len(documented)


def test_every_stage_is_documented() -> None:
    stages = set(cli.COMMANDS) - {"run", "demo", "purge"}
    assert stages == set(re.findall(r"^\| `(\w+)` \|.+\|.+\|.+\|$", STAGES, re.MULTILINE))


def test_the_first_two_commands_are_the_demo_and_the_tests() -> None:
    first = re.search(r"```\n(.+?)```", README, re.DOTALL)
    assert first is not None
    assert [line.split("#")[0].strip() for line in first[1].strip().splitlines()] == ["make demo", "make test"]


def test_the_readme_is_short() -> None:
    assert len(README.split()) < 700


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    relative = [link.split("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    assert [link for link in relative if not (page.parent / link).exists()] == []


def test_the_readme_links_to_every_page_of_docs() -> None:
    linked = set(re.findall(r"\]\(docs/([^)#\s]+)", README))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_every_flag_is_documented_as_its_help_says() -> None:
    assert (ROOT / "docs" / "flags.md").read_text(encoding="utf-8") == options.reference()

"""The rule of the tree: pipelines import transforms and model; these import only themselves and never each other."""

import ast
import shutil
from pathlib import Path

import pytest
import setuptools

from pipelines.stage import fingerprint

ROOT = Path(__file__).resolve().parents[1]
OURS = {"pipelines", "transforms", "model", "tests", "examples", "benchmarks", "faults"}
MAY_IMPORT = {"transforms": {"transforms"}, "model": {"model"}, "pipelines": {"pipelines", "transforms", "model"}}


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_they_may(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert _imported(path) & OURS <= MAY_IMPORT[package], path


# What each folder may import of the others beside it; every folder stands here, and nothing that is not needed.
TRANSFORMS = {
    "tables": set(),
    "linalg": {"tables"},
    "ingest": {"tables", "linalg"},
    "text": {"tables", "linalg"},
    "interactions": {"tables", "linalg"},
    "search": {"tables", "linalg"},
    "media": {"tables"},
    "metrics": {"linalg"},
    "extract": {"tables", "media", "text"},
    "fuse": {"tables", "linalg", "text"},
    "validate": {"tables", "text"},
    "embed": {"tables", "linalg", "text", "fuse"},
    "tuning": {"tables", "linalg", "fuse", "embed", "metrics"},
    "recommend": {"tables", "linalg", "text", "interactions", "search", "embed"},
    "evaluate": {"tables", "linalg", "fuse", "embed", "metrics", "ingest", "interactions", "search"},
}
COMMANDS = {"ingest", "extract", "fuse", "factorize", "train", "embed", "recommend", "validate", "evaluate"}
PIPELINES = {
    "command_line": set(),
    "store": {"command_line"},
    "stage": {"command_line", "store"},
    "continuity": {"command_line", "store", "stage"},
    "publishing": {"command_line", "store", "stage"},
    "backtesting": {
        "command_line",
        "store",
        "stage",
        "continuity",
        *COMMANDS - {"ingest", "extract", "validate", "evaluate"},
    },
}


def _siblings(path: Path, package: str) -> set[str]:
    """Modules and folders directly in a package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            top, *rest = node.module.split(".")
            if top == package:
                found |= {rest[0]} if rest else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & OURS, f"{path}: write `from ... import`"
    return found


@pytest.mark.parametrize(("package", "walls"), [("transforms", TRANSFORMS), ("pipelines", PIPELINES)])
def test_folders_import_only_what_they_may(package: str, walls: dict[str, set[str]]) -> None:
    folders = {path.parent for path in (ROOT / package).glob("*/__init__.py")} - {ROOT / package / "demo_world"}
    assert {folder.name for folder in folders} == walls.keys()
    for folder in folders:
        imported = set().union(*(_siblings(path, package) for path in folder.rglob("*.py")))
        assert imported - {folder.name} == walls[folder.name], folder


# Modules that use Beam without a transform: a coder of Arrow blocks, and an object loaded once a process.
USE_BEAM = {"tables/files.py", "tables/blocks.py", "embed/exported_model.py"}


def test_only_files_with_a_transform_import_beam() -> None:
    folder, found = ROOT / "transforms", set()
    for path in folder.rglob("*.py"):
        bases = {
            ast.unparse(base).split(".")[-1]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ClassDef)
            for base in node.bases
        }
        if "apache_beam" in _imported(path) and not bases & {"PTransform", "DoFn"}:
            found.add(path.relative_to(folder).as_posix())
    assert found == USE_BEAM


def test_one_module_uses_the_file_systems_of_beam() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for package in MAY_IMPORT
        for path in (ROOT / package).rglob("*.py")
        if "apache_beam.io.filesystem" in path.read_text(encoding="utf-8")
    }
    assert found == {"transforms/tables/files.py"}


def test_every_module_of_transforms_has_a_folder() -> None:
    assert [path.name for path in (ROOT / "transforms").glob("*.py")] == ["__init__.py"]
    assert len(list((ROOT / "pipelines").glob("*.py"))) <= 15


def test_a_stage_uses_no_other_stage() -> None:
    for name in COMMANDS:
        imported = _siblings(ROOT / "pipelines" / f"{name}.py", "pipelines")
        assert not imported & COMMANDS, name


def test_the_model_knows_no_beam_and_beam_transforms_no_keras_2() -> None:
    for path in (ROOT / "model").rglob("*.py"):
        assert not _imported(path) & {"apache_beam", "tensorflow_transform"}, path
    for path in (ROOT / "model").rglob("*.py"):
        assert "tf.keras" not in path.read_text(encoding="utf-8"), path


def test_no_machine_path_is_written_anywhere() -> None:
    for folder in (*MAY_IMPORT, "tests", "examples", "benchmarks", "faults"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "/" + "work/" not in text and "/" + "root/" not in text, path


def test_code_in_a_new_subfolder_is_fingerprinted(tmp_path: Path) -> None:
    for package in MAY_IMPORT:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    before = fingerprint.code_fingerprint(tmp_path)
    assert before == fingerprint.code_fingerprint(ROOT) == fingerprint.versions()[fingerprint.FUSEFEED][:16]
    for package in MAY_IMPORT:
        folder = tmp_path / package / "new" / "deeper"
        folder.mkdir(parents=True)
        (folder / "module.py").write_text("ANSWER = 41\n")
        added = fingerprint.code_fingerprint(tmp_path)
        (folder / "module.py").write_text("ANSWER = 42\n")
        changed = fingerprint.code_fingerprint(tmp_path)
        assert len({before, added, changed}) == 3, package
        before = changed


def test_every_folder_of_code_is_packaged(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, list[str]] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    monkeypatch.chdir(ROOT)
    exec(compile((ROOT / "setup.py").read_text(), "setup.py", "exec"), {"__name__": "setup"})
    folders = {path.parent.relative_to(ROOT) for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py")}
    assert set(given["packages"]) == {".".join(folder.parts) for folder in folders}


def _classes() -> list[tuple[Path, ast.ClassDef]]:
    files = [path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py")]
    nodes = [(path, node) for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    return [(path, node) for path, node in nodes if isinstance(node, ast.ClassDef)]


def test_no_two_classes_have_the_same_name() -> None:
    names = [node.name for _, node in _classes()]
    assert len(names) > 100
    assert {name for name in names if names.count(name) > 1} == set()


def test_every_public_transform_has_an_example() -> None:
    for path, node in _classes():
        bases = " ".join(ast.unparse(base) for base in node.bases)
        if "PTransform" in bases and not node.name.startswith("_"):
            assert "Example:" in (ast.get_docstring(node) or ""), f"{path}: {node.name}"

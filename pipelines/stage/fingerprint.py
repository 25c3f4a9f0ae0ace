"""Fingerprints of stages: if and why a stage has to be run again.

A stage's report (`_stages/NAME.json`) records what it was made from: versions, the flags that it depends on, files from
outside the run, and which execution of each earlier stage it read. It is done again when any of that is another now, or
when its own files are not as it left them.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.command_line.options import Options, RunError
from transforms.tables import files

if TYPE_CHECKING:
    from pipelines.stage.declaration import Stage
    from pipelines.stage.reports import Report

PACKAGES = (
    "apache-beam",
    "tensorflow",
    "keras",
    "tensorflow-transform",
    "pyarrow",
    "opencv-python-headless",
    "pillow",
    "av",
)
FUSEFEED = "fusefeed"
ROOT = Path(__file__).resolve().parents[2]
CODE = ("model", "pipelines", "transforms")
UNCHANGED = ""


@dataclasses.dataclass(frozen=True)
class Origin:
    """Everything that a stage is made from.

    Attributes:
      run: the run's name, which decides which rows lie in the future.
      versions: of the packages whose code makes the tables, of Python and of fusefeed.
      options: the flags that the stage depends on.
      files: (path, bytes, time of the last change) of what it reads from outside the run, by flag.
      roots: (folder, number of files, bytes, a hash over all their paths, sizes and times) of --media_root.
      stages: the stages that it reads and which execution of each it was (`Report.id`).
    """

    run: str
    versions: Mapping[str, str]
    options: Mapping[str, Any]
    files: Mapping[str, Sequence[files.FileState]]
    roots: Sequence[tuple[str, int, int, str]]
    stages: Mapping[str, str] = dataclasses.field(default_factory=dict)


def origin(stage: "Stage", options: Options) -> Origin:
    """Current origin of a stage, without the stages before it."""
    return Origin(
        run=options.run_name,
        versions=versions(),
        options={name: getattr(options, name) for name in option_names(stage.options)},
        files={name: file_states(getattr(options, name)) for name in stage.files if getattr(options, name)},
        roots=[root_state(root, options.output) for root in options.media_root] if stage.reads_media else [],
    )


def option_names(options: Iterable[type | str]) -> list[str]:
    """Names of the flags that are given by themselves or as the dataclass of a stage."""
    names = {name for each in options for name in _names_of(each)}
    return [field.name for field in dataclasses.fields(Options) if field.name in names]


def _names_of(options: type | str) -> list[str]:
    return [options] if isinstance(options, str) else [field.name for field in dataclasses.fields(options)]


@functools.cache
def versions() -> dict[str, str]:
    """Of Python and the packages whose code makes the tables; fusefeed's is a hash of its code."""
    found = {"python": platform.python_version()}
    found |= {package: _version(package) for package in PACKAGES}
    return found | {FUSEFEED: code_fingerprint(ROOT)}


def code_fingerprint(root: Path) -> str:
    """Hash of all code that can change a table: 16 hex digits.

    Args:
      root: the folder that holds the packages.
    """
    return files.hash_sources([root / package for package in CODE])[:16]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # another distribution of the same library
        return "unknown"


def file_states(patterns: str) -> list[files.FileState]:
    """The input files that globs match, and those below a directory that is named, in the order of their paths."""
    globs = [word.removeprefix("keras:") for part in patterns.split(",") if (word := part.strip())]
    found = {state.path: state for state in files.match(*globs)}
    found = {path: state for path, state in found.items() if os.path.basename(path)[:1] not in ("_", ".")}
    below = [f"{glob.rstrip('/')}/**" for glob in globs if not files.is_local(glob) or os.path.isdir(glob)]
    found |= {state.path: state for state in files.match(*below)}
    return sorted(state for path, state in found.items() if not (files.is_local(path) and os.path.isdir(path)))


def root_state(root: str, output: str) -> tuple[str, int, int, str]:
    """State of a folder of media: (folder, files, bytes, hash). Files below the output are left out.

    The hash is a sum over the files, so that none of them has to be held: a folder may have millions.
    """
    number = total = sums = 0
    for path, size, changed in _media_files(root, output):
        number, total = number + 1, total + size
        digest = hashlib.blake2b(f"{path}\0{size}\0{changed}".encode(errors="surrogateescape"), digest_size=16)
        sums = (sums + int.from_bytes(digest.digest())) % (1 << 128)
    return root, number, total, f"{sums:032x}"


def _media_files(root: str, output: str) -> Iterable[files.FileState]:
    if not files.is_local(root):
        yield from file_states(f"{root.rstrip('/')}/**")
        return
    skipped = os.path.realpath(output) if output and files.is_local(output) else ""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not skipped or os.path.realpath(f"{folder}/{name}") != skipped]
        for name in names:
            path = os.path.join(folder, name)
            try:
                found = os.stat(path)
            except OSError:  # a link to nowhere, or gone meanwhile: what extract finds too
                continue
            yield files.FileState(path, found.st_size, found.st_mtime)


def why_again(report: "Report | None", now: Origin, directory: str) -> str:
    """In a few words why a stage has to be done (again); UNCHANGED where what it left still stands.

    Args:
      report: what it left; None where it is not complete.
      now: what it would be made from, with the stages that it reads.
      directory: the run's.
    """
    if report is None:
        return "not done yet"
    if report.origin is None:
        return "its report does not record what it was made from"
    return difference(report.origin, now) or damage(report, directory)


def difference(then: Mapping[str, Any], now: Origin) -> str:
    """The first thing that is another now than in the origin of a report; UNCHANGED where none is."""
    current = files.plain(dataclasses.asdict(now))
    if then.keys() != current.keys():
        return "its report is of another version of fusefeed"
    for name, execution in current["stages"].items():
        if then["stages"].get(name) != execution:
            return f"{name} was done again"
    for package, version in current["versions"].items():
        if (before := then["versions"].get(package)) != version:
            changed = "fusefeed's code has changed" if package == FUSEFEED else f"{package} was {before}, is {version}"
            return changed
    for name, value in current["options"].items():
        if (before := then["options"].get(name)) != value:
            return f"--{name} was {_shown(before)}, is {_shown(value)}"
    for name in sorted(then["files"].keys() | current["files"].keys()):
        if changed := changed_file(then["files"].get(name, []), current["files"].get(name, [])):
            return f"--{name}: {changed}"
    if then["roots"] != current["roots"]:
        return "the files below --media_root have changed"
    return "" if then["run"] == current["run"] else f"it was made for {then['run']}"


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value) if value != "" else "not given"


def changed_file(then: Sequence[Sequence[Any]], now: Sequence[Sequence[Any]]) -> str:
    """The first file that is not as it was, in a few words."""
    before, after = ({path: list(state) for path, *state in states} for states in (then, now))
    for path in sorted(before.keys() | after.keys()):
        if path not in after:
            return f"{path} is gone"
        if path not in before:
            return f"{path} is new"
        if before[path] != after[path]:
            sizes = before[path][0], after[path][0]
            return f"{path} has changed" + (f" from {sizes[0]:,} to {sizes[1]:,} bytes" if sizes[0] != sizes[1] else "")
    return ""


def damage(report: "Report", directory: str, tables: Sequence[str] | None = None) -> str:
    """First difference between the files of a stage's tables and its report; "" if all are there, whole."""
    for table, left in report.files.items():
        if tables is not None and table not in tables:
            continue
        found = files.list_sizes(f"{directory}/{table}")
        if not left:
            return f"{table}/ has no files"
        for name, size in left.items():
            if name not in found:
                return f"{table}/{name} is gone"
            if found[name] != size:
                return f"{table}/{name} has {found[name]:,} bytes, not {size:,}"
        for name in sorted(found.keys() - left.keys()):
            if name.endswith(".parquet"):
                return f"{table}/{name} is none of its files"
    return ""


def check_read(stage: "Stage", reports: Iterable["Report"], directory: str) -> None:
    """Finds out whether the tables that a stage reads are as their stages left them.

    Raises:
      RunError: one is not: a shard is cut off or missing.
    """
    for report in reports:
        if set(report.files) & set(stage.reads) and (what := damage(report, directory, stage.reads)):
            raise RunError(f"{stage.name} cannot read what {report.stage} left: {what}; do {report.stage} again")


def check_unchanged(before: Origin, stage: str) -> None:
    """Finds out whether the input files are as they were before a stage read them; new ones do not count.

    Raises:
      RunError: one was changed, cut off or removed while it was read.
    """
    for name, states in before.files.items():
        now = [state for path, *_ in states if (state := files.read_state(path)) is not None]
        if changed := changed_file(states, now):
            raise RunError(f"--{name}: {changed} while {stage} read it; give the same command again")

"""Every flag of every stage, declared once: its type, default, range and meaning. Parsed strictly, before any work.

Nothing here imports Beam or TensorFlow, so that `--help` and a usage error are answered at once.
"""

import argparse
import dataclasses
import datetime
import difflib
import types
import typing
from collections.abc import Sequence
from typing import Any, NoReturn

T = typing.TypeVar("T")


def flag(
    default: T, help: str, *, low: float | None = None, high: float | None = None, choices: Sequence[str] = ()
) -> T:
    """A field of the options with its help, range and choices."""
    metadata = {"help": help, "low": low, "high": high, "choices": tuple(choices)}
    field: Any = dataclasses.field(default=default, metadata=metadata)
    return typing.cast(T, field)


@dataclasses.dataclass(frozen=True)
class InputOptions:
    """Input, output and the date of the run."""

    posts: str = flag("", "posts: globs of .jsonl(.gz), .parquet or .csv(.gz) files, comma-separated")
    interactions: str = flag("", "interactions: globs, as for --posts")
    users: str = flag("", "users (optional): globs, as for --posts")
    media_root: tuple[str, ...] = flag((), "folders in which media URIs are looked for, in this order")
    output: str = flag("", "directory in which runs/RUN_DATE/ and LATEST are written")
    run_date: str = flag(
        "", "YYYY-MM-DD: the run's name; later rows are dropped; `run` takes FIRST:LAST too (default: today, UTC)"
    )


@dataclasses.dataclass(frozen=True)
class SharedOptions:
    """All stages."""

    num_parts: int = flag(0, "files of each table (0: by the size of the input)", low=0, high=65_536)
    seed: int = flag(0, "seed of all randomness", low=0, high=2**31 - 1)


@dataclasses.dataclass(frozen=True)
class IngestOptions:
    """ingest: raw rows to canonical tables."""

    erase: str = flag("", "ids of users and posts to erase: a file (see docs/nightly.md)")


@dataclasses.dataclass(frozen=True)
class ExtractOptions:
    """extract: features of every modality."""

    image_encoder: str = flag("opencv", "opencv, keras:PATH or none")
    video_encoder: str = flag("opencv", "opencv or none", choices=("opencv", "none"))
    audio_encoder: str = flag("logmel", "logmel or none", choices=("logmel", "none"))
    max_media_bytes: int = flag(64 << 20, "largest media file", low=1, high=1 << 40)
    max_media_seconds: float = flag(120.0, "seconds of a clip or sound that are decoded", low=0.1, high=86_400)
    reject_long_media: bool = flag(False, "reject clips and sounds longer than --max_media_seconds")
    allow_media_host: tuple[str, ...] = flag(
        (), "hosts that media may be fetched from by http(s): HOST or *.DOMAIN, also with :PORT"
    )


@dataclasses.dataclass(frozen=True)
class FuseOptions:
    """fuse: content vectors."""

    vocabulary_size: int = flag(50_000, "most terms of the vocabulary", low=1, high=1_000_000)
    text_width: int = flag(128, "numbers of the text vector", low=1, high=1024)
    refit_days: int = flag(
        7,
        "days after which transform_fn and tuning are fitted anew (0: nothing is taken over, features neither)",
        low=0,
    )


@dataclasses.dataclass(frozen=True)
class FactorizeOptions:
    """factorize: collaborative factors."""

    kind_weights: str = flag("", "weights of kinds of interaction, as like=1,hide=-1 (see docs/stages.md)")
    factors: int = flag(128, "collaborative factors of a post", low=1, high=1024)
    half_life_days: float = flag(30.0, "age at which an interaction counts half (0: never)", low=0)


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """train: the autoencoder."""

    latent: int = flag(64, "width of the common representation", low=1, high=4096)
    epochs: int = flag(0, "most passes over the posts (0: by their number)", low=0, high=100_000)


@dataclasses.dataclass(frozen=True)
class RecommendOptions:
    """recommend: lists of posts."""

    k: int = flag(50, "recommendations for a user", low=1, high=10_000)
    similar_k: int = flag(20, "similar posts of a post (0: none)", low=0, high=1000)
    max_age_days: int = flag(0, "oldest post to recommend, from the end of --run_date (0: any)", low=0)
    max_per_author: int = flag(0, "most posts of one author in a list (0: any number)", low=0)
    diversity: float = flag(0.0, "weight of dissimilarity to the posts above, beside relevance", low=0, high=1)
    freshness_half_life_days: float = flag(
        0.0, "age at which a post's relevance counts half (0: age does not matter)", low=0
    )
    taste_share: float = flag(
        0.0, "least part of a list for each taste, relative to its share of the history", low=0, high=1
    )
    include_seen: bool = flag(False, "recommend posts that the user has interacted with")
    include_sensitive: bool = flag(False, "recommend posts marked sensitive")
    exclude_replies: bool = flag(False, "do not recommend replies")


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """evaluate: the backtest."""

    backtest_split: str = flag(
        "time",
        "time (one cut for all), user (each user's last) or cold (posts without interactions)",
        choices=("time", "user", "cold"),
    )
    backtest_days: float = flag(0.0, "hold out the last days of a time split (0: --backtest_fraction)", low=0)
    backtest_fraction: float = flag(0.2, "share that is held out", low=0.001, high=0.999)
    cold_posts: str = flag("", "the posts of a cold split: a file of ids, one a line")
    holdout: str = flag("", "held-out interactions: globs, instead of a split")
    ablations: str = flag(
        "none",
        "vectors without each part: none, quick (no training) or full (also retrained without each modality)",
        choices=("none", "quick", "full"),
    )


@dataclasses.dataclass(frozen=True)
class PublishOptions:
    """run: publishing."""

    no_evaluate: bool = flag(False, "run without the backtest, and so without the gate")
    gate_tolerance: float = flag(
        0.05, "relative loss against the last published run that is still published", low=0, high=1
    )
    no_gate: bool = flag(False, "publish whatever the evaluation says (recorded)")
    max_reject_ratio: float = flag(
        0.9, "share of an input's rows or of a kind of media that may be rejected", low=0, high=1
    )
    fail_on_drift: bool = flag(False, "publish nothing where statistics jump from those of the last published run")
    show_text: bool = flag(False, "show the first words of recommended posts in the summary")
    keep_runs: int = flag(0, "number of published runs that stay, the newest (0: all)", low=0)
    force: tuple[str, ...] = flag(
        (),
        "stages that `run` does again with what depends on them, though unchanged",
        choices=(
            *("all", "ingest", "extract", "fuse", "factorize", "train", "embed", "recommend", "validate", "evaluate"),
        ),
    )


# The groups of flags, in the order in which help and docs/flags.md show them.
GROUPS = (
    *(InputOptions, SharedOptions, IngestOptions, ExtractOptions, FuseOptions, FactorizeOptions, TrainOptions),
    *(RecommendOptions, EvaluateOptions, PublishOptions),
)


@dataclasses.dataclass(frozen=True)
class Options(
    InputOptions,
    SharedOptions,
    IngestOptions,
    ExtractOptions,
    FuseOptions,
    FactorizeOptions,
    TrainOptions,
    RecommendOptions,
    EvaluateOptions,
    PublishOptions,
):
    """All flags. Made by `parse`, or directly in tests.

    Raises:
      ValueError: a value is out of range; names the flag.
    """

    beam_args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.metadata:
                _check(field, getattr(self, field.name))
        if self.run_date:
            _check_dates(self.run_date)
        if self.cold_posts and (self.backtest_split != "cold" or self.holdout):
            raise ValueError("--cold_posts needs --backtest_split cold, and no --holdout")
        if self.allow_media_host:
            from transforms.media.http_fetch import check_hosts

            check_hosts(self.allow_media_host)
        if not (self.image_encoder in ("opencv", "none") or self.image_encoder.startswith("keras:")):
            raise ValueError(f"--image_encoder must be opencv, none or keras:PATH, got {self.image_encoder!r}")

    @property
    def run_name(self) -> str:
        """The run's name: --run_date, or today in UTC.

        Raises:
          UsageError: --run_date is a range; take the names one by one from `run_names`.
        """
        names = self.run_names
        if len(names) > 1:
            raise UsageError(f"--run_date must be one date here, got the range {self.run_date}; `run` takes ranges")
        return names[0]

    @property
    def run_names(self) -> list[str]:
        """The names of the runs that are asked for, oldest first."""
        if not self.run_date:
            return [datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")]
        first, last = _check_dates(self.run_date)
        return [(first + datetime.timedelta(days=day)).isoformat() for day in range((last - first).days + 1)]


def _check(field: "dataclasses.Field[Any]", value: Any) -> None:
    low, high, choices = (field.metadata[name] for name in ("low", "high", "choices"))
    for each in value if isinstance(value, tuple) else (value,):
        if choices and each not in choices:
            raise ValueError(f"--{field.name} must be one of {', '.join(choices)}, got {each!r}")
    if low is not None and not value >= low:
        raise ValueError(f"--{field.name} must be at least {low:g}, got {value}")
    if high is not None and not value <= high:
        raise ValueError(f"--{field.name} must be at most {high:g}, got {value}")


def _check_dates(value: str) -> tuple[datetime.date, datetime.date]:
    """The first and the last date of YYYY-MM-DD or YYYY-MM-DD:YYYY-MM-DD."""
    first, colon, last = value.partition(":")
    dates = _check_date(first), _check_date(last if colon else first)
    if dates[0] > dates[1]:
        raise ValueError(f"--run_date must not end before it begins, got {value!r}")
    return dates


def _check_date(value: str) -> datetime.date:
    try:
        date = datetime.date.fromisoformat(value)
        if date.isoformat() != value:
            raise ValueError
    except ValueError:
        raise ValueError(f"--run_date must be a date YYYY-MM-DD, got {value!r}") from None
    return date


class UsageError(Exception):
    """Bad usage, or input that cannot be read at all: exit code 2, one line."""


class RunError(Exception):
    """A run that cannot go on, for a reason that needs no traceback: exit code 1, one line."""


class _FlagParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "))


def parser(command: str, description: str) -> argparse.ArgumentParser:
    """The parser of a command; all commands know the same flags, so that one set of flags serves every stage."""
    made = _FlagParser(
        prog=f"fusefeed {command}",
        description=description,
        epilog="Flags of Beam and its runners come after --, for example: -- --runner=DataflowRunner --project=P",
        allow_abbrev=False,
    )
    for group in GROUPS:
        added = made.add_argument_group((group.__doc__ or "").rstrip("."))
        for field in dataclasses.fields(group):
            added.add_argument(f"--{field.name}", **_argument(field))
    return made


def _argument(field: "dataclasses.Field[Any]") -> dict[str, Any]:
    text = field.metadata["help"]
    if field.type is bool:
        return {"action": "store_true", "help": text}
    if isinstance(field.type, types.GenericAlias):
        metavar = "STAGE" if field.metadata["choices"] else field.name.upper().split("_")[-1]
        return {"nargs": "+", "action": "extend", "metavar": metavar, "help": text}
    shown = f"{text} (default {field.default})" if field.default not in ("", 0) else text
    return {"type": field.type, "default": field.default, "metavar": field.name.upper().split("_")[-1], "help": shown}


def parse(command: str, description: str, argv: Sequence[str]) -> Options:
    """The options that the words of a command line ask for.

    Raises:
      UsageError: an unknown flag or a bad value; the message is one line that names it.
    """
    words = list(argv)
    beam_args: list[str] = []
    if "--" in words:
        cut = words.index("--")
        words, beam_args = words[:cut], words[cut + 1 :]
    made = parser(command, description)
    known, unknown = made.parse_known_args(words)
    if unknown:
        raise UsageError(_unknown(unknown[0]))
    values: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in vars(known).items() if v is not None
    }
    try:
        return Options(**values, beam_args=tuple(beam_args))
    except ValueError as error:
        raise UsageError(str(error)) from None


def _unknown(word: str) -> str:
    names = [f"--{field.name}" for field in dataclasses.fields(Options) if field.metadata]
    name = word.split("=")[0]
    if not name.startswith("-"):
        return f"unexpected word {word!r}; every flag begins with --"
    close = difflib.get_close_matches(name, names, n=1)
    return f"unknown flag {name}" + (f", did you mean {close[0]}?" if close else "; flags of Beam come after --")


def end_of_run(options: Options) -> datetime.datetime:
    """The end of the run's date, UTC: what is later than that lies in its future."""
    date = datetime.datetime.strptime(options.run_name, "%Y-%m-%d").replace(tzinfo=datetime.UTC)
    return date + datetime.timedelta(days=1)


def reference() -> str:
    """The page docs/flags.md: a table of each group's flags."""
    lines = ["# Flags", "", "Every command takes all of them, so that one set of flags serves every stage."]
    for group in GROUPS:
        lines += [
            "",
            f"## {(group.__doc__ or '').rstrip('.')}",
            "",
            "| flag | default | meaning |",
            "| --- | --- | --- |",
        ]
        for field in dataclasses.fields(group):
            default = "" if field.default is False or field.default in ("", ()) else f"`{field.default}`"
            lines.append(f"| `--{field.name}` | {default} | {field.metadata['help']} |")
    return "\n".join(lines) + "\n"

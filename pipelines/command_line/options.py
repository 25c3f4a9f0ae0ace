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
    default: T,
    help: str,
    *,
    group: str,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
) -> T:
    """A field of Options with what the parser and the check need to know of it."""
    metadata = {"help": help, "group": group, "low": low, "high": high, "choices": tuple(choices)}
    field: Any = dataclasses.field(default=default, metadata=metadata)
    return typing.cast(T, field)


@dataclasses.dataclass(frozen=True)
class Options:
    """All flags. Made by `parse`, or directly in tests; a bad value raises ValueError naming the flag."""

    posts: str = flag("", "posts: globs of .jsonl(.gz), .parquet or .csv(.gz) files, comma-separated", group="input")
    interactions: str = flag("", "interactions: globs, as for --posts", group="input")
    users: str = flag("", "users (optional): globs, as for --posts", group="input")
    media_root: tuple[str, ...] = flag((), "folders in which media URIs are looked for, in this order", group="input")
    output: str = flag("", "where runs/RUN_DATE/ and LATEST are written", group="input")
    run_date: str = flag(
        "",
        "YYYY-MM-DD: the run's name; later rows are left out; `run` takes FIRST:LAST too (default: today, UTC)",
        group="input",
    )

    max_line_bytes: int = flag(8 << 20, "longest JSON line", group="ingest", low=1024, high=1 << 30)
    max_nesting: int = flag(64, "deepest JSON nesting", group="ingest", low=4, high=1000)
    block_bytes: int = flag(16 << 20, "bytes of input parsed at a time", group="ingest", low=64, high=1 << 30)
    max_gzip_ratio: int = flag(200, "bytes that one of a .gz may unpack to", group="ingest", low=1, high=100_000)
    erase: str = flag("", "ids of users and posts to erase: a file (see docs/nightly.md)", group="ingest")
    num_parts: int = flag(0, "files of each table (0: by the size of the input)", group="ingest", low=0, high=65_536)

    image_encoder: str = flag("opencv", "opencv, keras:PATH or none", group="extract")
    video_encoder: str = flag("opencv", "opencv or none", group="extract", choices=("opencv", "none"))
    audio_encoder: str = flag("logmel", "logmel or none", group="extract", choices=("logmel", "none"))
    block_rows: int = flag(256, "posts whose media are held at a time", group="extract", low=1, high=65_536)
    max_media_bytes: int = flag(64 << 20, "largest media file", group="extract", low=1, high=1 << 40)
    max_pixels: int = flag(100_000_000, "most pixels of a picture, by its header", group="extract", low=1, high=1 << 40)
    max_media_seconds: float = flag(
        120.0, "seconds of a clip or sound that are decoded", group="extract", low=0.1, high=86_400
    )
    reject_long_media: bool = flag(False, "reject what goes on after --max_media_seconds", group="extract")
    max_frames: int = flag(50_000, "most frames of a clip within --max_media_seconds", group="extract", low=1)
    max_audio_samples: int = flag(
        200_000_000, "most samples (of all channels) of a sound within --max_media_seconds", group="extract", low=1
    )
    max_decode_seconds: float = flag(120.0, "to decode one file, by the clock", group="extract", low=0.1, high=86_400)
    max_decode_mib: int = flag(2048, "memory to decode one file (Linux)", group="extract", low=16, high=1 << 20)
    allow_media_host: tuple[str, ...] = flag(
        (), "hosts that media may be fetched from by http(s): HOST or *.DOMAIN, also with :PORT", group="extract"
    )
    max_fetch_seconds: float = flag(60.0, "to fetch one file by http(s)", group="extract", low=0.1, high=86_400)
    max_media_per_post: int = flag(16, "media entries of a post that are read", group="extract", low=1, high=1000)

    vocabulary_size: int = flag(50_000, "most terms of the vocabulary", group="fuse", low=1, high=1_000_000)
    min_document_frequency: int = flag(2, "posts a term must stand in", group="fuse", low=1)
    max_document_share: float = flag(0.5, "share of posts above which a term is left out", group="fuse", low=0, high=1)
    text_width: int = flag(128, "numbers of the text vector", group="fuse", low=1, high=1024)
    pca_width: int = flag(64, "most numbers of any other modality's vector", group="fuse", low=1, high=1024)
    transform_fn: str = flag("", "reuse this transform_fn directory instead of fitting one", group="fuse")
    refit_days: int = flag(
        7,
        "days after which transform_fn and tuning are not taken over from the last published run",
        group="fuse",
        low=0,
    )
    cold_start: bool = flag(False, "take nothing over from the last published run", group="fuse")

    latent: int = flag(64, "numbers of the common representation", group="train", low=1, high=4096)
    epochs: int = flag(0, "most passes over the posts (0: by their number)", group="train", low=0, high=100_000)
    batch_size: int = flag(256, "posts a training step", group="train", low=1, high=1 << 20)
    learning_rate: float = flag(1e-3, "of AdamW", group="train", low=1e-8, high=10)
    seed: int = flag(0, "of everything random", group="train", low=0, high=2**31 - 1)

    kind_weights: str = flag(
        "", "weights of kinds of interaction, as like=1,hide=-1 (see docs/stages.md)", group="fuse"
    )
    factors: int = flag(128, "collaborative factors of a post", group="fuse", low=1, high=1024)
    interests_worth: float = flag(5.0, "interactions that stated interests are worth", group="embed", low=1e-6)
    half_life_days: float = flag(30.0, "after which an interaction counts half (0: never)", group="fuse", low=0)

    k: int = flag(50, "recommendations a user", group="recommend", low=1, high=10_000)
    similar_k: int = flag(20, "similar posts a post (0: none)", group="recommend", low=0, high=1000)
    max_age_days: int = flag(
        0, "oldest post to recommend, from the end of --run_date (0: any)", group="recommend", low=0
    )
    max_per_author: int = flag(0, "most posts of one author in a list (0: any number)", group="recommend", low=0)
    diversity: float = flag(
        0.0,
        "how much likeness to the posts before counts beside relevance (0: not at all)",
        group="recommend",
        low=0,
        high=1,
    )
    freshness_half_life_days: float = flag(
        0.0, "age at which a post's relevance counts half (0: age does not matter)", group="recommend", low=0
    )
    taste_share: float = flag(
        0.0,
        "part of what each taste is due by its share of the history that it gets at least",
        group="recommend",
        low=0,
        high=1,
    )
    include_seen: bool = flag(False, "recommend posts that the user has interacted with", group="recommend")
    include_sensitive: bool = flag(False, "recommend posts marked sensitive", group="recommend")
    exclude_replies: bool = flag(False, "do not recommend replies", group="recommend")

    backtest_split: str = flag(
        "time",
        "time (one cut for all), user (each user's last) or cold (posts without interactions)",
        group="evaluate",
        choices=("time", "user", "cold"),
    )
    backtest_days: float = flag(
        0.0, "hold out the last days of a time split (0: --backtest_fraction)", group="evaluate", low=0
    )
    backtest_fraction: float = flag(0.2, "share that is held out", group="evaluate", low=0.001, high=0.999)
    cold_posts: str = flag("", "the posts of a cold split: a file of ids, one a line", group="evaluate")
    holdout: str = flag("", "interactions to be foretold: globs, instead of a split", group="evaluate")
    evaluate_users: int = flag(20_000, "most users that lists are judged for", group="evaluate", low=1)
    evaluate_fit_rows: int = flag(5_000_000, "most interactions that baselines see", group="evaluate", low=1)
    ease_max_posts: int = flag(20_000, "most posts for which EASE is computed", group="evaluate", low=0)
    ablations: str = flag(
        "auto",
        "measure the vectors without each part: none, quick (no training), full (also retrained without each modality) "
        "or auto (quick up to 100,000 posts)",
        group="evaluate",
        choices=("none", "quick", "full", "auto"),
    )

    no_evaluate: bool = flag(False, "run without the backtest, and so without the gate", group="publish")
    gate_tolerance: float = flag(
        0.05, "how much worse than the last published run is published", group="publish", low=0, high=1
    )
    no_gate: bool = flag(False, "publish whatever the evaluation says (recorded)", group="publish")
    max_reject_ratio: float = flag(
        0.9, "share of an input's rows or of a kind of media that may be rejected", group="publish", low=0, high=1
    )
    fail_on_drift: bool = flag(
        False, "publish nothing where statistics jump from those of the last published run", group="publish"
    )
    keep_runs: int = flag(0, "published runs that stay, the newest (0: all)", group="publish", low=0)
    force: tuple[str, ...] = flag(
        (),
        "stages that `run` does again with what depends on them, though unchanged",
        group="publish",
        choices=("all", "ingest", "extract", "fuse", "train", "embed", "recommend", "validate", "evaluate"),
    )

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
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(Options):
        if not field.metadata:
            continue
        name = field.metadata["group"]
        if name not in groups:
            groups[name] = made.add_argument_group(name)
        groups[name].add_argument(f"--{field.name}", **_argument(field))
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

"""Runs the stages on the training part of a split: makes the tables of a run at the cut and executes the run's code.

Below a scratch directory: `known/` is the training part, `all/` has also the posts created after a time cut (which are
embedded and ranked by models fitted without them); `held_out/` has the interactions to predict.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipelines.command_line.options import Options, UsageError, end_of_run
from pipelines.continuity import erased_ids
from pipelines.stage import part_sizes, runner
from pipelines.stage.declaration import Places
from transforms.tables import files

if TYPE_CHECKING:
    import apache_beam as beam
    import numpy as np
    import pyarrow as pa

    from transforms.evaluate.split_rules import Split
    from transforms.evaluate.test_set import HeldOutSet

# Minimum number of posts to fit on.
MIN_POSTS = 10


@dataclasses.dataclass(frozen=True)
class Backtest:
    """A split that is made.

    Attributes:
      split: its rule.
      options: the run's, as of the cut.
      known: places of the tables that are fitted on.
      everything: places of the tables that are embedded and ranked; the same if no post is new.
      held_out: directory of split_interactions.HELD_OUT.
      counts: of SplitInteractions.
      num_known: posts that may be fitted on.
    """

    split: "Split"
    options: Options
    known: Places
    everything: Places
    held_out: str
    counts: dict[str, int]
    num_known: int

    @property
    def impossible(self) -> str:
        """Reason that nothing can be measured; "" if there is none."""
        if not self.counts.get("held_out"):
            return "nothing is held out: no user of the training part has a later interaction with a known post"
        if not self.counts.get("train"):
            return "nothing lies before the cut"
        if self.num_known < MIN_POSTS:
            return f"{self.num_known} posts lie before the cut, fewer than {MIN_POSTS}"
        return ""


def choose_split(options: Options, places: Places) -> "tuple[Split, list[str]]":
    """The split that the flags ask for, and notes on it."""
    from transforms.evaluate import split_rules

    if options.holdout:
        return split_rules.Split(split_rules.HOLDOUT, seed=options.seed), []
    share, until = options.backtest_fraction, _micros(end_of_run(options))
    if options.cold_posts:
        cold = read_cold_posts(options.cold_posts)
        return split_rules.Split("cold", seed=options.seed, cold_posts=cold), _check_cold_posts(
            cold, places.input("posts")
        )
    if options.backtest_split == "cold":
        codes = lambda: _cold_codes(places.input("posts"), options.seed)  # noqa: E731
        return split_rules.by_post(codes, share=share, seed=options.seed), []
    if options.backtest_split == "user":
        return split_rules.Split("user", share, options.seed), []
    times = lambda: _times(places.input("interactions"), until)  # noqa: E731
    split = split_rules.by_time(times, share=share, days=options.backtest_days, seed=options.seed, until=until)
    if split.kind == "user":
        return split, ["no interaction has a time: of each user's a share is held out by hash instead of by time"]
    return split, []


def read_cold_posts(path: str) -> "pa.Array":
    """The ids of --cold_posts, one a line: sorted, each once. Held whole, here and by each worker.

    Raises:
      UsageError: the file cannot be read or has no id.
    """
    import pyarrow as pa

    try:
        ids = {line.strip() for line in files.read_text(path).splitlines()} - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--cold_posts: {path} cannot be read: {error}") from None
    if not ids:
        raise UsageError(f"--cold_posts: {path} has no id; write one a line")
    return pa.array(sorted(ids), pa.string())


def _check_cold_posts(cold: "pa.Array", posts: str) -> list[str]:
    """Notes on ids of --cold_posts that are no posts; empty if all are.

    Raises:
      UsageError: none of them is a post.
    """
    import pyarrow.compute as pc

    from transforms.tables import parquet

    found = 0
    for path in parquet.list_files(posts):
        ids = parquet.read_file(path, ["post_id"]).column("post_id")
        found += pc.sum(pc.is_in(ids, value_set=cold)).as_py() or 0
    if not found:
        raise UsageError(f"--cold_posts: none of the {len(cold):,} ids is a post")
    return (
        [] if found == len(cold) else [f"{len(cold) - found:,} of the {len(cold):,} ids of --cold_posts are no posts"]
    )


def _micros(time: Any) -> int:
    return round(time.timestamp() * 1_000_000)


def _times(interactions: str, until: int) -> "Iterator[np.ndarray]":
    import pyarrow as pa

    from transforms.tables import parquet

    for path in parquet.list_files(interactions):
        times = parquet.read_file(path, ["created_at"]).column("created_at").cast(pa.int64()).drop_null().to_numpy()
        yield times[times <= until]


def _cold_codes(posts: str, seed: int) -> "Iterator[np.ndarray]":
    from transforms.evaluate import split_rules
    from transforms.tables import parquet

    for path in parquet.list_files(posts):
        yield split_rules.cold_codes(parquet.read_file(path, ["post_id"]).column("post_id"), seed)


def prepare(options: Options, places: Places) -> tuple[Backtest, list[str]]:
    """Makes the split; returns it with notes."""
    from transforms.evaluate import evaluation, split_rules
    from transforms.tables import counts

    split, notes = choose_split(options, places)
    root = places.scratch("backtest")
    num_posts, num_new = _count_new(places.input("posts"), split)
    directories = {name: files.join(root, name) for name in ("all", "known")}
    everything = new_places(directories["all"], places, "all")
    known = new_places(directories["known"], places, "known") if num_new else everything
    with runner.new_pipeline(options) as pipeline:
        _split(pipeline, options, places, split, files.join(root, "held_out"), everything)
        if num_new:
            _keep_known(pipeline, places, known, split)
    for table in ("posts", "users", "features"):
        link(places.input(table), everything.input(table))
    if num_new:
        link(places.input("users"), known.input("users"))
        link(everything.input("interactions"), known.input("interactions"))
    held_out = files.join(root, "held_out")
    then = split_rules.time_of(split.cut).strftime("%Y-%m-%d") if split.kind == "time" else options.run_name
    as_then = dataclasses.replace(
        options, run_date=then, refit_days=0, k=evaluation.MAX_K, similar_k=0, include_seen=False
    )
    found = counts.read_counts(held_out)
    return Backtest(split, as_then, known, everything, held_out, found, num_posts - num_new), notes


def new_places(directory: str, places: Places, name: str) -> Places:
    """Places whose stages write directly to where later ones read."""
    local = os.path.join(places.local, name)
    os.makedirs(local, exist_ok=True)
    return Places(directory, directory, local)


def _count_new(posts: str, split: "Split") -> tuple[int, int]:
    from transforms.tables import parquet

    num_posts, num_new = 0, 0
    for block in parquet.read_blocks(posts, 1 << 20, ["created_at"]):
        num_posts += block.num_rows
        num_new += int(split.is_new(block.column("created_at")).sum())
    return num_posts, num_new


def _split(
    root: "beam.Pipeline",
    options: Options,
    places: Places,
    split: "Split",
    held_out: str,
    everything: Places,
) -> None:
    import apache_beam as beam

    from transforms.evaluate import split_interactions
    from transforms.interactions.weights import InteractionWeights, parse_kind_weights
    from transforms.tables import counts, parquet, schemas

    columns = {"posts": split_interactions.POST_COLUMNS, "interactions": None, "users": ("user_id",)}
    read: dict[str, Any] = {
        name: root | f"Read {name}" >> parquet.ReadBlocks(places.input(name), chosen)
        for name, chosen in columns.items()
    }
    holdout_counts = []
    if options.holdout:
        files, erasure = find_holdout(options.holdout), erased_ids.load(options)
        holdout = split_interactions.ReadHoldout(files, options.num_parts, erasure)
        read["holdout"], counted = root | "ReadHoldout" >> holdout
        holdout_counts.append(counted)
    weights = InteractionWeights(parse_kind_weights(options.kind_weights))
    num_parts = part_sizes.choose_num_parts(options, *map(places.input, columns))
    made = read | "Split" >> split_interactions.SplitInteractions(split, weights, num_parts)
    _ = made.train | "WriteTrain" >> parquet.WriteParts(everything.output("interactions"), schemas.INTERACTIONS)
    _ = made.held_out | "WriteHeldOut" >> parquet.WriteParts(held_out, split_interactions.HELD_OUT)
    _ = (made.counts, *holdout_counts) | "AllCounts" >> beam.Flatten() | "WriteCounts" >> counts.WriteCounts(held_out)


def find_holdout(patterns: str) -> Any:
    """The files of --holdout.

    Raises:
      UsageError: a glob matches nothing or a file has no known ending.
    """
    from transforms.ingest import input_files

    try:
        return input_files.find_files(patterns)
    except ValueError as error:
        raise UsageError(f"--holdout: {error}") from None


def _keep_known(root: "beam.Pipeline", places: Places, known: Places, split: "Split") -> None:
    """Writes the posts that are not new, and their features."""
    import apache_beam as beam

    from transforms.tables import parquet

    for table in ("posts", "features"):
        source = places.input(table)
        old = root | f"ReadAll {table}" >> parquet.ReadParts(source) | f"Keep {table}" >> beam.Map(_known, split=split)
        _ = old | f"WriteKnown {table}" >> parquet.WriteParts(known.output(table), parquet.read_schema(source))


def _known(numbered: "tuple[int, pa.RecordBatch]", split: "Split") -> "tuple[int, pa.RecordBatch]":
    import pyarrow as pa

    part, block = numbered
    return part, block.filter(pa.array(~split.is_new(block.column("created_at"))))


def link(source: str, target: str) -> None:
    """Makes a table appear in a second place: a symbolic link where it is local, a copy elsewhere."""

    if files.is_local(source) and files.is_local(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.symlink(os.path.abspath(source), target)
    else:
        files.copy_directory(source, target)


def run_stages(made: Backtest, users: "pa.Array") -> None:
    """Executes the run's stages on the backtest's tables; lists are made for `users` only."""
    from pipelines import recommend

    fit_and_embed(made)
    _keep_users(made.everything.input("user_embeddings"), users)
    recommend.run(made.options, made.everything)


def read_test_set(made: Backtest, users: "pa.Array") -> "HeldOutSet":
    """Test set: the catalog, the test users, and their held-out interactions."""
    from pipelines import recommend
    from transforms.evaluate import test_set

    at = made.everything.input
    posts = test_set.read_posts(
        at("candidates"),
        at("posts"),
        at("history"),
        recommend.eligibility(made.options),
        made.split.is_cold if made.split.kind == "cold" else None,
    )
    limits = {"max_fit": test_set.MAX_FIT_ROWS, "seed": made.options.seed}
    return test_set.read_test_set(posts, users, made.held_out, at("history"), at("users"), **limits)


def fit_and_embed(made: Backtest) -> None:
    """Runs the stages up to the embeddings: fitted on the training part, applied to all posts."""
    from pipelines import embed, factorize, fuse, train

    fuse.run(made.options, made.known)
    factorize.run(made.options, made.known)
    train.run(made.options, made.known)
    if made.known is not made.everything:
        _fuse_new(made)
    embed.run(made.options, made.everything)


def _fuse_new(made: Backtest) -> None:
    """Fuses all posts with the transformation fitted without the new ones."""
    from pipelines import factorize, fuse, train

    known, everything = made.known, made.everything
    fuse.fuse_content(made.options, everything, known.input("transform_fn"))
    for table in ("history", "collaborative", *train.STAGE.writes):
        link(known.input(table), everything.input(table))
    factorize.append_factors(made.options, everything)


def _keep_users(directory: str, users: "pa.Array") -> None:
    """Restricts a table to the rows of these users."""
    import pyarrow.compute as pc

    from transforms.tables import parquet

    every = directory + "_of_all"
    files.move(directory, every)
    schema = parquet.read_schema(every)
    for number, path in enumerate(parquet.list_files(every)):
        block = parquet.read_file(path)
        chosen = block.filter(pc.is_in(block.column("user_id"), value_set=users))
        parquet.write_file(files.join(directory, f"part-{number:05d}.parquet"), chosen, schema)

"""MovieLens-100K as input of fusefeed: films are posts, ratings are interactions.

    python examples/import_ml100k.py SOURCE_DIR OUTPUT_DIR

SOURCE_DIR holds items.csv (title, genre flags, year, plot), ratings.csv (user_id, movie_id, rating, unix_timestamp) and
posters/ID.jpg. Writes OUTPUT_DIR/posts.jsonl and OUTPUT_DIR/interactions.parquet; SOURCE_DIR is the media root. There
are no users: MovieLens knows nothing of them that stands for interests.

Decisions:
  * items.csv has more rows than films, from a join that repeated some. Rows with the same id become one post: the row
    with the most fields filled in, the first of equals. Films that share a title but not an id stay apart, as rated.
  * `original_language` is the film's, the plot is English all the same: it is not the post's `lang`.
  * `created_at` is the first second of the film's year (UTC), also before 1970.
"""

import argparse
import csv
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

# The columns of the genre flags; genre_unknown says nothing and is left out.
# fmt: off
GENRES = (
    "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "FilmNoir", "Horror", "Musical", "Mystery", "Romance", "SciFi", "Thriller", "War", "Western",
)
# fmt: on


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def read_items(path: Path) -> tuple[list[dict[str, str]], int]:
    """One row a film in the file's order, and how many rows the file has. See the module on rows with the same id."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    best: dict[str, dict[str, str]] = {}
    for row in rows:
        known = best.get(row["movie_id"])
        if known is None or _filled(row) > _filled(known):
            best[row["movie_id"]] = row
    return list(best.values()), len(rows)


def _filled(row: dict[str, str]) -> int:
    return sum(bool(value) for value in row.values())


def post_of(row: dict[str, str], source: Path) -> dict[str, Any]:
    """The film as a post; fields that it has nothing for are left out."""
    post: dict[str, Any] = {
        "post_id": row["movie_id"],
        "text": "\n".join(filter(None, (row["title"], row["overview"]))),
    }
    if re.fullmatch(r"\d{4}", row["year"]):  # one film, "unknown", has none
        post["created_at"] = f"{row['year']}-01-01T00:00:00Z"
    genres = [genre for genre in GENRES if row.get(genre) == "1"]
    if genres:
        post["hashtags"] = genres
    poster = f"posters/{row['movie_id']}.jpg"
    if (source / poster).is_file():
        post["media"] = [{"kind": "image", "uri": poster}]
    return post


def read_interactions(path: Path) -> pa.Table:
    """The ratings: user_id, post_id, kind ("rating"), created_at (UTC), value (1 to 5)."""
    ratings = pyarrow.csv.read_csv(path)
    return pa.table(
        {
            "user_id": ratings["user_id"].cast(pa.string()),
            "post_id": ratings["movie_id"].cast(pa.string()),
            "kind": pa.array(["rating"] * ratings.num_rows),
            "created_at": pc.cast(ratings["unix_timestamp"], pa.int64()).cast(pa.timestamp("s", tz="UTC")),
            "value": ratings["rating"].cast(pa.float64()),
        }
    )


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="import_ml100k.py", description="MovieLens-100K as input of fusefeed.")
    parser.add_argument("source_dir", type=Path, help="folder with items.csv, ratings.csv and posters/")
    parser.add_argument("output_dir", type=Path, help="folder for posts.jsonl and interactions.parquet")
    args = parser.parse_args(argv)
    for name in ("items.csv", "ratings.csv"):
        if not (args.source_dir / name).is_file():
            parser.error(f"source_dir must hold {name}, found none in {args.source_dir}")
    try:
        items, num_rows = read_items(args.source_dir / "items.csv")
        posts = [post_of(row, args.source_dir) for row in items]
        interactions = read_interactions(args.source_dir / "ratings.csv")
    except (KeyError, ValueError) as error:
        parser.error(f"{args.source_dir} does not look like MovieLens-100K: {' '.join(str(error).split())}")
    try:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        with (args.output_dir / "posts.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(post, ensure_ascii=False) + "\n" for post in posts)
        pq.write_table(interactions, args.output_dir / "interactions.parquet", compression="zstd")
    except OSError as error:
        parser.error(f"cannot write to output_dir {args.output_dir}: {error.strerror or error}")
    print(f"{len(posts)} posts of {num_rows} rows ({num_rows - len(posts)} repeated an id)")
    print(
        f"{sum('media' in post for post in posts)} posters, {sum(not row['overview'] for row in items)} without a plot"
    )
    print(f"{interactions.num_rows} interactions of {len(interactions['user_id'].unique())} users")
    out = args.output_dir
    command = ["fusefeed", "run", "--posts", out / "posts.jsonl", "--interactions", out / "interactions.parquet"]
    command += ["--media_root", args.source_dir, "--output", out / "fusefeed"]
    print("next:", shlex.join(map(str, command)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

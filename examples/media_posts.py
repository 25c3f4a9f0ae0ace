"""One post for every media file of a folder: pushes any heap of files, however broken, through fusefeed.

    python examples/media_posts.py SOURCE_MEDIA_DIR OUTPUT_DIR

A file's kind (image, video, audio) is the name of the folder it lies in, at any depth; files elsewhere are left out.
Writes OUTPUT_DIR/posts.jsonl, one post a file (its path is the id and the media's uri, its name the text), and
OUTPUT_DIR/interactions.jsonl, likes of made-up users, most of them for one kind of media. SOURCE_MEDIA_DIR is the media
root. Same folder, same output.
"""

import argparse
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn

KINDS = ("image", "video", "audio")
NUM_USERS = 24
LIKES = 8  # of each user
FIRST_DAY = 1_767_225_600  # 2026-01-01, epoch seconds


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def kind_of(path: Path) -> str | None:
    """The last folder of the path that is called image, video or audio; None if there is none."""
    return next((part for part in reversed(path.parent.parts) if part in KINDS), None)


def find_media(source: Path) -> tuple[list[tuple[str, str]], int]:
    """(kind, path relative to the source) of all media files, sorted, and how many files were left out."""
    paths = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    media = [(kind, path.as_posix()) for path in paths if (kind := kind_of(path)) and _is_text(path.as_posix())]
    return media, len(paths) - len(media)


def _is_text(name: str) -> bool:
    """Whether a name can stand in a JSON file: names on disk need not be Unicode."""
    return not re.search("[\ud800-\udfff]", name)


def post_of(kind: str, path: str, number: int) -> dict[str, Any]:
    words = " ".join(re.findall(r"\w+", Path(path).stem.replace("_", " ")))
    return {
        "post_id": path,
        "author_id": f"author-{number % 10}",
        "created_at": FIRST_DAY + 3_600 * number,
        "text": f"{kind} {words}",
        "media": [{"kind": kind, "uri": path}],
    }


def make_likes(media: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Likes of NUM_USERS users: three of four for the kind that the user prefers."""
    last = FIRST_DAY + 3_600 * len(media)
    likes = []
    for user in range(NUM_USERS):
        preferred = [path for kind, path in media if kind == KINDS[user % len(KINDS)]]
        for number in range(LIKES):
            paths = preferred if preferred and number % 4 else [path for _, path in media]
            post_id = paths[(31 * user + 7 * number) % len(paths)]
            like = {"user_id": f"user-{user:02d}", "post_id": post_id, "kind": "like"}
            likes.append(like | {"created_at": last + 600 * user + 60 * number})
    return likes


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="media_posts.py", description="One post for every media file of a folder.")
    parser.add_argument("source_media_dir", type=Path, help="folder with folders named image, video or audio")
    parser.add_argument("output_dir", type=Path, help="folder for posts.jsonl and interactions.jsonl")
    args = parser.parse_args(argv)
    source, out = args.source_media_dir, args.output_dir
    if not source.is_dir():
        parser.error(f"source_media_dir must be a folder, got {source}")
    media, num_left_out = find_media(source)
    if not media:
        parser.error(f"source_media_dir must hold files in folders named image, video or audio, found none in {source}")
    likes = make_likes(media)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_lines(out / "posts.jsonl", [post_of(kind, path, number) for number, (kind, path) in enumerate(media)])
        write_lines(out / "interactions.jsonl", likes)
    except OSError as error:
        parser.error(f"cannot write to output_dir {out}: {error.strerror or error}")
    counts = ", ".join(f"{sum(found == kind for found, _ in media)} {kind}" for kind in KINDS)
    print(f"{len(media)} posts ({counts}); {num_left_out} other files left out")
    print(f"{len(likes)} interactions of {NUM_USERS} users")
    command = ["fusefeed", "run", "--posts", out / "posts.jsonl", "--interactions", out / "interactions.jsonl"]
    print("next:", shlex.join(map(str, [*command, "--media_root", source, "--output", out / "fusefeed"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Last.fm-2K with ready-made vectors as input of fusefeed: artists are posts without text or media.

    python examples/import_lfm2k.py SOURCE_DIR OUTPUT_DIR [--split train]

SOURCE_DIR holds lfm2k.inter (tab-separated: userID, itemID, rating, x_label) and three arrays whose row i belongs to
item i: all-MiniLM-L6-v2.npy (384), vggish.npy (128), whisper.npy (512). Writes OUTPUT_DIR/posts.parquet, the arrays
as `vectors` named minilm, vggish and whisper, and OUTPUT_DIR/interactions.parquet (kind "like"; nothing has a time).

`--split` keeps only the interactions of one part of the split that the file carries (x_label 0 train, 1 valid, 2 test);
all of them unless told. The posts are always all of them.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

VECTORS = {"minilm": "all-MiniLM-L6-v2.npy", "vggish": "vggish.npy", "whisper": "whisper.npy"}
SPLITS = {"train": 0, "valid": 1, "test": 2}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def read_posts(source: Path) -> pa.Table:
    """One row an item: post_id, vectors (struct of a list<float32> for each array).

    Raises:
      ValueError: an array is no table of numbers, or the arrays have different numbers of rows.
    """
    arrays = {name: np.load(source / file, allow_pickle=False) for name, file in VECTORS.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if any(len(shape) != 2 for shape in shapes.values()) or len({shape[0] for shape in shapes.values()}) != 1:
        raise ValueError(f"the arrays must have one row an item each, got the shapes {shapes}")
    columns = [_lists(array.astype(np.float32)) for array in arrays.values()]
    vectors = pa.StructArray.from_arrays(columns, names=list(arrays))
    return pa.table({"post_id": [str(item) for item in range(len(vectors))], "vectors": vectors})


def _lists(array: np.ndarray) -> pa.Array:
    offsets = pa.array(np.arange(len(array) + 1, dtype=np.int32) * array.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(array.reshape(-1)))


def read_interactions(path: Path, split: str) -> pa.Table:
    """user_id, post_id, kind ("like") of one part of the split, or of all of it."""
    table = pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter="\t"))
    if split != "all":
        table = table.filter(pc.equal(table["x_label"], SPLITS[split]))
    ids = {new: table[old].cast(pa.string()) for new, old in (("user_id", "userID"), ("post_id", "itemID"))}
    return pa.table({**ids, "kind": pa.array(["like"] * table.num_rows, pa.string())})


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="import_lfm2k.py", description="Last.fm-2K with ready-made vectors as input of fusefeed.")
    parser.add_argument("source_dir", type=Path, help="folder with lfm2k.inter and the three .npy files")
    parser.add_argument("output_dir", type=Path, help="folder for posts.parquet and interactions.parquet")
    parser.add_argument("--split", choices=("all", *SPLITS), default="all", help="the interactions to keep (all)")
    args = parser.parse_args(argv)
    for name in ("lfm2k.inter", *VECTORS.values()):
        if not (args.source_dir / name).is_file():
            parser.error(f"source_dir must hold {name}, found none in {args.source_dir}")
    try:
        posts = read_posts(args.source_dir)
        interactions = read_interactions(args.source_dir / "lfm2k.inter", args.split)
    except (KeyError, ValueError) as error:
        parser.error(f"{args.source_dir} does not look like Last.fm-2K: {' '.join(str(error).split())}")
    out = args.output_dir
    try:
        out.mkdir(parents=True, exist_ok=True)
        pq.write_table(posts, out / "posts.parquet", compression="zstd")
        pq.write_table(interactions, out / "interactions.parquet", compression="zstd")
    except OSError as error:
        parser.error(f"cannot write to output_dir {out}: {error.strerror or error}")
    widths = {field.name: len(posts["vectors"][0][field.name]) for field in posts["vectors"].type}
    print(f"{posts.num_rows} posts with vectors {widths}")
    print(f"{interactions.num_rows} interactions ({args.split}) of {len(interactions['user_id'].unique())} users")
    command = ["fusefeed", "run", "--posts", out / "posts.parquet", "--interactions", out / "interactions.parquet"]
    print("next:", shlex.join(map(str, [*command, "--output", out / "fusefeed"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())

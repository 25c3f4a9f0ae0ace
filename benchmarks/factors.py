"""Collaborative factors of interactions: subspace iteration on tiles on disk, beside sklearn's randomized_svd (at its
defaults) of the same sparse matrix in memory.

The comparison is of the factorization alone: ours from the tiles of a matrix to the factors of all posts as Parquet.
Making the tiles from a history is a side of its own.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import data
from benchmarks.harness import OURS, Benchmark, Facts, Ratio, Run, Side, size

if TYPE_CHECKING:
    import numpy as np
    import scipy.sparse

    from transforms.linalg.tiled_matrix import TiledMatrix

ROWS, USERS, POSTS = 10_000_000, 200_000, 100_000
FACTORS = 64
MATRIX = "making the tiles"
ENERGY = f"energy captured by {OURS} over sklearn's"
ROWS_PER_PART = 50_000


def prepare(folder: Path, scale: float) -> Mapping[str, int]:
    """A history of distinct pairs, and its matrix in tiles and whole."""
    import numpy as np
    import scipy.sparse

    number = size(ROWS, scale, least=1000)
    users, posts = size(USERS, scale, least=50), size(POSTS, scale, least=100)
    _write_history(folder / "history", number, users, posts)
    _make_tiles(folder)
    whole = _whole(_open(folder))
    scipy.sparse.save_npz(folder / "matrix.npz", whole, compressed=False)
    np.save(folder / "energy.npy", float(np.square(whole.data).sum()))
    return {"interactions": whole.nnz, "users": whole.shape[0], "posts": whole.shape[1], "factors": _factors(whole)}


def _write_history(directory: Path, number: int, num_users: int, num_posts: int) -> None:
    """`number` distinct pairs of schemas.HISTORY; a user's are in one part."""
    import numpy as np
    import pyarrow as pa

    from transforms.tables import blocks, parquet, schemas

    pairs = np.empty(0, np.int64)
    seed = 0
    while len(pairs) < number and seed < 20:
        drawn = data.interactions(number, num_users, num_posts, seed)
        user, post = (_numbers(drawn[name]) for name in ("user_id", "post_id"))
        pairs = np.unique(np.concatenate([pairs, user * num_posts + post]))
        seed += 1
    pairs = np.random.default_rng(0).permutation(pairs)[:number]
    pairs.sort()
    ones = pa.array(np.ones(len(pairs), np.float32))
    columns = {"user_id": data.ids("u", pairs // num_posts), "post_id": data.ids("p", pairs % num_posts)}
    columns |= dict.fromkeys(("weight", "strength", "recency"), ones)
    columns |= {"num_interactions": pa.array(np.ones(len(pairs), np.int64))}
    columns["created_at"] = pa.nulls(len(pairs), schemas.TIMESTAMP)
    rows = schemas.conform(pa.RecordBatch.from_pydict(columns), schemas.HISTORY)
    for part, block in blocks.partition(rows, "user_id", -(-len(pairs) // ROWS_PER_PART)):
        parquet.write_file(parquet.part_path(str(directory), part), block, schemas.HISTORY)


def _numbers(ids: "object") -> "np.ndarray":
    """Numbers of ids: 12 for u0000012."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers: np.ndarray = pc.utf8_slice_codeunits(ids, 1).cast(pa.int64()).to_numpy()
    return numbers


def _make_tiles(folder: Path) -> None:
    """Makes the matrix of a history as the stage does."""
    from pipelines.command_line.options import Options
    from pipelines.stage import runner
    from transforms.interactions import interaction_matrix
    from transforms.tables import parquet

    shutil.rmtree(folder / "matrix", ignore_errors=True)
    history = str(folder / "history")
    num_parts = interaction_matrix.choose_num_parts(parquet.count_rows(history))
    with runner.new_pipeline(Options(output=str(folder))) as root:
        rows = root | parquet.ReadParts(history, interaction_matrix.COLUMNS)
        _ = rows | interaction_matrix.MakeMatrix(str(folder / "matrix"), num_parts)


def _open(folder: Path) -> "TiledMatrix":
    from transforms.linalg import tiled_matrix

    return tiled_matrix.open_matrix(str(folder / "matrix"))


def _whole(matrix: "TiledMatrix") -> "scipy.sparse.csr_matrix":
    """All tiles as one matrix, [users, posts] float64."""
    import scipy.sparse

    rows = [[matrix.tile(row, column) for column in sorted(matrix.column_parts)] for row in sorted(matrix.row_parts)]
    return scipy.sparse.csr_matrix(scipy.sparse.bmat(rows, format="csr"))


def _factors(matrix: "TiledMatrix | scipy.sparse.csr_matrix") -> int:
    rows, columns = matrix.shape if hasattr(matrix, "shape") else (matrix.num_rows, matrix.num_columns)
    return min(FACTORS, rows - 1, columns - 1)


def ours(folder: Path) -> Run:
    """The two pipelines of the factorize stage: the solution, and the factors of all posts as a table."""
    import apache_beam as beam

    from pipelines.command_line.options import Options
    from pipelines.stage import runner
    from transforms.interactions import collaborative_factors
    from transforms.tables import parquet, schemas

    matrix = _open(folder)
    factors = _factors(matrix)
    passes = collaborative_factors.choose_passes(matrix)
    target = folder / "factors"

    def run() -> Facts:
        shutil.rmtree(target, ignore_errors=True)
        with runner.new_pipeline(Options(output=str(folder))) as root:
            solved = root | collaborative_factors.FactorizeMatrix(matrix, factors, passes=passes)
            _ = solved | beam.Map(collaborative_factors.write_solution, matrix.directory)
        solution = collaborative_factors.read_solution(matrix.directory)
        schema = schemas.collaborative(len(solution.singular_values))
        with runner.new_pipeline(Options(output=str(folder))) as root:
            found = root | collaborative_factors.ReadFactors(matrix, solution)
            _ = found | parquet.WriteParts(str(target), schema)
        _save(folder, OURS, solution.singular_values)
        return {"posts": parquet.count_rows(str(target))}

    return run


def tiles(folder: Path) -> Run:
    """The step before: tiles from a history, through two shuffles."""

    def run() -> Facts:
        copy = folder / "again"
        copy.mkdir(exist_ok=True)
        if not (copy / "history").exists():
            (copy / "history").symlink_to(folder / "history")
        _make_tiles(copy)
        return {"posts": _open(copy).num_columns}

    return run


def sklearn(folder: Path) -> Run:
    """randomized_svd at its defaults."""
    import scipy.sparse
    from sklearn.utils.extmath import randomized_svd

    matrix = scipy.sparse.load_npz(folder / "matrix.npz")

    def run() -> Facts:
        _, values, components = randomized_svd(matrix, _factors(matrix), random_state=0)
        _save(folder, "sklearn", values)
        return {"posts": components.shape[1]}

    return run


def _save(folder: Path, name: str, singular_values: "np.ndarray") -> None:
    import numpy as np

    np.save(folder / f"values-{name}.npy", singular_values)


def check(folder: Path) -> Mapping[str, float]:
    """Share of the energy (sum of squared entries) that the factors capture, and the ratio of ours to sklearn's."""
    import numpy as np

    energy = float(np.load(folder / "energy.npy"))
    shares = {}
    for name in (OURS, "sklearn"):
        path = folder / f"values-{name}.npy"
        if path.exists():
            shares[name] = float(np.square(np.load(path)).sum() / energy)
    found = {f"share of the energy captured by {name}": share for name, share in shares.items()}
    if len(shares) == 2:
        # Equal shares must not differ by rounding.
        found[ENERGY] = round(shares[OURS] / shares["sklearn"], 9)
    return found


BENCHMARK = Benchmark(
    name="factors",
    title=f"{FACTORS} collaborative factors of a sparse matrix",
    prepare=prepare,
    sides=(Side(OURS, ours), Side("sklearn", sklearn, needs=("sklearn",)), Side(MATRIX, tiles)),
    ratios=(
        Ratio("time", against=("sklearn",), at_most=3.0),
        Ratio(ENERGY, against=("sklearn",), at_least=1.0),
        Ratio("memory", against=("sklearn",)),
        Ratio("time", MATRIX, ("sklearn",)),
        *(Ratio(f"share of the energy captured by {name}") for name in (OURS, "sklearn")),
    ),
    agree=("posts",),
    check=check,
    repeats=2,
)

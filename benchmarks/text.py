"""Posts to text vectors: terms, TF-IDF, truncated SVD, beside scikit-learn with the same settings."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from benchmarks import data, stages
from benchmarks.harness import OURS, Benchmark, Facts, Ratio, Run, Side, size

POSTS = 1_000_000
WIDTH, TERMS = 128, 50_000
NO_MEDIA = {"image_encoder": "none", "video_encoder": "none", "audio_encoder": "none"}


def prepare(folder: Path, scale: float) -> Mapping[str, int]:
    """A canonical posts table."""
    number = size(POSTS, scale, least=500)
    data.write_posts_table(folder / "posts", number)
    return {"posts": number, "width": _width(number)}


def _width(num_posts: int) -> int:
    return min(WIDTH, num_posts // 20)


def ours(folder: Path) -> Run:
    """The stages extract and fuse, in this process, from posts/ to content/ on disk."""
    from transforms.tables import parquet

    stages.warm_up()
    width = _width(parquet.count_rows(str(folder / "posts")))

    def run() -> Facts:
        run_dir = folder / "runs" / data.RUN_DATE
        shutil.rmtree(run_dir, ignore_errors=True)
        run_dir.mkdir(parents=True)
        (run_dir / "posts").symlink_to(folder / "posts")
        flags = {"output": str(folder), "run_date": data.RUN_DATE, "text_width": width, "vocabulary_size": TERMS}
        reports = [stages.execute(stage, **flags, **NO_MEDIA) for stage in ("extract", "fuse")]
        # Each stage measures its own peak.
        peak = max(report.peak_memory_bytes for report in reports)
        return {"peak_bytes": peak, "rows": reports[-1].rows["content"]}

    return run


def sklearn(folder: Path) -> Run:
    """TfidfVectorizer and TruncatedSVD (randomized, 5 passes: its default), from the same table to Parquet."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    def run() -> Facts:
        posts = pq.read_table(folder / "posts", columns=["post_id", "text", "hashtags"])
        texts = [
            f"{text} {' '.join(tags)}"
            for text, tags in zip(posts["text"].to_pylist(), posts["hashtags"].to_pylist(), strict=True)
        ]
        terms = TfidfVectorizer(max_features=TERMS, min_df=2, max_df=0.5, sublinear_tf=True)
        vectors = TruncatedSVD(_width(len(texts)), random_state=0).fit_transform(terms.fit_transform(texts))
        flat = pa.array(vectors.astype(np.float32).ravel())
        fused = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        pq.write_table(
            pa.table({"post_id": posts["post_id"], "fused": fused}), folder / "sklearn.parquet", compression="zstd"
        )
        return {"rows": len(vectors)}

    return run


BENCHMARK = Benchmark(
    name="text",
    title="posts to text vectors (terms, TF-IDF, truncated SVD)",
    prepare=prepare,
    sides=(Side(OURS, ours), Side("sklearn", sklearn, needs=("sklearn",))),
    ratios=(
        Ratio("speed", against=("sklearn",), at_least=1.0),
        Ratio("memory", against=("sklearn",), at_most=1.0, full_scale_only=True),
    ),
    agree=("rows",),
    repeats=2,
)

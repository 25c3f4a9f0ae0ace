"""Features of pictures, beside a raw loop: read, decode at the same reduced scale, same descriptors; one thread."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import media
from benchmarks.harness import OURS, Benchmark, Facts, Ratio, Run, Side, size

if TYPE_CHECKING:
    import numpy as np

SMALL, LARGE = 2_000, 500
SMALL_SIZE = (300, 225)
AT_ONCE = 32


def prepare(folder: Path, scale: float) -> Mapping[str, int]:
    """Two folders of JPEGs."""
    small, large = size(SMALL, scale, least=4), size(LARGE, scale, least=2)
    media.write_jpegs(folder / "small", small, *SMALL_SIZE)
    media.write_jpegs(folder / "large", large, *media.FULL_HD)
    return {"JPEGs of 300 px": small, "JPEGs of 1080p": large}


def _paths(folder: Path, *names: str) -> list[Path]:
    return [path for name in names for path in sorted((folder / name).iterdir())]


def ours(folder: Path) -> Run:
    """The Extractor, as the stage's workers use it."""
    from transforms.extract.extract_features import Extractor
    from transforms.extract.reuse import MediaKeys
    from transforms.media.media_files import MediaLimits

    names = [str(path.relative_to(folder)) for path in _paths(folder, "small", "large")]
    posts = media.posts_of(names)
    encoders = {"image": "opencv", "video": "none", "audio": "none"}
    extractor = Extractor(encoders, {}, MediaKeys([str(folder)], ""), MediaLimits())

    def run() -> Facts:
        features, _, rejects, _ = extractor.extract(posts)
        column = features.column("image")
        values = column.drop_null().flatten().to_numpy()
        return {"vectors": len(column) - column.null_count, "sum": _sum(values)} | {"rejects": rejects.num_rows}

    return run


def raw(folder: Path) -> Run:
    """A loop without any check. It describes some pictures after decoding them: a tenth faster than one by one."""
    import numpy as np

    from transforms.media.image_descriptors import image_features

    _one_thread()
    paths = _paths(folder, "small", "large")

    def run() -> Facts:
        groups = [paths[start : start + AT_ONCE] for start in range(0, len(paths), AT_ONCE)]
        decoded = ([_decode(path) for path in group] for group in groups)
        vectors = np.stack([image_features(picture) for pictures in decoded for picture in pictures])
        return {"vectors": len(vectors), "sum": _sum(vectors)}

    return run


def decode(folder: Path) -> Run:
    """Only reading and decoding, of the large ones."""
    _one_thread()
    paths = _paths(folder, "large")

    def run() -> Facts:
        for path in paths:
            _decode(path)
        return {}

    return run


def describe(folder: Path) -> Run:
    """Only the descriptors, of the large ones as they are decoded."""
    from transforms.media.image_descriptors import image_features

    _one_thread()
    pictures = [_decode(path) for path in _paths(folder, "large")]

    def run() -> Facts:
        for picture in pictures:
            image_features(picture)
        return {}

    return run


def _decode(path: Path) -> "np.ndarray":
    import cv2
    import numpy as np

    # A quarter of 1080 leaves the shorter side at 270 pixels: what transforms.media.image_decode keeps at least is 256.
    flag = cv2.IMREAD_REDUCED_COLOR_4 if path.parent.name == "large" else cv2.IMREAD_COLOR
    with open(path, "rb") as file:
        return np.asarray(cv2.imdecode(np.frombuffer(file.read(), np.uint8), flag))


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)


def _sum(values: "np.ndarray") -> float:
    return round(float(values.sum(dtype="float64")), 3)


BENCHMARK = Benchmark(
    name="images",
    title="features of pictures",
    prepare=prepare,
    sides=(Side(OURS, ours), Side("raw loop", raw), Side("decode 1080p", decode), Side("describe 1080p", describe)),
    ratios=(
        Ratio("speed", against=("raw loop",), at_least=0.9),
        Ratio("time", "describe 1080p", ("decode 1080p",), at_most=1.0),
    ),
    agree=("vectors", "sum"),
)

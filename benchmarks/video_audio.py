"""Features of clips and sounds, beside a raw PyAV loop with the same sampling and features; one decoding thread."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import media
from benchmarks.harness import OURS, Benchmark, Facts, Ratio, Run, Side, size

if TYPE_CHECKING:
    import numpy as np

CLIPS, SOUNDS = 200, 200
CLIP_SECONDS, SOUND_SECONDS = 6.0, 20.0
FRAMES, GLANCE, SHORT_SIDE, RATE = 16, 32, 256, 16_000
NUM_FILES = 20  # Files that are made; each stands for several posts.


def prepare(folder: Path, scale: float) -> Mapping[str, int]:
    """A folder of clips with sound and a folder of sounds."""
    clips, sounds = size(CLIPS, scale, least=2), size(SOUNDS, scale, least=2)
    for name, number in (("clips", clips), ("sounds", sounds)):
        (folder / name).mkdir()
        for index in range(number):
            path = folder / name / f"{index:05d}.{'mp4' if name == 'clips' else 'mp3'}"
            if index >= NUM_FILES:
                path.write_bytes((path.parent / f"{index % NUM_FILES:05d}{path.suffix}").read_bytes())
            elif name == "clips":
                media.write_clip(path, CLIP_SECONDS, seed=index)
            else:
                media.write_sound(path, SOUND_SECONDS, seed=index)
    return {"clips": clips, "sounds": sounds}


def _paths(folder: Path, name: str) -> list[Path]:
    return sorted((folder / name).iterdir())


def ours(folder: Path) -> Run:
    """The Extractor, as the stage's workers use it."""
    import numpy as np

    from transforms.extract.extract_features import Extractor
    from transforms.extract.reuse import MediaKeys
    from transforms.media.log_mel import log_mels
    from transforms.media.media_files import MediaLimits
    from transforms.tables import blocks

    names = [str(path.relative_to(folder)) for name in ("clips", "sounds") for path in _paths(folder, name)]
    posts = media.posts_of(names)
    encoders = {"image": "none", "video": "opencv", "audio": "logmel"}
    extractor = Extractor(encoders, {}, MediaKeys([str(folder)], ""), MediaLimits())
    log_mels([np.zeros(RATE, np.float32)])

    def run() -> Facts:
        features, *_ = extractor.extract(posts)
        for kind in ("video", "audio"):
            values, present = blocks.optional_to_numpy(features.column(kind), extractor.encoders[kind].width)
            np.save(folder / f"ours-{kind}.npy", values[present])
        return {f"{kind}s": len(names) - features.column(kind).null_count for kind in ("video", "audio")}

    return run


def raw(folder: Path) -> Run:
    """Decodes clip after clip and sound after sound and describes them at once."""
    import cv2
    import numpy as np

    from transforms.media.log_mel import audio_features, log_mels
    from transforms.media.video import video_features

    cv2.setNumThreads(1)
    clips, sounds = _paths(folder, "clips"), _paths(folder, "sounds")
    log_mels([np.zeros(RATE, np.float32)])

    def run() -> Facts:
        videos = np.stack([video_features(_sample(path)) for path in clips])
        # Some sounds at a time: the spectrogram's graph works on batches.
        paths = [*clips, *sounds]
        groups = [paths[start : start + 32] for start in range(0, len(paths), 32)]
        audios = np.concatenate([audio_features([_wave(path) for path in group]) for group in groups])
        np.save(folder / "raw-video.npy", videos)
        np.save(folder / "raw-audio.npy", audios)
        return {"videos": len(videos), "audios": len(audios)}

    return run


def _frames(path: Path, kind: str) -> Iterator[Any]:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0] if kind == "video" else container.streams.audio[0]
        stream.codec_context.thread_count = 1
        yield from container.decode(stream)


def _sample(path: Path) -> Any:
    """Every 2^k-th frame scaled down, and what changes from frame to frame at 32 x 32 points."""
    import numpy as np

    from transforms.media.video import VideoSample

    kept: list[Any] = []
    glances: list[np.ndarray] = []
    times: list[float] = []
    step = 1
    for number, frame in enumerate(_frames(path, "video")):
        plane = frame.planes[0]
        luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
        down, right = ((np.arange(GLANCE) * 2 + 1) * length // (2 * GLANCE) for length in luma.shape)
        glances.append(luma[down[:, None], right].astype(np.float32) / 255)
        times.append(frame.time)
        if number % step == 0:
            if len(kept) == FRAMES:
                kept, step = kept[::2], 2 * step
            if number % step == 0:
                kept.append(frame)
    # Only what is left is scaled down: half of the frames that are kept meanwhile are dropped later.
    scale = SHORT_SIDE / min(kept[0].width, kept[0].height)
    width, height = round(kept[0].width * scale), round(kept[0].height * scale)
    frames = [frame.to_ndarray(width=width, height=height, format="bgr24", interpolation="AREA") for frame in kept]
    stack = np.stack(glances)
    changes = np.abs(np.diff(stack, axis=0)).mean(axis=(1, 2))
    seconds = (times[-1] - times[0]) * len(times) / (len(times) - 1)
    return VideoSample(frames, len(times), seconds, changes, stack.mean(axis=(1, 2)))


def _wave(path: Path) -> "np.ndarray":
    """Mono at 16 kHz by FFmpeg's resampler: [num_samples] float32."""
    import av
    import numpy as np

    resampler = av.AudioResampler("fltp", "mono", RATE)
    parts = [part for frame in _frames(path, "audio") for part in resampler.resample(frame)]
    parts += resampler.resample(None)
    return np.clip(np.concatenate([part.to_ndarray()[0] for part in parts]), -1, 1)


def check(folder: Path) -> Mapping[str, float]:
    """The largest difference of any number of the vectors: decoding is the same, rounding may differ."""
    import numpy as np

    pairs = [(np.load(folder / f"ours-{kind}.npy"), np.load(folder / f"raw-{kind}.npy")) for kind in ("video", "audio")]
    return {"largest difference of features": max(float(np.abs(one - two).max()) for one, two in pairs)}


BENCHMARK = Benchmark(
    name="video_audio",
    title="features of clips and sounds",
    prepare=prepare,
    sides=(Side(OURS, ours), Side("raw loop", raw)),
    ratios=(
        Ratio("speed", against=("raw loop",), at_least=0.85),
        Ratio("largest difference of features", at_most=1e-2),
    ),
    agree=("videos", "audios"),
    check=check,
)

"""One media entry of a post -> decoded samples of the modalities it gives, or one typed error."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from transforms import audio, image, video
from transforms.media import MediaError, MediaLimits, kind_of, read_media, resolve_uri

MEDIA_KINDS = ("image", "video", "audio")


class DecodeError(Exception):
    """An entry that gives no sample: a reject code, a message without post content, and its kind where known."""

    def __init__(self, code: str, message: str, kind: str | None = None) -> None:
        super().__init__(code, message)
        self.code, self.message, self.kind = code, message, kind


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What an entry claims to be, and its samples by modality (a clip may give a video and an audio sample)."""

    kind: str
    samples: Mapping[str, object]


def decode_entry(
    entry: Mapping[str, str | None], roots: Sequence[str], limits: MediaLimits, wanted: Collection[str]
) -> Decoded:
    """Reads and decodes one media entry; no sample at all where its modalities are not `wanted`.

    Raises:
      DecodeError: the entry gives none of the modalities that are wanted of its kind.
    """
    kind = None
    try:
        uri = entry["uri"] or ""
        kind = kind_of(entry["kind"], uri)
        if kind not in wanted and not (kind == "video" and "audio" in wanted):
            return Decoded(kind, {})
        path = resolve_uri(uri, roots)
        return Decoded(kind, _decode(kind, path, limits, wanted))
    except MediaError as error:
        raise DecodeError(error.code, error.message, kind) from error
    except Exception as error:
        # Decoders raise what they like (UnicodeDecodeError, MemoryError, ...). Their words may hold content: only the
        # type is told.
        raise DecodeError("media_failed", f"a decoder raised {type(error).__name__}", kind) from error


def _decode(kind: str, path: str, limits: MediaLimits, wanted: Collection[str]) -> dict[str, object]:
    data = read_media(path, limits)
    if kind == "image":
        return {"image": image.decode_image(data, limits)}
    if kind == "audio":
        return {"audio": audio.read_audio(data, limits)}
    return _decode_clip(data, limits, wanted)


def _decode_clip(data: bytes, limits: MediaLimits, wanted: Collection[str]) -> dict[str, object]:
    """A clip's frames and its sound track; one of them is enough."""
    samples: dict[str, object] = {}
    failure: MediaError | None = None
    if "video" in wanted:
        try:
            samples["video"] = video.read_video(data, limits)
        except MediaError as error:
            failure = error
    if "audio" in wanted:
        try:
            samples["audio"] = audio.read_audio(data, limits)
        except MediaError as error:
            failure = failure or error
    if not samples and failure is not None:
        raise failure
    return samples

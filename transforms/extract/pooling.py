"""Posts whose media are being decoded: outcomes so far, and one mean vector a modality."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from transforms.extract import media_outcomes
from transforms.extract.media_outcomes import Outcome
from transforms.media.encoders import Encoder
from transforms.media.media_files import MediaError
from transforms.media.sandbox import Decoded
from transforms.tables import blocks

_ENCODE_AT_ONCE = 32  # Decoded samples that wait for their encoder; bounds the memory of decoded media.


class MediaEntry(NamedTuple):
    """One media entry of a post.

    Attributes:
      row: of its post among those whose media are read.
      position: in the post, from 0.
      uri: as the post has it.
      kind: image, video or audio; "unknown" where that cannot be determined.
      error: the reason why it could not be read.
    """

    row: int
    position: int
    uri: str | None
    kind: str
    error: MediaError | None = None


class Pool:
    """The mean vector of each post's samples of one modality; encodes some samples at a time."""

    def __init__(self, encoder: Encoder, num_rows: int) -> None:
        self.encoder = encoder
        self.sums = np.zeros((num_rows, encoder.width), np.float64)
        self.sizes = np.zeros(num_rows, np.int64)
        self.waiting: list[tuple[int, np.ndarray]] = []

    def add(self, row: int, sample: np.ndarray) -> None:
        """Takes one decoded sample of a row's post, or its vector if the encoder has no `encode`."""
        self.waiting.append((row, sample))
        if len(self.waiting) >= _ENCODE_AT_ONCE:
            self._encode()

    def take_over(self, rows: np.ndarray, vectors: pa.Array) -> None:
        """Takes the mean vectors of some rows' posts as they are: list<float32>, null where there is none."""
        values, present = blocks.optional_to_numpy(vectors, self.encoder.width)
        self.sums[rows[present]] = values[present]
        self.sizes[rows[present]] = 1

    def column(self) -> pa.Array:
        """The mean vectors, null where a post has no sample: list<float32> of the encoder's width."""
        self._encode()
        means = self.sums / np.maximum(self.sizes, 1)[:, None]
        return blocks.numpy_to_optional(means, self.sizes > 0)

    def _encode(self) -> None:
        if not self.waiting:
            return
        rows = np.array([row for row, _ in self.waiting])
        samples = [sample for _, sample in self.waiting]
        vectors = self.encoder.encode(samples) if self.encoder.encode else np.stack(samples)
        np.add.at(self.sums, rows, vectors.astype(np.float64))
        np.add.at(self.sizes, rows, 1)
        self.waiting = []


@dataclasses.dataclass(frozen=True)
class DecodedRows:
    """A block of posts while its media are decoded.

    Attributes:
      posts: of schemas.POSTS.
      terms: of `token_counts.text_terms`, of these posts.
      pools: of each kind of media.
      known: schemas.MEDIA of the posts whose features are reused; None if nothing can be reused.
      unread: the posts whose media are read.
      places: the rows of these in `posts`.
      keys: of these.
      outcomes: of these, one for each medium decoded so far.
    """

    posts: pa.RecordBatch
    terms: Sequence[pa.Array]
    pools: Mapping[str, Pool]
    known: pa.RecordBatch | None
    unread: pa.RecordBatch
    places: np.ndarray
    keys: pa.Array
    outcomes: Sequence[list[Outcome]]

    def add(self, entry: MediaEntry, result: Decoded | MediaError) -> None:
        """Adds the outcome and the decoded samples of a media entry."""
        self.outcomes[entry.row].append(_outcome(entry, result))
        if isinstance(result, dict) and entry.error is None:
            for modality, sample in result.items():
                self.pools[modality].add(int(self.places[entry.row]), sample)


def _outcome(entry: MediaEntry, result: Decoded | MediaError) -> Outcome:
    error = entry.error or result
    if isinstance(error, MediaError):
        outcome = media_outcomes.MISSING if error.code == "media_missing" else media_outcomes.REJECTED
        return Outcome(entry.position, entry.kind, outcome, entry.uri, error.code, error.message)
    return Outcome(entry.position, entry.kind, media_outcomes.FEATURES if result else media_outcomes.IGNORED)

"""The embedding space: the blocks of a vector and their parameters, read from the run's tables."""

import dataclasses
import io
from typing import NamedTuple

import numpy as np

from transforms.embed import formulas
from transforms.embed.formulas import VectorMoments, Widths
from transforms.embed.parameters import Tuning
from transforms.embed.procrustes import Rotations
from transforms.linalg.vectors import unit_rows
from transforms.tables.files import join, open_read, open_write, read_json

# The modality of fused/ made of interactions; not content.
COLLABORATIVE = "collaborative"
FACTORS_FILE = "_factors.json"
TUNING_FILE = "_tuning.json"
BLOCKS_FILE = "_blocks.npz"


class PostBlocks(NamedTuple):
    """Vectors of posts in the embedding space, before the blocks are mixed.

    Attributes:
      own: [n, k], from the posts' collaborative factors.
      decoded: [n, kd], from factors predicted from content.
      content: [n, w] unit rows or zeros.
      profile: [n, k + kd + w] float32, the contribution to the profile of a user with the post in the history.
    """

    own: np.ndarray
    decoded: np.ndarray
    content: np.ndarray
    profile: np.ndarray


@dataclasses.dataclass(frozen=True)
class Space:
    """Parameters of the embedding space, all known before any post is embedded.

    Attributes:
      modalities: (name, offset, width) of every block of the fused vector, in the order of the mask.
      singular_values: [F] of the interaction matrix; none where there are no interactions.
      num_posts: posts with interactions; the fused vector holds the factors times its root.
      tuning: hyperparameters of the blocks and their mix.
      rotations: [w, w] by which each block is multiplied, for posts and users alike; None for no rotation.
    """

    modalities: tuple[tuple[str, int, int], ...]
    singular_values: np.ndarray
    num_posts: int
    tuning: Tuning
    rotations: Rotations | None = None

    @property
    def widths(self) -> Widths:
        """Numbers of each block of an embedding."""
        rank = len(self.singular_values)
        decoded, content = self.tuning.decoded, self.tuning.content
        return Widths(
            own=min(self.tuning.own.rank, rank),
            decoded=min(decoded.k, rank) if decoded is not None else 0,
            content=self.block(content.modality)[1] if content is not None else 0,
        )

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        return sum(self.widths) + 1

    @property
    def names(self) -> list[str]:
        """The modalities, in the order of the mask."""
        return [name for name, _, _ in self.modalities]

    def factors(self, fused: np.ndarray) -> np.ndarray:
        """The posts' own factors in units of the singular vectors: [n, F] float32, zeros where there are none."""
        if COLLABORATIVE not in self.names:
            return np.zeros((len(fused), len(self.singular_values)), np.float32)
        offset, width = self.block(COLLABORATIVE)
        own: np.ndarray = fused[:, offset : offset + width] / np.float32(np.sqrt(self.num_posts))
        return own

    def content_only(self, mask: np.ndarray) -> np.ndarray:
        """The mask without the collaborative modality, as for new posts."""
        content = np.array([name != COLLABORATIVE for name in self.names], np.float32)
        masked: np.ndarray = mask * content
        return masked

    def content(self, fused: np.ndarray) -> np.ndarray:
        """The content block: [n, w] float32 unit rows or zeros."""
        chosen = self.tuning.content
        if chosen is None:
            return np.zeros((len(fused), 0), np.float32)
        offset, width = self.block(chosen.modality)
        return unit_rows(fused[:, offset : offset + width])

    def block(self, wanted: str) -> tuple[int, int]:
        """(offset, width) of a modality in the fused vector."""
        return next((offset, width) for name, offset, width in self.modalities if name == wanted)

    def post_blocks(self, fused: np.ndarray, degree: np.ndarray, predicted: np.ndarray) -> PostBlocks:
        """The blocks of some posts.

        Args:
          fused: [n, D] fused vectors.
          degree: [n] interactions of the posts.
          predicted: [n, F'] factors predicted from content, in units of the singular vectors; F' is 0 without a model.
        """
        factors, content = self.factors(fused), self.content(fused)
        values, tuning = self.singular_values, self.tuning
        nothing = np.zeros((len(fused), 0), np.float32)
        own = formulas.own_block(factors, values, degree, tuning.own) if len(values) else nothing
        chosen = tuning.decoded
        decoded = nothing if chosen is None else formulas.decoded_block(predicted, values, chosen.k, chosen.e)
        rotated = self._rotate(np.hstack([own, decoded, content]))
        profile = self.profile_vectors(factors, predicted, content, degree)
        first, second, third = self.widths.slices
        return PostBlocks(rotated[:, first], rotated[:, second], rotated[:, third], profile)

    def profile_vectors(
        self, factors: np.ndarray, predicted: np.ndarray, content: np.ndarray, degree: np.ndarray
    ) -> np.ndarray:
        """`formulas.profile_vectors` in this space: [n, Q] float32."""
        return self._rotate(formulas.profile_vectors(factors, predicted, content, degree, self.widths))

    def _rotate(self, values: np.ndarray) -> np.ndarray:
        """Rows of all three blocks side by side, [n, Q], multiplied by the rotations."""
        if self.rotations is None:
            return values
        pairs = zip(self.widths.slices, self.rotations, strict=True)
        return np.hstack([values[:, block] @ rotation.astype(values.dtype) for block, rotation in pairs])


def read_space(fused_dir: str, collaborative_dir: str) -> Space:
    """The space of a run, from fused/_layout.json and the files beside the collaborative factors."""
    layout = read_json(join(fused_dir, "_layout.json"))
    factors = read_json(join(collaborative_dir, FACTORS_FILE))
    return Space(
        tuple((entry["name"], entry["offset"], entry["width"]) for entry in layout["modalities"]),
        np.array(factors["singular_values"], np.float64),
        factors["num_posts"],
        Tuning.from_dict(read_json(join(collaborative_dir, TUNING_FILE))),
    )


def read_singular_values(collaborative_dir: str) -> np.ndarray:
    """Of the factors in a collaborative/, falling: [F] float64."""
    return np.array(read_json(join(collaborative_dir, FACTORS_FILE))["singular_values"], np.float64)


Covariances = tuple[np.ndarray, np.ndarray, np.ndarray]


def write_covariances(moments: tuple[VectorMoments, VectorMoments, VectorMoments], directory: str) -> None:
    """Writes the covariances of the items' three blocks beside their table."""
    buffer = io.BytesIO()
    own, decoded, content = (block.covariance() for block in moments)
    np.savez(buffer, own=own, decoded=decoded, content=content)
    with open_write(join(directory, BLOCKS_FILE)) as file:
        file.write(buffer.getvalue())


def read_widths(directory: str) -> Widths:
    """The widths of the blocks of a table of item embeddings."""
    return Widths(*(len(covariance) for covariance in read_covariances(directory)))


def read_covariances(directory: str) -> Covariances:
    """Covariances of the own, the decoded and the content block, as `write_covariances` wrote them."""
    path = join(directory, BLOCKS_FILE)
    with open_read(path) as file, np.load(io.BytesIO(file.read())) as saved:
        own, decoded, content = (saved[name] for name in Widths._fields)
        return own, decoded, content

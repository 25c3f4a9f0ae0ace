"""Layout of a fused vector: the columns of each modality."""

import dataclasses
import urllib.parse
from collections.abc import Mapping
from typing import Any

import numpy as np

# The modality of collaborative factors, which the others learn to predict.
COLLABORATIVE = "collaborative"


@dataclasses.dataclass(frozen=True)
class Modality:
    """One modality's block of the fused vector: columns [offset, offset + width)."""

    name: str
    offset: int
    width: int

    @property
    def columns(self) -> slice:
        """The block's columns."""
        return slice(self.offset, self.offset + self.width)

    @property
    def directory(self) -> str:
        """The name as a directory name that is safe on every file system."""
        return urllib.parse.quote(self.name, safe="").replace(".", "%2E")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The modalities side by side, in the order of the mask's columns.

    Raises:
      ValueError: there is no modality, a name is repeated, the blocks are not contiguous, or the collaborative one is
        not the last.
    """

    modalities: tuple[Modality, ...]

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ValueError("layout must have at least one modality, got none")
        end = 0
        for modality in self.modalities:
            if modality.width < 1:
                raise ValueError(f"width of modality {modality.name} must be at least 1, got {modality.width}")
            if modality.offset != end:
                raise ValueError(f"offset of modality {modality.name} must be {end}, got {modality.offset}")
            end += modality.width
        names = [modality.name for modality in self.modalities]
        if len(set(names)) < len(names) or "" in names:
            raise ValueError(f"names of modalities must be distinct and not empty, got {names}")
        if COLLABORATIVE in names[:-1]:
            raise ValueError(f"modality {COLLABORATIVE} must be the last, got {names}")

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Layout":
        """The layout in a parsed _layout.json: {"modalities": [{"name", "offset", "width"}, ...], "width"}."""
        layout = cls(tuple(Modality(m["name"], m["offset"], m["width"]) for m in value["modalities"]))
        if layout.width != value["width"]:
            raise ValueError(f"width of the layout must be {layout.width}, the sum of its blocks, got {value['width']}")
        return layout

    def to_dict(self) -> dict[str, Any]:
        """The inverse of `from_dict`."""
        return {"modalities": [dataclasses.asdict(m) for m in self.modalities], "width": self.width}

    @property
    def width(self) -> int:
        """Width of a fused vector, D."""
        return sum(modality.width for modality in self.modalities)

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities' names, M of them."""
        return tuple(modality.name for modality in self.modalities)

    @property
    def predicts_factors(self) -> bool:
        """True if there are collaborative factors, and content to predict them from."""
        return len(self.modalities) > 1 and self.names[-1] == COLLABORATIVE

    def narrowed(self, factors: int) -> "Layout":
        """The layout of the leading columns, with at most that many factors of the collaborative modality."""
        last = dataclasses.replace(self.modalities[-1], width=factors)
        return Layout((*self.modalities[:-1], last))

    @property
    def membership(self) -> np.ndarray:
        """[M, D] float32: 1 where a column belongs to a modality. mask @ membership spreads a mask over columns."""
        matrix = np.zeros((len(self.modalities), self.width), np.float32)
        for index, modality in enumerate(self.modalities):
            matrix[index, modality.columns] = 1
        return matrix

"""Tuned hyperparameters: the numbers that shape the embeddings' blocks, in JSON beside the collaborative factors."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Own:
    """The block of a post's own factors: V[:, :rank] * s^2 / (s^2 + shrinkage s_rank^2) * degree^degree_power."""

    rank: int = 64
    shrinkage: float = 3.0
    degree_power: float = 0.0


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The block of factors predicted from content: the first k of them, times s^(e - 1).

    Attributes:
      lam: strength of the ridge that maps content to factors.
      weights: modality -> weight of its block in that map; 0 drops it.
    """

    k: int = 64
    e: float = 2.0
    lam: float = 10.0
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Content:
    """The block of content: unit rows of one modality, and its weight b beside the decoded block."""

    modality: str
    b: float = 0.1


@dataclasses.dataclass(frozen=True)
class Mix:
    """Mixing weights of the blocks.

    Attributes:
      cold_weight: weight of the decoded block of a post without interactions; the content block's is b * cold_weight.
      warm_weight: weight of the decoded block of a post that has some.
    """

    cold_weight: float = 0.3
    warm_weight: float = 0.1


@dataclasses.dataclass(frozen=True)
class Trend:
    """Parameters of recent popularity (`transforms.embed.trend`); times are days, or days since 1970.

    Attributes:
      half_life: after which an interaction counts half in a post's heat, and a post's newness is half.
      newness: of a post created just now.
      weight: of the trend for a user who was active just now.
      away: inactivity after which it counts half for a user; None: it counts alike for all users ever active.
      newest: the present.
      per_user: the sum of the heat of all posts, over the number of users with interactions.
    """

    half_life: float
    newness: float
    weight: float
    away: float | None
    newest: float
    per_user: float


@dataclasses.dataclass(frozen=True)
class Tuning:
    """All hyperparameters. The defaults serve where there is too little data to validate on.

    Attributes:
      recency: h: an interaction counts 0.5^(recency / h) in a profile; None: all count alike.
      content_recency: the same for the decoded and content blocks of a profile; `recency` unless tuned apart.
      decoded: None where no content predicts factors.
      content: None where there is no content.
      trend: None where recent popularity does not improve the validation metrics.
      validation: figures on the validation parts, for readers of the file.
    """

    own: Own = Own()
    recency: float | None = None
    content_recency: float | None = None
    decoded: Decoded | None = None
    content: Content | None = None
    mix: Mix = Mix()
    trend: Trend | None = None
    validation: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def content_weight(self) -> float:
        """b of the content block, 0 where there is none."""
        return self.content.b if self.content is not None else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Content of _tuning.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Tuning":
        """The inverse of `to_dict`."""
        return cls(
            own=Own(**value["own"]),
            recency=value["recency"],
            content_recency=value.get("content_recency", value["recency"]),
            decoded=None if value["decoded"] is None else Decoded(**value["decoded"]),
            content=None if value["content"] is None else Content(**value["content"]),
            mix=Mix(**value["mix"]),
            trend=None if value["trend"] is None else Trend(**value["trend"]),
            validation=value["validation"],
        )

"""Interaction histories of the tuning sample, in the order of their times."""

import dataclasses

import numpy as np
import scipy.sparse as sp

from transforms.embed import formulas
from transforms.linalg import runs


@dataclasses.dataclass(frozen=True)
class Interactions:
    """Users' histories, sorted by user and post.

    Attributes:
      user: [n] int64, place of the user.
      post: [n] int64, place of the post.
      strength: [n] float32; liked if above 0.
      recency: [n] float32: rank in the user's history from the newest (0), over its length; equal times share one.
      num_users: places of users.
      num_posts: places of posts.
      time: [n] float64, days since 1970, nan where unknown; None if all are.
    """

    user: np.ndarray
    post: np.ndarray
    strength: np.ndarray
    recency: np.ndarray
    num_users: int
    num_posts: int
    time: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.user)

    @property
    def liked(self) -> np.ndarray:
        """[n] bool."""
        return self.strength > 0

    def filter(self, chosen: np.ndarray) -> "Interactions":
        """The chosen rows ([n] bool), unchanged."""
        arrays = {name: getattr(self, name)[chosen] for name in ("user", "post", "strength", "recency")}
        return dataclasses.replace(self, time=None if self.time is None else self.time[chosen], **arrays)

    def select(self, chosen: np.ndarray) -> "Interactions":
        """The chosen rows ([n] bool), with recency ranked among them."""
        rows = self.filter(chosen)
        return dataclasses.replace(rows, recency=recency_ranks(rows.user, rows.recency))

    def matrix(self, values: np.ndarray) -> sp.csr_array:
        """[num_users, num_posts] of [n] values."""
        return sp.csr_array((values, (self.user, self.post)), shape=(self.num_users, self.num_posts))

    def profile_weights(self, half_life: float | None) -> sp.csr_array:
        """[num_users, num_posts] float32: weight of each post in each profile."""
        return self.matrix(self.strength * formulas.recency_weights(self.recency, half_life))


def recency_ranks(user: np.ndarray, age: np.ndarray) -> np.ndarray:
    """`runs.mean_ranks` of ages within users: [n] float32, the newest 0; all are 0 if a user's ages are all equal."""
    ranks = runs.mean_ranks(user, age).astype(np.float32)
    newest = np.full(user.max(initial=-1) + 1, np.inf)
    np.minimum.at(newest, user, age)
    num_older = np.bincount(user, age > newest[user])
    ranks[num_older[user] == 0] = 0
    return ranks

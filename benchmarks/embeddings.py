"""Embeddings with the structure of fusefeed's own, made in code: the blocks of `transforms.embed.formulas`.

Posts have a place among topics. Collaborative factors show it with a falling spectrum and, for posts with few
interactions, more noise; predicted factors are a smoothed copy; content shows it beside much that is its own. Users are
profiles of posts near those that they like, scaled by the posts' covariances.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

OWN, DECODED, CONTENT = 64, 32, 128
WIDTH = OWN + DECODED + CONTENT + 1
_TASTES, _TOPICS, _LIKED, _ROWS_AT_ONCE = 24, 400, 20, 20_000
_WORLD = 11


class Embeddings(NamedTuple):
    """Vectors of users and posts, [n, WIDTH] float32, whose inner product is the score."""

    users: "np.ndarray"
    posts: "np.ndarray"


def make(num_users: int, num_posts: int) -> Embeddings:
    """The embeddings of a world; the same every time."""
    import numpy as np

    from transforms.embed import formulas
    from transforms.embed.parameters import Mix, Own
    from transforms.linalg.vectors import unit_rows

    world = np.random.default_rng(_WORLD)
    singular_values = 100 / np.sqrt(1 + np.arange(OWN))
    maps = [world.standard_normal((_TASTES, width)) / np.sqrt(_TASTES) for width in (OWN, CONTENT)]
    topics = world.standard_normal((_TOPICS, _TASTES)) * np.linspace(1.5, 0.3, _TASTES)
    widths, mix = formulas.Widths(OWN, DECODED, CONTENT), Mix()
    posts = np.empty((num_posts, WIDTH), np.float32)
    profiles = np.empty((num_posts, WIDTH - 1), np.float32)
    topic_of = np.sort(world.integers(0, _TOPICS, num_posts))
    sums = []
    for start in range(0, num_posts, _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, num_posts))
        random = np.random.default_rng([_WORLD, start])
        number = rows.stop - start
        place = topics[topic_of[rows]] + 0.5 * random.standard_normal((number, _TASTES))
        degree = np.floor(random.pareto(1.0, number) * 3)
        noise = random.standard_normal((number, OWN)) / np.sqrt(1 + degree)[:, None]
        factors = (place @ maps[0] + noise) * singular_values / singular_values[0] / np.sqrt(num_posts)
        predicted = 0.7 * place @ maps[0] * singular_values / singular_values[0] / np.sqrt(num_posts)
        content = unit_rows(place @ maps[1] + 1.5 * random.standard_normal((number, CONTENT)))
        own = formulas.own_block(factors, singular_values, degree, Own(rank=OWN))
        decoded = formulas.decoded_block(predicted, singular_values, DECODED, 1.0)
        posts[rows] = formulas.item_vectors(own, decoded, content, degree, random.exponential(0.3, number), mix)
        profiles[rows] = formulas.profile_vectors(factors, predicted, content, degree, widths)
        sums.append(formulas.block_moments(own, decoded, content, degree))
    covariances = tuple(
        formulas.VectorMoments(*(sum(values) for values in zip(*moments, strict=True))).covariance()
        for moments in zip(*sums, strict=True)
    )
    users = np.empty((num_users, WIDTH), np.float32)
    for start in range(0, num_users, _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, num_users))
        random = np.random.default_rng([_WORLD, start, 1])
        number = rows.stop - start
        # A user likes posts of two topics: their places among the posts, which are sorted by topic.
        liked = random.choice(_TOPICS, (number, 2))[np.arange(number)[:, None], random.integers(0, 2, (number, _LIKED))]
        ends = np.searchsorted(topic_of, np.arange(_TOPICS + 1))
        found = ends[liked] + (random.random(liked.shape) * (ends[liked + 1] - ends[liked])).astype(np.int64)
        profile = profiles[np.minimum(found, num_posts - 1)].sum(axis=1, dtype=np.float64)
        users[rows] = formulas.user_vectors(profile, covariances, 0.1, mix, 0.5 * random.random(number))
    return Embeddings(users, posts[np.random.default_rng(_WORLD).permutation(num_posts)])

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from transforms.embed import formulas
from transforms.embed.parameters import Content, Decoded, Mix, Own, Tuning
from transforms.metrics import ranking
from transforms.tables import blocks
from transforms.tuning import tune as tuning
from transforms.tuning.exact_factors import factorize
from transforms.tuning.histories import Interactions, recency_ranks
from transforms.tuning.sample import Block, Sample
from transforms.tuning.scores import decoded_rows, ridge_factors
from transforms.tuning.tune import tune

NUM_USERS, NUM_POSTS, NUM_TOPICS = 200, 600, 6
RANK = 32


def topic_world(drift: bool = False, dated: bool = True) -> Sample:
    """Users who like posts of one topic, or first of one, then of another; "text" shows the topic, "noise" does not."""
    rng = np.random.default_rng(4)
    topic = rng.integers(NUM_TOPICS, size=NUM_POSTS)
    user, post, time = [], [], []
    for one in range(NUM_USERS):
        tastes = rng.integers(NUM_TOPICS, size=2) if drift else np.repeat(rng.integers(NUM_TOPICS), 2)
        for step in range(20):
            wanted = topic == tastes[step // 10]
            candidates = np.flatnonzero(wanted) if rng.random() < 0.8 else np.arange(NUM_POSTS)
            user.append(one)
            post.append(rng.choice(candidates))
            time.append(step)
    pairs, first = np.unique(np.array(user) * NUM_POSTS + np.array(post), return_index=True)
    users, posts = pairs // NUM_POSTS, pairs % NUM_POSTS
    age = -np.array(time)[first] if dated else np.zeros(len(first))
    liked = Interactions(users, posts, np.ones(len(pairs), np.float32), recency_ranks(users, age), NUM_USERS, NUM_POSTS)
    everywhere = np.ones(NUM_POSTS, bool)
    noisy = rng.standard_normal((NUM_POSTS, 16)).astype(np.float32) / 4
    present = rng.random(NUM_POSTS) < 0.9
    text = (np.eye(NUM_TOPICS, dtype=np.float32)[topic] - 1 / NUM_TOPICS) * present[:, None]
    text += 0.2 * rng.standard_normal(text.shape).astype(np.float32) * present[:, None]
    content = {"noise": Block(noisy, everywhere), "text": Block(text, present)}
    ids = pa.array([f"p{one:03}" for one in range(NUM_POSTS)])
    people = pa.array([f"u{one:03}" for one in range(NUM_USERS)])
    coverage = {"noise": 1.0, "text": float(present.mean())}
    return Sample(liked, blocks.stable_hash(people), blocks.stable_hash(ids), ids, content, coverage)


def without(sample: Sample, **changes: object) -> Sample:
    return dataclasses.replace(sample, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def drifting() -> Tuning:
    return tune(topic_world(drift=True), seed=0, num_factors=RANK)


@pytest.fixture(scope="module")
def steady() -> Tuning:
    return tune(topic_world(), seed=0, num_factors=RANK)


def test_content_that_shows_the_topic_is_found_and_noise_is_not(steady: Tuning) -> None:
    found = steady
    assert found.decoded is not None
    assert found.content is not None
    assert found.content.modality == "text"
    assert found.decoded.weights["text"] >= found.decoded.weights["noise"]
    figures = found.validation
    assert figures["cold"]["recall"] > 1.5 * figures["content"]["noise"]["recall"]
    assert figures["warm"]["recall"] > 0.9 * figures["own"]["recall"]
    assert figures["sample"] == {"users": NUM_USERS, "posts": NUM_POSTS}
    assert found.own.rank <= RANK
    assert found.decoded.k <= RANK
    assert Tuning.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_recency_is_found_where_tastes_change_and_only_there(drifting: Tuning) -> None:
    assert drifting.recency is not None
    assert drifting.recency <= 0.25
    assert tune(topic_world(drift=True, dated=False), seed=0, num_factors=RANK).recency is None


def test_content_has_a_recency_of_its_own(drifting: Tuning) -> None:
    assert drifting.content_recency != drifting.recency  # held-out posts were liked at any time


def fashion_world(fashion: bool) -> Sample:
    """Users over 60 days, who like what is new that day (with `fashion`), or posts of their own topic of any age."""
    rng = np.random.default_rng(7)
    born = np.sort(rng.uniform(0, 60, NUM_POSTS))
    rows = []
    for user in range(NUM_USERS):
        for day in rng.uniform(0, 60, 25):
            near = (
                (born <= day) & (born > day - 4) if fashion else np.arange(NUM_POSTS) % NUM_TOPICS == user % NUM_TOPICS
            )
            if near.any():
                rows.append((user, int(rng.choice(np.flatnonzero(near))), 1000 + day))
    found = np.array(rows)
    pairs, first = np.unique(found[:, 0] * NUM_POSTS + found[:, 1], return_index=True)
    users, posts, time = pairs.astype(int) // NUM_POSTS, pairs.astype(int) % NUM_POSTS, found[first, 2]
    recency = recency_ranks(users, -time)
    liked = Interactions(users, posts, np.ones(len(pairs), np.float32), recency, NUM_USERS, NUM_POSTS, time)
    ids = pa.array([f"p{one:03}" for one in range(NUM_POSTS)])
    people = pa.array([f"u{one:03}" for one in range(NUM_USERS)])
    return Sample(liked, blocks.stable_hash(people), blocks.stable_hash(ids), ids, {}, {}, 1000 + born)


def test_a_trend_is_found_where_there_is_one_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    world = fashion_world(fashion=True)
    found = tune(world, seed=0, num_factors=RANK)
    assert found.trend is not None
    assert found.trend.newest == world.interactions.time.max()  # type: ignore[union-attr]
    figures = found.validation
    assert figures["later_with_trend"]["recall"] > 1.2 * figures["later"]["recall"]
    assert found.trend.newness > 0
    unborn = tune(without(world, created=None), seed=0, num_factors=RANK)
    assert unborn.trend is not None and unborn.trend.newness == 0
    assert unborn.validation["later_with_trend"]["recall"] < figures["later_with_trend"]["recall"]
    warm = sum(figures["warm_with_trend"][name] for name in ("recall", "ndcg"))
    assert warm >= 0.9 * sum(figures["warm"][name] for name in ("recall", "ndcg")) - 1e-5
    assert tune(fashion_world(fashion=False), seed=0, num_factors=RANK).trend is None
    monkeypatch.setattr(tuning, "MIN_TREND_USERS", NUM_USERS + 1)
    assert tune(world, seed=0, num_factors=RANK).trend is None


def test_tuning_is_deterministic(steady: Tuning) -> None:
    assert tune(topic_world(), seed=0, num_factors=RANK) == steady


def test_one_modality() -> None:
    world = topic_world()
    found = tune(
        without(world, content={"text": world.content["text"]}, coverage={"text": 0.9}), seed=0, num_factors=RANK
    )
    assert found.content is not None
    assert found.content.modality == "text"
    assert found.decoded is not None
    assert found.decoded.weights["text"] > 0


def test_time_is_not_put_on_a_list_for_itself_unless_there_is_nothing_else() -> None:
    world = topic_world()
    both = {"time": world.content["text"], "noise": world.content["noise"]}
    found = tune(without(world, content=both, coverage={"time": 1.0, "noise": 0.5}), seed=0, num_factors=RANK)
    assert found.content is not None
    assert found.decoded is not None
    assert found.content.modality == "noise"
    assert found.validation["decoded"]["recall"] > 1.5 * found.validation["content"]["noise"]["recall"]
    alone = tune(
        without(world, content={"time": world.content["text"]}, coverage={"time": 1.0}), seed=0, num_factors=RANK
    )
    assert alone.content is not None
    assert alone.content.modality == "time"


def test_without_content_only_own_factors_are_tuned() -> None:
    found = tune(without(topic_world(), content={}, coverage={}), seed=0, num_factors=RANK)
    assert (found.decoded, found.content) == (None, None)
    assert found.validation["warm"]["recall"] > 0.1
    assert (found.mix.cold_weight, found.mix.warm_weight) == (Mix.cold_weight, Mix.warm_weight)


def test_without_interactions_content_stands_alone() -> None:
    world = topic_world()
    nobody = world.interactions.filter(np.zeros(len(world.interactions), bool))
    nobody = dataclasses.replace(nobody, num_users=0, num_posts=0)
    empty = {name: Block(block.values[:0], block.present[:0]) for name, block in world.content.items()}
    hashes = np.zeros(0, np.uint64)
    bare = Sample(nobody, hashes, hashes, pa.array([], pa.string()), empty, world.coverage)
    assert tune(bare, seed=0, num_factors=RANK) == Tuning(
        Own(rank=RANK), content=Content("noise"), validation={"sample": {"users": 0, "posts": 0}}
    )
    assert tune(without(bare, content={}, coverage={}), seed=0, num_factors=RANK).content is None


def test_too_few_to_validate_on_keep_the_defaults() -> None:
    world = topic_world()
    few = world.interactions.filter(world.interactions.user < 10)
    found = tune(without(world, interactions=few), seed=0, num_factors=RANK)
    assert (found.own, found.recency, found.mix) == (Own(rank=RANK), None, Mix())
    assert found.decoded == Decoded(k=RANK, weights={"noise": 1.0, "text": 1.0})
    assert found.content == Content("noise")
    assert set(found.validation) == {"sample"}


def test_what_is_disliked_is_no_target() -> None:
    world = topic_world()
    some = world.interactions
    rng = np.random.default_rng(5)
    # Every user dislikes 20 posts; were these taken for liked, they would be a second taste of everybody.
    user = np.repeat(np.arange(NUM_USERS), 20)
    post = (np.arange(20) * 7)[None, :].repeat(NUM_USERS, 0).ravel()
    pairs = np.concatenate([some.user * NUM_POSTS + some.post, user * NUM_POSTS + post])
    strength = np.concatenate([some.strength, np.zeros(len(user), np.float32)])
    pairs, first = np.unique(pairs, return_index=True)
    recency = recency_ranks(pairs // NUM_POSTS, rng.random(len(pairs)))
    mixed = Interactions(pairs // NUM_POSTS, pairs % NUM_POSTS, strength[first], recency, NUM_USERS, NUM_POSTS)
    found = tune(without(world, interactions=mixed), seed=0, num_factors=RANK)
    assert found.validation["own"]["recall"] > 0.1
    factors = factorize(mixed, 16, seed=0)
    assert factors.degree.sum() == len(some)


def ml100k(shared_data: Path) -> tuple[Sample, np.ndarray]:
    """(first 80% of every user's ratings, the rest as [users, posts] bool); ratings alone."""
    table = np.loadtxt(shared_data / "ml100k" / "ratings.csv", delimiter=",", skiprows=1, dtype=np.int64)
    user, post, time = np.unique(table[:, 0], return_inverse=True)[1], table[:, 1] - 1, table[:, 3]
    order = np.lexsort((post, time, user))
    sizes = np.bincount(user)
    place = np.arange(len(user)) - (np.cumsum(sizes) - sizes)[user[order]]
    train = np.zeros(len(user), bool)
    train[order] = place < (sizes * 0.8).astype(int)[user[order]]
    num_posts = int(post.max()) + 1
    targets = np.zeros((len(sizes), num_posts), bool)
    targets[user[~train], post[~train]] = True
    rows = np.flatnonzero(train)
    rows = rows[np.lexsort((post[rows], user[rows]))]
    recency = recency_ranks(user[rows], -time[rows])
    liked = Interactions(user[rows], post[rows], np.ones(len(rows), np.float32), recency, len(sizes), num_posts)
    ids = pa.array([f"{one:04}" for one in range(num_posts)])
    people = pa.array([f"{one:04}" for one in range(len(sizes))])
    return Sample(liked, blocks.stable_hash(people), blocks.stable_hash(ids), ids, {}, {}), targets


def test_ml100k_without_content_beats_ease(shared_data: Path) -> None:
    sample, targets = ml100k(shared_data)
    found = tune(sample, seed=0, num_factors=128)
    assert found.recency is not None
    liked, factors = sample.interactions, factorize(sample.interactions, 128, seed=0)
    predicted = ridge_factors(factors, {}, found.decoded)
    own = formulas.own_block(factors.values, factors.singular_values, factors.degree, found.own)
    parts = (own, decoded_rows(factors, predicted, found.decoded), np.zeros((liked.num_posts, 0)), factors.degree)
    widths = formulas.Widths(own.shape[1], 0, 0)
    added = formulas.profile_vectors(factors.values, predicted, parts[2], factors.degree, widths)
    covariances = tuple(one.covariance() for one in formulas.block_moments(*parts))
    users = formulas.user_vectors(liked.profile_weights(found.recency) @ added, covariances, 0, found.mix)
    scores = users @ formulas.item_vectors(*parts, np.zeros(liked.num_posts), found.mix).T
    scores[liked.user, liked.post] = -np.inf
    recall, ndcg = ranking.recall_ndcg(scores, targets, 20, 10)
    # EASE with lambda 300 has .197 and .197.
    assert recall.mean() > 0.23
    assert ndcg.mean() > 0.235

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from transforms.tables import blocks
from transforms.tuning import validation_tasks
from transforms.tuning.histories import Interactions
from transforms.tuning.sample import Sample


def random_sample(num_users: int = 60, num_posts: int = 80, share: float = 0.2, dated: bool = True) -> Sample:
    rng = np.random.default_rng(2)
    user, post = np.nonzero(rng.random((num_users, num_posts)) < share)
    sizes = np.bincount(user, minlength=num_users)
    recency = np.concatenate([rng.permutation(size) / size for size in sizes]) if dated else np.zeros(len(user))
    strength = rng.choice([0, 1, 2], len(user), p=[0.1, 0.6, 0.3])
    some = Interactions(user, post, strength.astype(np.float32), recency.astype(np.float32), num_users, num_posts)
    ids = pa.array([f"p{post:03}" for post in range(num_posts)])
    users = pa.array([f"u{user:03}" for user in range(num_users)])
    return Sample(some, blocks.stable_hash(users), blocks.stable_hash(ids), ids, {}, {})


def test_the_newest_fifth_of_each_history_is_held_out() -> None:
    found = random_sample()
    some = found.interactions
    held = validation_tasks.last_of_each(some, found.user_hash, found.post_hash, 0.2)
    for user in range(some.num_users):
        own = some.user == user
        assert np.count_nonzero(held & own) == max(int(np.count_nonzero(own) * 0.2), 1)
        assert some.recency[held & own].max() < some.recency[~held & own].min()


def test_without_times_a_hash_decides_and_not_the_order_of_ids() -> None:
    found = random_sample(dated=False)
    some = found.interactions
    held = validation_tasks.last_of_each(some, found.user_hash, found.post_hash, 0.2)
    assert held.mean() == pytest.approx(0.2, abs=0.05)
    share_of_first = held[some.post < some.num_posts // 2].mean()
    assert share_of_first == pytest.approx(held.mean(), abs=0.08)
    assert len(np.unique(some.post[held])) > 50  # not the same posts for every user


def test_histories_of_two_hold_nothing_out_and_of_three_one() -> None:
    user = np.array([0, 0, 1, 1, 1])
    some = Interactions(user, np.arange(5), np.ones(5, np.float32), np.zeros(5, np.float32), 2, 5)
    held = validation_tasks.last_of_each(some, np.array([1, 2], np.uint64), np.arange(5).astype(np.uint64), 0.2)
    assert np.bincount(user, held).tolist() == [0, 1]


def test_the_warm_task_knows_nothing_of_its_targets() -> None:
    found = random_sample()
    task = validation_tasks.warm_task(found, 16, seed=0)
    assert task is not None
    some = found.interactions
    held = validation_tasks.last_of_each(some, found.user_hash, found.post_hash, 0.2)
    fit = np.zeros((some.num_users, some.num_posts), bool)
    fit[some.user[~held], some.post[~held]] = True
    targets = task.ranking.targets
    assert np.count_nonzero(targets) == np.count_nonzero(held & some.liked)
    assert not (fit[task.ranking.users] & targets).any()
    np.testing.assert_array_equal(task.histories.matrix(np.ones(len(task.histories))).toarray() > 0, fit)
    np.testing.assert_array_equal(task.factors.degree, np.bincount(some.post[some.liked & ~held], minlength=80))
    # What was disliked is no target, what is known is not ranked.
    scores = np.zeros(targets.shape)
    task.ranking.measure(scores)
    np.testing.assert_array_equal(np.isneginf(scores), fit[task.ranking.users])


def test_the_later_task_is_cut_at_one_moment_for_all() -> None:
    found = random_sample()
    some = found.interactions
    time = np.random.default_rng(3).uniform(50, 90, len(some))
    time[::7] = np.nan
    assert validation_tasks.later_task(found, 16, seed=0) is None
    task = validation_tasks.later_task(
        dataclasses.replace(found, interactions=dataclasses.replace(some, time=time)), 16, seed=0
    )
    assert task is not None
    cut = np.nanquantile(time, 0.8)
    later = time > cut
    assert np.isnan(task.fit.time).sum() == np.isnan(time).sum() and np.nanmax(task.fit.time) <= cut  # type: ignore[arg-type]
    assert len(task.fit) == np.count_nonzero(~later)
    targets = np.zeros((some.num_users, some.num_posts), bool)
    targets[some.user[later & some.liked], some.post[later & some.liked]] = True
    known = np.bincount(some.user[~later & some.liked], minlength=some.num_users) > 0
    np.testing.assert_array_equal(task.ranking.targets, targets[known & targets.any(axis=1)])
    last = [np.nanmax(time[(some.user == user) & ~later]) for user in np.flatnonzero(known & targets.any(axis=1))]
    np.testing.assert_array_equal(task.last_active(), last)


def test_a_perfect_ranking_scores_one() -> None:
    task = validation_tasks.warm_task(random_sample(), 16, seed=0)
    assert task is not None
    found = task.ranking.measure(task.ranking.targets.astype(float))
    assert found.objective == pytest.approx(np.full(len(task.ranking.users), 2.0))


def test_profiles_and_maps_of_a_fold_know_nothing_of_its_posts() -> None:
    found = random_sample()
    task = validation_tasks.cold_task(found, 16, seed=0)
    assert task is not None
    assert np.bincount(task.fold).tolist() == [16] * 5
    one_of_each = np.eye(found.interactions.num_posts, dtype=np.float32)
    liked = found.interactions.matrix(found.interactions.strength).toarray()
    for number, (ranking, profile) in enumerate(zip(task.rankings, task.profiles(one_of_each, None), strict=True)):
        np.testing.assert_array_equal(ranking.posts, np.flatnonzero(task.fold == number))
        assert not profile[:, ranking.posts].any()
        np.testing.assert_array_equal(
            np.delete(profile, ranking.posts, 1), np.delete(liked, ranking.posts, 1)[ranking.users]
        )
        np.testing.assert_array_equal(ranking.targets, liked[ranking.users][:, ranking.posts] > 0)
        assert not set(task.fit_rows(number)) & set(ranking.posts)


def test_too_little_is_no_task() -> None:
    assert validation_tasks.warm_task(random_sample(num_users=10), 16, 0) is None
    assert validation_tasks.cold_task(random_sample(num_users=10), 16, 0) is None
    assert validation_tasks.cold_task(random_sample(num_posts=24), 16, 0) is None
    nothing = random_sample()
    empty = dataclasses.replace(
        nothing, interactions=nothing.interactions.filter(np.zeros(len(nothing.interactions), bool))
    )
    assert validation_tasks.warm_task(empty, 16, 0) is None
    assert validation_tasks.cold_task(empty, 16, 0) is None


def test_more_than_can_be_scored_is_cut_by_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation_tasks, "MAX_SCORED_POSTS", 40)
    monkeypatch.setattr(validation_tasks, "MAX_SCORES", 40 * 30)
    found = random_sample()
    warm, cold = validation_tasks.warm_task(found, 16, 0), validation_tasks.cold_task(found, 16, 0)
    assert warm is not None
    assert cold is not None
    assert warm.ranking.targets.shape == (30, 40)
    np.testing.assert_array_equal(np.sort(found.post_hash[warm.ranking.posts]), np.sort(found.post_hash)[:40])
    assert cold.histories.num_users == 30
    assert sum(ranking.targets.shape[1] for ranking in cold.rankings) == 40
    assert np.count_nonzero(cold.fold < 0) == 40  # these stay in profiles and maps

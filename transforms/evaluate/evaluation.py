"""Accuracy, confidence intervals and list metrics of the lists of several methods, as plain values for JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse

from transforms.evaluate import baselines, content_baselines, slices
from transforms.evaluate.content_baselines import ContentMoments
from transforms.evaluate.split_rules import seeded_hash
from transforms.evaluate.test_set import READ_ROWS, HeldOutSet
from transforms.metrics import lists as list_metrics
from transforms.metrics import ranking
from transforms.tables.blocks import vectors_to_numpy
from transforms.tables.parquet import read_blocks

OURS = "fusefeed"
KS = ranking.KS
MAX_K = max(KS)
LIST_K = 10
# Decimals; further ones depend on the rounding of sums.
DIGITS = 6
# Diversity is that of the lists of so many users.
MAX_DIVERSITY_USERS = 2000
SLICE_MEASURES = ("recall@20", "ndcg@10")
# Maximum number of posts with interactions for item-kNN.
MAX_KNN_POSTS = 200_000
# EASE inverts a dense matrix of posts x posts: 3 GB of float64 at this number.
EASE_MAX_POSTS = 20_000


def baseline_lists(
    test_set: HeldOutSet,
    fused: str,
    known: ContentMoments,
    cold: bool,
    *,
    num_components: int,
    seed: int,
    num_threads: int = 1,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(name -> lists [u, MAX_K], name -> reason that it was skipped).

    Args:
      fused: a table of schemas.fused with all posts.
      known: moments of the fused vectors in the training part.
      cold: True if no post that may be ranked has interactions.
      num_components: of PCA.
      seed: of all randomness.
      num_threads: of the scans.
    """
    popular = baselines.popular(test_set, MAX_K, seed=seed)
    found = {
        "random": baselines.random(test_set, MAX_K, seed),
        "popular": popular,
        "recent popular": baselines.popular(test_set, MAX_K, test_set.posts.recent, seed),
    }
    projects = {f"content kNN ({name})": content_baselines.by_modalities(known, [name]) for name in known.content}
    if len(known.content) > 1:
        projects["content kNN (all)"] = content_baselines.by_modalities(known, known.content)
    if known.content:
        projects["PCA kNN"] = content_baselines.by_pca(known, num_components)
    for name, project in projects.items():
        found[name] = content_baselines.content_knn(test_set, fused, project, MAX_K, num_threads)
    collaborative, skipped = _collaborative(test_set, cold)
    found |= collaborative
    return {name: baselines.fill(lists, popular) for name, lists in found.items()}, skipped


def _collaborative(test_set: HeldOutSet, cold: bool) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    names = ("item kNN", "EASE")
    if cold:
        return {}, {name: "it cannot rank posts without interactions" for name in names}
    found, skipped = {}, {}
    num_posts = len(baselines.known_posts(test_set))
    if num_posts <= MAX_KNN_POSTS:
        found["item kNN"] = baselines.item_knn(test_set, MAX_K)
    else:
        skipped["item kNN"] = f"{num_posts:,} posts with interactions, more than {MAX_KNN_POSTS:,}"
    if num_posts <= EASE_MAX_POSTS:
        found["EASE"] = baselines.ease(test_set, MAX_K)
    else:
        skipped["EASE"] = f"{num_posts:,} posts with interactions, more than {EASE_MAX_POSTS:,}"
    return found, skipped


def embedding_lists(
    test_set: HeldOutSet, user_embeddings: str, item_embeddings: str, num_threads: int = 1
) -> np.ndarray:
    """Lists of the eligible posts, ranked by the inner product of a run's embeddings: [u, MAX_K]."""
    items = (
        (block.column("post_id"), vectors_to_numpy(block.column("embedding")))
        for block in read_blocks(item_embeddings, READ_ROWS, ["post_id", "embedding"])
    )
    return product_lists(test_set, content_baselines.embeddings_of(test_set, user_embeddings), items, num_threads)


def product_lists(
    test_set: HeldOutSet, users: np.ndarray, posts: Iterator[tuple[pa.Array, np.ndarray]], num_threads: int = 1
) -> np.ndarray:
    """The same for embeddings in memory; args as of `content_baselines.nearest`."""
    return fill_recent(test_set, content_baselines.nearest(test_set, users, posts, MAX_K, num_threads))


def fill_recent(test_set: HeldOutSet, lists: np.ndarray) -> np.ndarray:
    """Lists [u, MAX_K] filled up by recent popularity, as in the recommend stage (except for ties)."""
    return baselines.fill(lists, baselines.popular(test_set, MAX_K, test_set.posts.recent))


def measure(
    test_set: HeldOutSet, methods: Mapping[str, np.ndarray], fused: str, known: ContentMoments, seed: int
) -> dict[str, Any]:
    """Metrics of every method: {"methods": {name: {"measures", "lists", "slices", "lead"}}, "slices": {name: users}}.

    `lead` is our measure less the method's (mean, low, high); low and high are the 95% confidence interval everywhere.

    Args:
      methods: name -> lists [u, MAX_K]; OURS is one of them.
    """
    results = compare(_per_user(test_set.targets, methods), seed, ranking.names())
    sizes = {}
    for label, targets in slices.slices(test_set, slices.modalities_of(test_set.posts, fused)):
        users = np.flatnonzero(np.diff(targets.indptr))
        sizes[label] = len(users)
        if len(users):
            chosen = {name: slice_measures(targets[users], lists[users]) for name, lists in methods.items()}
            for name, found in _intervals(chosen, seed, list(SLICE_MEASURES)).items():
                results[name].setdefault("slices", {})[label] = found
    content = content_baselines.by_modalities(known, known.content) if known.content else None
    diversities = _diversities(test_set, methods, fused, content, seed) if content is not None else {}
    for name, lists in methods.items():
        results[name]["lists"] = _list_measures(test_set, lists)
        if name in diversities:
            results[name]["lists"][f"diversity@{LIST_K}"] = diversities[name]
    return {"methods": results, "slices": sizes}


def compare(values: Mapping[str, np.ndarray], seed: int, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """name -> {"measures", and for all but OURS "lead": OURS less it}, each of each measure mean, low and high.

    Args:
      values: name -> [u, m], a number for each user and measure; OURS is one of them.
      names: of the m measures.
    """
    results: dict[str, dict[str, Any]] = {name: {} for name in values}
    for name, found in _intervals(values, seed, names).items():
        results[name]["measures"] = found
    leads = {name: values[OURS] - values[name] for name in values if name != OURS}
    for name, found in _intervals(leads, seed, names).items():
        results[name]["lead"] = found
    return results


def slice_measures(targets: scipy.sparse.csr_matrix, lists: np.ndarray) -> np.ndarray:
    """SLICE_MEASURES of lists [u, MAX_K]: [u, 2] float64."""
    names = ranking.names()
    return _per_user(targets, {"": lists})[""][:, [names.index(name) for name in SLICE_MEASURES]]


def _per_user(targets: scipy.sparse.csr_matrix, methods: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    num_targets = np.diff(targets.indptr)
    return {name: ranking.per_user(ranking.hits_of(lists, targets), num_targets) for name, lists in methods.items()}


def _intervals(
    values: Mapping[str, np.ndarray], seed: int, names: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and 95% interval of each column of each method; one set of resamples for all."""
    if not values:
        return {}
    together = np.concatenate(list(values.values()), axis=1)
    mean, (low, high) = together.mean(axis=0), ranking.bootstrap(together, seed)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for number, method in enumerate(values):
        of_method = {}
        for i, name in enumerate(names, number * len(names)):
            values_of = {"mean": mean[i], "low": low[i], "high": high[i]}
            of_method[name] = {key: round(float(value), DIGITS) for key, value in values_of.items()}
        found[method] = of_method
    return found


def _list_measures(test_set: HeldOutSet, lists: np.ndarray) -> dict[str, float]:
    """Beyond-accuracy metrics of lists of LIST_K (coverage, Gini, long tail, novelty), except their diversity."""
    best = lists[:, :LIST_K]
    posts = test_set.posts
    shown = list_metrics.shown(best, len(posts.post_id))[posts.eligible]
    tail = np.ones(len(posts.post_id), bool)
    tail[posts.eligible] = list_metrics.long_tail(posts.liked[posts.eligible])
    num_users = max(int(posts.liked.max(initial=0)), test_set.fit.shape[0])
    return {
        f"coverage@{LIST_K}": list_metrics.coverage(shown),
        f"gini@{LIST_K}": list_metrics.gini(shown),
        f"aplt@{LIST_K}": list_metrics.long_tail_share(best, tail),
        f"novelty@{LIST_K}": list_metrics.novelty(best, posts.liked, num_users),
    }


def _diversities(
    test_set: HeldOutSet, methods: Mapping[str, np.ndarray], fused: str, content: content_baselines.Project, seed: int
) -> dict[str, float]:
    # By hash: the order of ids may be that of age.
    chosen = np.argsort(seeded_hash(test_set.user_id, seed), kind="stable")[:MAX_DIVERSITY_USERS]
    best = np.stack([lists[chosen, :LIST_K] for lists in methods.values()])
    rows, vectors = content_baselines.content_of_lists(test_set, fused, content, best)
    diversities = (list_metrics.intra_list_diversity(of_method, vectors) for of_method in rows)
    return dict(zip(methods, diversities, strict=True))


def about(test_set: HeldOutSet) -> dict[str, Any]:
    """Statistics of the test set: numbers of users, posts and targets, and the share fitted on."""
    posts = test_set.posts
    return {
        "users": len(test_set.user_id),
        "targets": int(test_set.targets.nnz),
        "posts": len(posts.post_id),
        "eligible_posts": int(posts.eligible.sum()),
        "eligible_posts_with_interactions": int((posts.eligible & (posts.liked > 0)).sum()),
        "learnt_from_share": round(test_set.fit_share, 6),
    }

"""What the strategies pick, by hand and against brute force."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from modicum.base.errors import DataError, SpecError
from modicum.base.rng import stream
from modicum.strategies import STRATEGIES, clustering, coreset
from modicum.strategies.badge import GradientEmbeddings
from modicum.strategies.base import Selection, Strategy, View


def float32(value: Any) -> Any:
    return tuple(map(float32, value)) if isinstance(value, tuple) else np.asarray(value, np.float32)


def pick(
    name: str | Strategy, k: int, n: int, known: Any = None, seed: int = 0, signal: Any = "embedding", **signals: Any
) -> Selection:
    """Select from arrays made of nested lists; ``known`` is the labelled examples' ``signal``."""
    strategy = STRATEGIES.create(name) if isinstance(name, str) else name
    arrays = {key: float32(value) for key, value in signals.items()}
    labelled = {} if known is None else {signal: float32(known)}
    view = View(n, arrays, labelled, 0 if known is None else len(known))  # type: ignore[arg-type]
    return strategy.select(view, k, rng=stream(seed, "test"))


# -- scores of single examples ---------------------------------------------------------------------------------------

PROBA = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.6, 0.2, 0.2]]


@pytest.mark.parametrize(
    ("name", "positions", "scores"),
    [
        ("entropy", [2, 3, 1, 0], [1.08890, 0.95027, math.log(2), 0.0]),
        ("margin", [1, 2, 3, 0], [0.0, -0.1, -0.4, -1.0]),
        ("least-confidence", [2, 1, 3, 0], [0.6, 0.5, 0.4, 0.0]),
    ],
)
def test_uncertainty_by_hand(name: str, positions: list[int], scores: list[float]) -> None:
    selection = pick(name, 4, 4, proba=PROBA)
    assert selection.positions.tolist() == positions
    np.testing.assert_allclose(selection.scores, scores, atol=1e-5)
    assert pick(name, 2, 4, proba=PROBA).positions.tolist() == positions[:2]


def test_ties_keep_the_order_of_the_pool() -> None:
    assert pick("entropy", 3, 4, proba=[[0.9, 0.1], [0.5, 0.5], [0.5, 0.5], [0.1, 0.9]]).positions.tolist() == [1, 2, 0]


def test_dropout_scores_by_hand() -> None:
    """Candidate 0: the passes are sure and disagree. 1: they agree on not knowing. 2: sure and of one mind."""
    passes = [[[1, 0], [0.5, 0.5], [1, 0]], [[0, 1], [0.5, 0.5], [1, 0]]]
    bald = pick("bald", 3, 3, mc_proba=passes)
    assert bald.positions.tolist() == [0, 1, 2]
    np.testing.assert_allclose(bald.scores, [math.log(2), 0, 0], atol=1e-7)
    mc = pick("mc-entropy", 3, 3, mc_proba=passes)
    np.testing.assert_allclose(mc.scores, [math.log(2), math.log(2), 0], atol=1e-7)


def test_dropout_passes_are_a_setting() -> None:
    assert [STRATEGIES.create(name).mc_passes for name in ("mc-entropy", "bald", "entropy")] == [10, 10, 0]
    assert STRATEGIES.create("bald", passes=30).mc_passes == 30
    with pytest.raises(SpecError, match="MCEntropy: setting 'passes': .*greater than or equal to 1"):
        STRATEGIES.create("mc-entropy", passes=0)


def test_random_is_uniform() -> None:
    counts = np.zeros(6)
    for seed in range(600):
        counts[pick("random", 2, 6, seed=seed).positions] += 1
    assert counts.sum() == 1200 and counts.min() > 150 and counts.max() < 250


# -- core-set --------------------------------------------------------------------------------------------------------


def k_centre_greedy(x: np.ndarray, centres: np.ndarray, k: int) -> list[int]:
    picks: list[int] = []
    for _ in range(k):
        gap = cdist(x, np.concatenate([centres, x[picks]])).min(axis=1)
        picks.append(int(gap.argmax()))
    return picks


def test_coreset_by_hand() -> None:
    line = [[0], [1], [4], [10], [11]]
    selection = pick("coreset", 3, 5, known=[[0]], embedding=line)
    assert selection.positions.tolist() == [4, 2, 1]
    np.testing.assert_allclose(selection.scores, [11, 4, 1], atol=1e-5)


def test_coreset_without_labels_starts_farthest_from_the_mean() -> None:
    selection = pick("coreset", 3, 5, embedding=[[0], [1], [4], [10], [11]])  # the mean is 5.2
    assert selection.positions.tolist() == [4, 0, 2]
    np.testing.assert_allclose(selection.scores, [5.8, 11, 4], atol=1e-5)


@pytest.mark.parametrize("n_labelled", [0, 1, 30])
def test_coreset_equals_brute_force(n_labelled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreset, "BLOCK", 100)
    rng = stream(0, "coreset", n_labelled)
    x, known = (rng.normal(size=(m, 5)).astype(np.float32) for m in (200, n_labelled))
    if n_labelled:
        expected = k_centre_greedy(x, known, 25)
    else:
        first = int(cdist(x, x.mean(axis=0, keepdims=True)).argmax())
        expected = [first, *k_centre_greedy(x, x[[first]], 24)]
    picked = pick("coreset", 25, 200, known=known if n_labelled else None, embedding=x)
    assert picked.positions.tolist() == expected
    assert np.isnan(picked.scores).sum() == 0 and (np.diff(picked.scores[1:]) <= 1e-6).all()


def test_coreset_needs_little_memory() -> None:
    n, rng = 50_000, stream(0, "memory")
    view_of = {"embedding": rng.standard_normal((n, 64), dtype=np.float32)}
    view = View(n, view_of, {"embedding": view_of["embedding"][:1000] + 1}, 1000)  # type: ignore[arg-type]
    tracemalloc.start()
    STRATEGIES.create("coreset").select(view, 10, rng=rng)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6  # the block of distances is 17 MB; n x labelled would be 200 MB, n x n 10 GB


@pytest.mark.parametrize("name", ["coreset", "dal", "badge"])
def test_diverged_models_are_refused(name: str) -> None:
    x = np.ones((4, 2), dtype=np.float32)
    x[2, 1] = np.nan
    signals: dict[str, Any] = {"gradient_embedding": (x, x)} if name == "badge" else {"embedding": x}
    with pytest.raises(DataError, match="embedding' must be finite, but 1 of 4 rows .*first is row 2.*learning rate"):
        pick(name, 2, 4, **signals)


def test_scores_of_diverged_models_are_refused() -> None:
    with pytest.raises(DataError, match="scores must be numbers, but 1 of 2 are NaN .*position 1.*learning rate"):
        pick("entropy", 1, 2, proba=[[0.5, 0.5], [np.nan, np.nan]])


def test_diverse_margin_takes_one_of_each_cluster_of_uncertain_candidates() -> None:
    x = [[0, 0], [0.1, 0], [0.2, 0], [9, 9], [9, 9.1], [50, 0], [0, 50]]
    proba = [[0.5, 0.5], [0.52, 0.48], [0.5, 0.5], [0.6, 0.4], [0.6, 0.4], [0.99, 0.01], [1.0, 0.0]]
    for seed in range(5):
        narrow = STRATEGIES.create("diverse-margin", prefilter=2)
        assert set(pick(narrow, 2, 7, seed=seed, embedding=x, proba=proba).positions.tolist()) < {0, 1, 2, 3}
        wide = pick("diverse-margin", 2, 5, seed=seed, embedding=x[:5], proba=proba[:5]).positions
        assert sorted(p // 3 for p in wide.tolist()) == [0, 1]
    same = pick("diverse-margin", 4, 4, embedding=np.ones((4, 2)), proba=[[0.5, 0.5]] * 4).positions
    assert sorted(same.tolist()) == [0, 1, 2, 3]


# -- BADGE -----------------------------------------------------------------------------------------------------------


def test_badge_distances_equal_those_of_the_outer_products() -> None:
    rng = stream(0, "badge")
    a, b = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(30, 6)).astype(np.float32)
    outer = np.einsum("ic,iw->icw", a, b).reshape(30, -1)
    gradients = GradientEmbeddings(a, b)
    np.testing.assert_allclose(gradients.norms, (outer**2).sum(axis=1), rtol=1e-5)
    for row in (0, 17):
        np.testing.assert_allclose(gradients.distances_to(row), ((outer - outer[row]) ** 2).sum(axis=1), atol=1e-4)


def test_badge_starts_longest_and_draws_by_squared_distance() -> None:
    """Gradients 3, 1 and 0 on a line: from the pick 3 the squared distances are 4 and 9, so 9/13 take the last."""
    factors = ([[1.0], [1.0], [1.0]], [[3.0], [1.0], [0.0]])
    seconds = []
    for seed in range(1000):
        first, second = pick("badge", 2, 3, seed=seed, gradient_embedding=factors).positions
        assert first == 0
        seconds.append(second)
    assert abs(np.mean(np.equal(seconds, 2)) - 9 / 13) < 0.05


def test_badge_leaves_duplicates_of_picks_for_last() -> None:
    factors = ([[2.0], [2.0], [2.0], [1.0]], [[1.0, 0], [1.0, 0], [0, 1.0], [0, 1.0]])
    for seed in range(20):
        positions = pick("badge", 4, 4, seed=seed, gradient_embedding=factors).positions.tolist()
        assert positions[0] == 0 and positions[3] == 1


# -- discriminative --------------------------------------------------------------------------------------------------


def blobs(rng: np.random.Generator, *centres: tuple[float, float], each: int = 30) -> np.ndarray:
    points = [rng.normal(centre, 0.5, size=(each, 2)) for centre in centres]
    return np.concatenate(points).astype(np.float32)


def test_dal_picks_where_nothing_is_labelled() -> None:
    rng = stream(0, "dal")
    x, known = blobs(rng, (0, 0), (6, 0)), blobs(rng, (0, 0))
    selection = pick("dal", 10, 60, known=known, embedding=x)
    assert selection.positions.min() >= 30 and selection.scores.min() > 0.5


def test_dal_refits_for_every_sub_batch() -> None:
    rng = stream(0, "dal")
    x, known = blobs(rng, (0, 0), (4, 1), (1, 4)), blobs(rng, (0, 0), each=10)
    features = StandardScaler().fit_transform(np.concatenate([x, known]))
    free, expected = np.arange(90), []
    for _ in range(4):
        unlabelled = np.isin(np.arange(100), free)
        model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(features, unlabelled)
        best = free[np.argsort(-model.predict_proba(features[free])[:, 1])[:3]]
        expected.append(set(best.tolist()))
        free = np.setdiff1d(free, best)
    picks = pick(STRATEGIES.create("dal", sub_batches=4), 12, 90, known=known, embedding=x).positions
    assert [set(part.tolist()) for part in np.split(picks, 4)] == expected


def test_dal_narrows_to_ten_candidates_per_label() -> None:
    dal = STRATEGIES.create("dal")
    assert len(dal.narrow(5000, 30, 50, rng=stream(0))) == 300
    assert len(dal.narrow(5000, 3, 50, rng=stream(0))) == 50
    assert dal.narrow(300, 30, 50, rng=stream(0)) is None


def test_dal_without_labels_starts_at_random() -> None:
    x = blobs(stream(0, "dal"), (0, 0), (6, 0))
    firsts = [pick("dal", 20, 60, seed=seed, embedding=x) for seed in range(2)]
    assert np.isnan(firsts[0].scores[:2]).all() and not np.isnan(firsts[0].scores[2:]).any()
    assert firsts[0].positions[:2].tolist() != firsts[1].positions[:2].tolist()


# -- clusters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("large", [10, 20_000])
def test_kmeans_picks_the_middles(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three crosses of 3, 4 and 5 points whose middles are known, by full k-means and by mini-batches."""
    monkeypatch.setattr(clustering, "LARGE", large)
    arms = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    x = np.concatenate([arms, arms[:3] + 100, (arms + [0, 300])[[1, 2, 0, 3, 4]]])
    assert set(pick("kmeans", 3, 13, frozen_embedding=x).positions.tolist()) == {0, 5, 10}


def test_kmeans_goes_round_again_among_duplicates() -> None:
    x = [[0.0]] * 2 + [[5.0]] * 4
    positions = pick("kmeans", 4, 6, frozen_embedding=x).positions.tolist()
    assert set(positions[:2]) == {0, 2} and set(positions) == {0, 1, 2, 3}


def on_circle(*degrees: float) -> np.ndarray:
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


CLUMPS = on_circle(0, 4, 8, 9, 10, 20, 120, 124, 127, 128, 129, 130, 140, 240, 243, 246, 247, 248)


def test_typiclust_takes_the_most_typical_of_the_largest_uncovered_clusters() -> None:
    """Clumps of 6, 7 and 5 points; the mean distances to 2 neighbours are least at 9, 128 (or 129) and 247 degrees."""
    typiclust = STRATEGIES.create("typiclust", neighbours=2, max_clusters=3)
    lengths = np.linspace(0.5, 2, 18)[:, None]  # lengths do not count
    picks = pick(typiclust, 3, 18, frozen_embedding=CLUMPS * lengths).positions.tolist()
    assert picks[0] in (9, 10) and picks[1:] == [3, 16]
    known = on_circle(125, 126)
    covered = pick(typiclust, 3, 18, known, signal="frozen_embedding", frozen_embedding=CLUMPS)
    assert covered.positions.tolist()[:2] == [3, 16] and 6 <= covered.positions[2] <= 12


def test_typiclust_leaves_small_clusters_for_last() -> None:
    x = np.concatenate([on_circle(0, 1, 2, 3, 4, 5), on_circle(90, 90.5), on_circle(200)])
    positions = pick(STRATEGIES.create("typiclust", max_clusters=3), 9, 9, frozen_embedding=x).positions.tolist()
    assert set(positions[:6]) == set(range(6)) and positions[6] in (6, 7) and positions[7] == 8


def test_typiclust_samples_crowded_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "CROWD", 5)
    x = on_circle(*np.linspace(0, 30, 40))
    sizes = []

    def mean_distance(x: np.ndarray, neighbours: int) -> np.ndarray:
        sizes.append(len(x))
        return np.zeros(len(x))

    monkeypatch.setattr(clustering, "mean_distance", mean_distance)
    positions = pick(STRATEGIES.create("typiclust", max_clusters=1), 40, 40, frozen_embedding=x).positions
    assert sizes == [5] and sorted(positions.tolist()) == list(range(40))


def test_clustering_strategies_can_start_without_a_model() -> None:
    for name in ("random", "kmeans", "typiclust"):
        assert STRATEGIES.load(name).needs <= {"frozen_embedding"}


# -- subsample -------------------------------------------------------------------------------------------------------


def test_subsample_takes_its_traits_from_the_member() -> None:
    wrapped = STRATEGIES.create("subsample:mc-entropy", size=50, passes=3)
    assert wrapped.needs == {"mc_proba"} and wrapped.tasks == {"classification"} and wrapped.mc_passes == 3
    assert wrapped.canonical() == '{"inner":{"passes":3},"member":"mc-entropy","size":50}'
    coreset_wrapped = STRATEGIES.create("subsample:coreset")
    assert coreset_wrapped.needs_labelled == {"embedding"} and "regression" in coreset_wrapped.tasks
    assert STRATEGIES.load("subsample:entropy").needs == frozenset()


def test_subsample_narrows_then_delegates() -> None:
    wrapped = STRATEGIES.create("subsample:margin", size=20)
    kept = wrapped.narrow(1000, 5, 10, rng=stream(0))
    assert len(set(kept)) == 20 and kept.tolist() == sorted(kept) and kept.max() > 500
    assert len(wrapped.narrow(1000, 5, 60, rng=stream(0))) == 60
    assert wrapped.narrow(20, 5, 10, rng=stream(0)) is None
    assert pick(wrapped, 2, 4, proba=PROBA).positions.tolist() == [1, 2]


def test_subsample_lets_the_member_narrow_further() -> None:
    wrapped = STRATEGIES.create("subsample:dal", size=500)
    assert len(set(wrapped.narrow(10_000, 7, 10, rng=stream(0)))) == 70
    assert wrapped.narrow(10_000, 7, 10, rng=stream(0)).max() > 500
    assert len(wrapped.narrow(400, 7, 10, rng=stream(0))) == 70


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("subsample:entropi", {}, r"unknown strategy 'entropi' \(did you mean 'entropy'\?\)"),
        ("subsample:bald", {"pases": 3}, r"BALD: unknown setting 'pases' \(did you mean 'passes'\?\)"),
        ("subsample:bald", {"size": 0}, "setting 'size': .*greater than or equal to 1"),
        ("subsample", {}, "setting 'member' is missing"),
    ],
)
def test_subsample_errors(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        STRATEGIES.create(name, **options)

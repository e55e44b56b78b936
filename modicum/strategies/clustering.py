"""Strategies that cluster the frozen backbone's embeddings. They need no trained model: warm starts can use them."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import ClassVar

import numpy as np
from pydantic import Field
from sklearn import cluster
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from modicum.base.types import Signal, Task
from modicum.strategies.base import Selection, Strategy, View, check_k, unscored

Rescale = Callable[[np.ndarray], np.ndarray]

LARGE, MANY = 20_000, 1_000_000
"""Beyond this many examples, or examples x clusters, k-means works on mini-batches."""
SAMPLE = 65_536
"""Beyond this many examples, the centres are found from a random so many."""
CROWD = 5_000
"""Beyond this many members, a random sample of a cluster stands for it where all pairs are compared."""
BLOCK = 16_384
"""Rows that are worked on at once: 25 MB of 384 float32."""


def partition(
    x: np.ndarray,
    clusters: int,
    rng: np.random.Generator,
    rescale: Rescale = np.asarray,
    known: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """K-means of (n, width) rows and (m, width) known ones: the cluster of each, (n,) and (m,), and the centres,
    (clusters, width). Clusters may stay empty.

    rescale: what is done to rows first; the whole of them is never copied. weights: (n,) of the rows, each 1 without.
    """
    seed = int(rng.integers(2**31))
    known = x[:0] if known is None else known
    rows = slice(None) if len(x) <= SAMPLE else np.sort(rng.choice(len(x), SAMPLE, replace=False))
    drawn, heavy = x[rows], None if weights is None else np.concatenate([weights[rows], np.ones(len(known))])
    drawn = rescale(np.concatenate([drawn, known]) if len(known) else drawn)
    in_batches = len(drawn) > LARGE or len(drawn) * clusters > MANY
    if in_batches:
        model = cluster.MiniBatchKMeans(clusters, random_state=seed, batch_size=4096)
    else:
        model = cluster.KMeans(clusters, random_state=seed)
    # Full k-means on one thread: more would add up the centres in any order, and the same seed could give other picks.
    with warnings.catch_warnings(), threadpool_limits(None if in_batches else 1, "openmp"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # duplicates leave clusters empty: callers expect it
        model.fit(drawn, sample_weight=heavy)
    if len(x) <= SAMPLE:
        return model.labels_[: len(x)], model.labels_[len(x) :], model.cluster_centers_
    labels = np.concatenate([model.predict(rescale(x[block])) for block in blocks(len(x))])
    return labels, model.labels_[SAMPLE:], model.cluster_centers_


def blocks(n: int) -> Iterator[slice]:
    """Slices of ``BLOCK`` that together are all of n rows."""
    return (slice(start, start + BLOCK) for start in range(0, n, BLOCK))


def members_of(labels: np.ndarray, clusters: int) -> list[np.ndarray]:
    """The positions in each cluster, in rising order."""
    sizes = np.bincount(labels, minlength=clusters)
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])


def in_turn(queues: Iterable[Iterator[int]]) -> Iterator[int]:
    """One item of each queue, then a second one of each, and so on until all are empty."""
    waiting = deque(queues)
    while waiting:
        queue = waiting.popleft()
        for item in islice(queue, 1):
            yield item
            waiting.append(queue)


def central_first(x: np.ndarray, members: np.ndarray, centre: np.ndarray) -> Iterator[int]:
    """A cluster's members, nearest to its centre first."""
    gaps = [((x[members[rows]] - centre) ** 2).sum(axis=1) for rows in blocks(len(members))]
    yield from members[np.argsort(np.concatenate([np.empty(0), *gaps]), kind="stable")].tolist()


def nearest_to_centres(
    x: np.ndarray, k: int, rng: np.random.Generator, weights: np.ndarray | None = None
) -> np.ndarray:
    """(k,) positions: of each of k clusters of (n, width) rows the one nearest to its centre, largest cluster first;
    round again where duplicates leave fewer clusters. weights: as in ``partition``."""
    labels, _, centres = partition(x, k, rng, weights=weights)
    groups = members_of(labels, k)
    order = sorted(range(k), key=lambda c: -len(groups[c]))
    picks = in_turn(central_first(x, groups[c], centres[c]) for c in order)
    return np.fromiter(islice(picks, k), np.int64)


def typical_first(x: np.ndarray, members: np.ndarray, neighbours: int, rng: np.random.Generator) -> Iterator[int]:
    """A cluster's members, most typical first, by their directions; beyond a random ``CROWD`` in random order."""
    if len(members) > CROWD:
        members = rng.permutation(members)
    judged, rest = members[:CROWD], members[CROWD:]
    yield from judged[np.argsort(mean_distance(normalize(x[judged]), neighbours), kind="stable")].tolist()
    yield from rest.tolist()


def mean_distance(x: np.ndarray, neighbours: int) -> np.ndarray:
    """(n,) mean distances to the nearest other rows of (n, width): the inverse of typicality. 0 for a lone row."""
    count = min(neighbours, len(x) - 1)
    if count == 0:
        return np.zeros(len(x))
    distances, _ = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(x).kneighbors()
    return np.asarray(distances.mean(axis=1))


class KMeans(Strategy):
    """Picks the candidate nearest to the centre of each of k clusters (Xu et al. 2003; Yuan et al. 2020).

    Where duplicates leave fewer than k clusters, it goes round again, largest cluster first.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({"frozen_embedding"})
    tasks: ClassVar[frozenset[Task]] = frozenset({"classification", "regression"})

    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        check_k(view, k)
        return unscored(nearest_to_centres(np.asarray(view.signals["frozen_embedding"]), k, rng))


class TypiClust(Strategy):
    """Picks the most typical candidate of each cluster that holds no label yet (Hacohen et al. 2022, TPC_RP).

    Candidates and labelled examples are clustered together, on embeddings of length 1, into k + labelled clusters.
    Clusters with the fewest labels come first, and among them the largest. Typicality is the inverse of the mean
    distance to the nearest neighbours within the cluster. Where clusters run out it goes round again, and takes from
    clusters under ``min_size`` only when the others are empty. In clusters of more than 5,000 a random 5,000 stand for
    all; of more than 65,536 candidates a random so many find the centres.

    max_clusters: at most so many. neighbours: how many make up typicality. min_size: the fewest candidates of a cluster
    that counts.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({"frozen_embedding"})
    needs_labelled: ClassVar[frozenset[Signal]] = frozenset({"frozen_embedding"})
    tasks: ClassVar[frozenset[Task]] = frozenset({"classification", "regression"})
    max_clusters: int = Field(default=500, ge=1)
    neighbours: int = Field(default=20, ge=1)
    min_size: int = Field(default=5, ge=1)

    def select(self, view: View, k: int, *, rng: np.random.Generator) -> Selection:
        check_k(view, k)
        x = np.asarray(view.signals["frozen_embedding"])
        known = np.asarray(view.labelled["frozen_embedding"]) if view.n_labelled else None
        clusters = min(k + view.n_labelled, self.max_clusters)
        labels, of_known, _ = partition(x, clusters, rng, normalize, known)
        covered = np.bincount(of_known, minlength=clusters)
        groups = members_of(labels, clusters)
        order = sorted(range(clusters), key=lambda c: (covered[c], -len(groups[c])))
        big = [groups[c] for c in order if len(groups[c]) >= self.min_size]
        small = [groups[c] for c in order if 0 < len(groups[c]) < self.min_size]
        picks = chain.from_iterable(
            in_turn(typical_first(x, members, self.neighbours, rng) for members in tier) for tier in (big, small)
        )
        return unscored(np.fromiter(islice(picks, k), np.int64))

"""What a training looks at: the labels as they stand, the items that they leave, and which of them are worth a look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from modicum.annotate.model.queue import audit_items
from modicum.annotate.store.project import ProjectStore
from modicum.annotate.store.records import Settings
from modicum.base.errors import ModicumError
from modicum.base.rng import stream
from modicum.strategies import STRATEGIES
from modicum.strategies.base import Strategy, View
from modicum.study.gang import STOP_SAMPLE
from modicum.study.prepare import make_strategy

LARGE = 10_000
"""Beyond this many items a model looks at a random so many of those without a label, as ``subsample:`` does."""
COLD = 4_000
"""Items among which a cold start chooses."""
CHECKED = 5_000
"""Labelled items that a model is asked about, to find labels that it doubts."""
FIRST = 50
"""Items that a cold start names, or two trainings' worth."""
HEAD = 500
"""Items that a rank names, or ten trainings' worth."""
UNKNOWN = -1
TRIES = 10
"""How often labels are read anew where others came in meanwhile, so that ``seq`` says exactly what was seen."""


@dataclass(frozen=True)
class Known:
    """What the database says now.

    labels: (n,) int64 classes, -1 where there is none. touched: (n,) bool, answered by anyone, if only skipped.
    sought: (n,) bool, labelled when a strategy had chosen it by what a model said.
    audit: the audit items in their random order. seq: the last event that is in this.
    """

    settings: Settings
    labels: np.ndarray
    touched: np.ndarray
    sought: np.ndarray
    audit: np.ndarray
    seq: int

    @cached_property
    def trainable(self) -> np.ndarray:
        """Labelled items that are not for measuring, in order."""
        return self._but_audit(self.labels >= 0)

    @cached_property
    def free(self) -> np.ndarray:
        """Items that may be asked for, in order."""
        return self._but_audit(~self.touched)

    def _but_audit(self, mask: np.ndarray) -> np.ndarray:
        mask[self.audit] = False
        return np.flatnonzero(mask)

    @cached_property
    def measured(self) -> np.ndarray:
        """Labelled audit items up to the first that nobody has touched: a random sample, whatever else was labelled
        by search or selection."""
        gaps = np.flatnonzero(~self.touched[self.audit])
        reached = self.audit[: gaps[0]] if len(gaps) else self.audit
        return np.asarray(reached[self.labels[reached] >= 0])


def read_known(store: ProjectStore) -> Known:
    """Labels as they stand: decided, agreed or by a majority; ties and skips have none."""
    n = store.count()
    for _ in range(TRIES):
        seq, settings = store.last_seq(), store.settings
        labels, touched, sought = np.full(n, UNKNOWN, np.int64), np.zeros(n, bool), np.zeros(n, bool)
        for item, label, _how in store.resolved():
            touched[item] = True
            labels[item] = UNKNOWN if label is None else label
        for item, strategy in store.ranked():
            sought[item] |= _asks_model(strategy)
        if store.last_seq() == seq:
            break
    return Known(settings, labels, touched, sought, audit_items(n, settings.audit, settings.seed), seq)


@cache
def _asks_model(label: str) -> bool:
    """Whether the strategy that an answer names so chooses by what a model says; not one that is not known here."""
    try:
        return bool(STRATEGIES.create(label.partition("(")[0]).asks_model)
    except ModicumError:
        return False


@dataclass(frozen=True)
class Plan:
    """What a round looks at; all rows of items are sorted.

    candidates: among which the strategy chooses ``size``. sample: on which models are compared with one another.
    looked: items that get a prediction. texts: all whose texts are needed.
    """

    round: int
    strategy: Strategy
    candidates: np.ndarray
    size: int
    sample: np.ndarray
    looked: np.ndarray
    texts: np.ndarray


def make_plan(known: Known, round_: int) -> Plan:
    """Decide what to look at: all of a pool, or of a large one a random part."""
    settings, seed, free, trainable = known.settings, known.settings.seed, known.free, known.trainable
    chosen = settings.strategy
    strategy = make_strategy(chosen, "classification")
    size = min(len(free), max(HEAD, 10 * settings.retrain_every))
    if not strategy.needs and size:  # nothing to know of candidates: those that are chosen are all to look at
        picked = strategy.select(View(len(free)), size, rng=stream(seed, "random", round_)).positions
        candidates = np.sort(free[picked])
    else:
        if len(free) > LARGE and not chosen.name.startswith("subsample:"):
            most = max(size, LARGE // max(1, strategy.mc_passes))
            strategy = STRATEGIES.create(f"subsample:{chosen.name}", size=most, **chosen.options)
        kept = strategy.narrow(len(free), len(trainable), size, rng=stream(seed, "narrow", round_)) if size else None
        candidates = free if kept is None else np.sort(free[kept])
    sample = drawn(np.arange(len(known.labels)), STOP_SAMPLE, stream(0, "stop-sample"))
    checked = drawn(trainable, CHECKED, stream(seed, "checked", round_))
    looked = np.unique(np.concatenate([candidates, sample, checked, known.audit]))
    return Plan(round_, strategy, candidates, size, sample, looked, np.union1d(looked, trainable))


def too_few(labels: np.ndarray, classes: Sequence[str]) -> str | None:
    """Why no model can be trained on these labels; None where one can."""
    found = np.unique(labels)
    if len(found) >= 2:
        return None
    so_far = f"so far all {len(labels)} are {classes[found[0]]!r}" if len(found) else "there is none so far"
    return f"training needs labels of two classes beside the audit items, and {so_far}"


def drawn(items: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most so many of the items, at random, in rising order."""
    return items if len(items) <= most else np.sort(rng.choice(items, most, replace=False))

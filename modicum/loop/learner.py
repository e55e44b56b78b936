"""The learner decides and does nothing else: no torch, no files, no clocks.

It says what to score, what to ask and what to train; whoever drives it (a study, a labelling page, a script) does
that and reports back. Every decision is an event, and replaying the events gives the same learner again.

    plan -> see -> ask -> tell -> job -> accept -> plan ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from modicum.base.errors import StateError
from modicum.base.events import Asked, Event, Stopped, Told, Trained
from modicum.base.rng import stream
from modicum.base.spec import Record
from modicum.base.training import FitJob, many_sought
from modicum.base.types import ExampleId, Label, Signal
from modicum.data.pool import Pool
from modicum.loop.stopping import Stopping
from modicum.strategies.base import Strategy, View


class Pace(Record):
    """How many labels are asked for: ``warm_start`` before the first model, then ``batch`` a round.

    schedule: how many labels there are to be in all, round by round, in place of the two.
    """

    warm_start: int = Field(default=100, ge=2)
    batch: int = Field(default=50, ge=1)
    schedule: tuple[int, ...] = ()

    def step(self, labels: int, first: bool) -> int:
        """How many labels to ask for where there are so many."""
        if self.schedule:
            return next((n for n in self.schedule if n > labels), labels) - labels
        return self.warm_start if first else self.batch


@dataclass(frozen=True)
class Wanted:
    """What the next query needs to know: these signals of these candidates, and of the labelled examples."""

    round: int
    candidates: tuple[ExampleId, ...]
    labelled: tuple[ExampleId, ...]
    needs: frozenset[Signal]
    needs_labelled: frozenset[Signal]
    mc_passes: int


@dataclass(frozen=True)
class Query:
    """Examples waiting for an answer."""

    round: int
    ids: tuple[ExampleId, ...]


class Learner:
    """One active-learning trial.

    strategy picks every batch but the first, which ``warm`` picks: the same seed and ``warm`` give the same first
    labels whatever the strategy and method, so that trials are paired.
    """

    def __init__(
        self,
        ids: Sequence[ExampleId],
        strategy: Strategy,
        *,
        warm: Strategy,
        pace: Pace,
        stopping: Stopping,
        seed: int,
        name: str = "",
    ) -> None:
        self.strategy, self.warm, self.pace, self.stopping, self.seed, self.name = (
            strategy,
            warm,
            pace,
            stopping,
            seed,
            name,
        )
        self.pool = Pool.of(ids)
        self.round = 0
        self.records: list[dict[str, Any]] = []
        self.stopped: str | None = None
        self.log: list[Event] = []
        self._wanted: Wanted | None = None
        self._view: View | None = None
        self._chosen: tuple[ExampleId, ...] | None = None
        self._sought: set[ExampleId] = set()

    @classmethod
    def replay(cls, ids: Sequence[ExampleId], strategy: Strategy, events: Iterable[Event], **settings: Any) -> Learner:
        """The learner as it was after these events."""
        learner = cls(ids, strategy, **settings)
        for event in events:
            learner._apply(event)
        return learner

    # ---- what to do next -----------------------------------------------------------------------------------------

    @property
    def acting(self) -> Strategy:
        """The strategy of the query to come: the warm start's until there is a model."""
        return self.strategy if self.records else self.warm

    @property
    def open(self) -> tuple[ExampleId, ...]:
        """Examples that were asked for and not yet answered."""
        return tuple(self.pool.asked)

    def size(self) -> int:
        """How many labels the next query asks for, within the budget and the pool."""
        step = self.pace.step(len(self.pool.labelled), not self.records)
        return max(0, min(step, self.stopping.budget - len(self.pool.labelled), len(self.pool.free())))

    def plan(self, k: int | None = None) -> Wanted:
        """What must be known before ``ask``: stays the same until the next answer, or a k that it does not suffice for.

        Raises:
            StateError: a query is open.
        """
        if self.pool.asked:
            raise StateError(
                f"a query of {len(self.pool.asked)} examples is open: tell its answers before planning the next"
            )
        if self._wanted is None or (k or 0) > len(self._wanted.candidates):
            self._view = self._chosen = None
            free = self.pool.free()
            strategy = self.acting
            rng = stream(self.seed, "narrow", self.round)
            kept = strategy.narrow(len(free), len(self.pool.labelled), min(k or self.size(), len(free)), rng=rng)
            self._wanted = Wanted(
                round=self.round,
                candidates=free if kept is None else tuple(free[i] for i in kept.tolist()),
                labelled=tuple(self.pool.labelled) if strategy.needs_labelled else (),
                needs=strategy.needs,
                needs_labelled=strategy.needs_labelled,
                mc_passes=strategy.mc_passes,
            )
        return self._wanted

    def see(self, signals: Mapping[Signal, Any], labelled: Mapping[Signal, Any]) -> None:
        """Hand in the signals that ``plan`` asked for, row i being candidate i."""
        wanted = self.plan()
        missing = (wanted.needs - signals.keys()) | (wanted.needs_labelled - labelled.keys())
        if missing:
            who = type(self.acting).__name__  # its own: the first query is the warm start's
            raise StateError(f"strategy {who} needs {', '.join(sorted(missing))}, which were not handed in")
        self._chosen = None
        self._view = View(len(wanted.candidates), dict(signals), dict(labelled), len(self.pool.labelled))

    def ask(self, k: int | None = None, cost: Mapping[str, float] | None = None) -> Query:
        """Open a query of k examples (default: the pace's); while one is open, the same one again.

        Raises:
            StateError: the loop has stopped, or the signals were not handed in.
        """
        if self.pool.asked:
            return Query(self.round, self.open)
        if self.stopped:
            raise StateError(f"this loop has stopped: {self.stopped}")
        k = self.size() if k is None else k
        if not k:
            raise StateError("there is nothing left to ask for: train on job() and accept() its record to end the loop")
        ids = self.choose(k)
        self._record(
            Asked(
                round=self.round, ids=ids, strategy=self.name if self.records else "warm start", cost=dict(cost or {})
            )
        )
        return Query(self.round, ids)

    def choose(self, k: int) -> tuple[ExampleId, ...]:
        """The k candidates that would be asked for; opens nothing. ``ask`` for as many opens these."""
        wanted = self.plan(k)
        if self._chosen is not None and len(self._chosen) == k:
            return self._chosen
        if self._view is None:
            if wanted.needs or wanted.needs_labelled:
                raise StateError("this strategy needs signals: compute what plan() names and hand it to see() first")
            self._view = View(len(wanted.candidates), n_labelled=len(self.pool.labelled))
        purpose = "select" if self.records else "warm"
        picked = self.acting.select(self._view, k, rng=stream(self.seed, purpose, self.round))
        self._chosen = tuple(wanted.candidates[i] for i in picked.positions.tolist())
        return self._chosen

    # ---- what happened -------------------------------------------------------------------------------------------

    def tell(self, answers: Mapping[ExampleId, Label | None]) -> None:
        """Take answers to the open query, some or all; None skips an example. An earlier answer is corrected."""
        plain = {i: label.item() if isinstance(label, np.generic) else label for i, label in answers.items()}
        self._record(Told(answers=plain))

    def job(self) -> FitJob:
        """What to train now: a new model on all labels.

        Raises:
            StateError: there is no label.
        """
        labelled = self.pool.labelled
        if not labelled:
            raise StateError("there is nothing to train on: ask and tell at least one label first")
        sought = many_sought(len(self._sought & labelled.keys()), len(labelled))
        return FitJob(tuple(labelled), np.array(list(labelled.values())), self.seed, self.round, sought=sought)

    def accept(self, record: Mapping[str, Any]) -> None:
        """A model was trained on ``job()``: its metrics and costs. May end the loop (see ``stopped``)."""
        labels = len(self.pool.labelled)
        self._record(Trained(round=self.round, labels=labels, record=dict(record)))
        reason = self.stopping.reason(labels, self.records)
        if reason is None and not self.pool.n_free and not self.pool.asked:
            reason = "the pool is empty"
        if reason is not None:
            self._record(Stopped(reason=reason))

    def take_log(self) -> list[Event]:
        """The events since this was last called, for a store to keep."""
        events, self.log = self.log, []
        return events

    def _record(self, event: Event) -> None:
        self._apply(event)
        self.log.append(event)

    def _apply(self, event: Event) -> None:
        if isinstance(event, Asked):
            self.pool = self.pool.ask(event.ids)
            if event.strategy == self.name and self.acting.asks_model:
                self._sought.update(event.ids)
        elif isinstance(event, Told):
            answers = dict(sorted(event.answers.items()))  # by id: a log in JSON keeps no order of its own
            earlier = {i: a for i, a in answers.items() if self.pool.state_of(i) in ("labelled", "skipped")}
            pool = self.pool.tell({i: a for i, a in answers.items() if i not in earlier})
            for i, answer in earlier.items():
                pool = pool.relabel(i, answer)
            self.pool = pool
        elif isinstance(event, Trained):
            self.records.append(dict(event.record))
            self.round = event.round + 1
        else:
            self.stopped = event.reason
        self._wanted = self._view = self._chosen = None

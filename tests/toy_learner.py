"""Learners over toy candidates, and how to drive them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modicum.base.events import Event
from modicum.base.types import ExampleId, Signal
from modicum.loop.learner import Learner, Pace, Wanted
from modicum.loop.stopping import Stopping
from modicum.strategies import STRATEGIES
from modicum.strategies.base import Strategy
from modicum.testing.strategies import toy_signals

N = 60
IDS = [f"x{i}" for i in range(N)]
SIGNALS = toy_signals(N, passes=10)
NAMES = [name for name in STRATEGIES.names() if not name.endswith(":")] + ["subsample:entropy", "subsample:coreset"]


def create(name: str, **options: Any) -> Strategy:
    strategy: Strategy = STRATEGIES.create(name, **options)
    return strategy


def make(
    name: str = "random",
    *,
    ids: Sequence[ExampleId] = IDS,
    warm: str = "random",
    warm_start: int = 10,
    batch: int = 5,
    seed: int = 0,
    events: Sequence[Event] | None = None,
    options: Mapping[str, Any] | None = None,
    **stopping: Any,
) -> Learner:
    settings: dict[str, Any] = {
        "warm": create(warm),
        "pace": Pace(warm_start=warm_start, batch=batch),
        "stopping": Stopping(**{"budget": 30, **stopping}),
        "seed": seed,
        "name": name,
    }
    strategy = create(name, **(options or {}))
    if events is not None:
        return Learner.replay(ids, strategy, events, **settings)
    return Learner(ids, strategy, **settings)


def known(ids: Sequence[ExampleId], needs: frozenset[Signal], passes: int) -> dict[Signal, Any]:
    """Rows of the toy signals, by id."""
    at = [int(i[1:]) for i in ids]
    found: dict[Signal, Any] = {}
    for name in needs:
        value = SIGNALS[name]
        if name == "mc_proba":
            found[name] = value[:passes, at]
        else:
            found[name] = tuple(part[at] for part in value) if isinstance(value, tuple) else value[at]
    return found


def show(learner: Learner) -> Wanted:
    """Hand in what the learner wants to see."""
    wanted = learner.plan()
    learner.see(
        known(wanted.candidates, wanted.needs, wanted.mc_passes),
        known(wanted.labelled, wanted.needs_labelled, wanted.mc_passes),
    )
    return wanted


def turn(learner: Learner, **record: Any) -> tuple[ExampleId, ...]:
    """A whole round: the ids that it asked for."""
    show(learner)
    query = learner.ask()
    learner.tell({i: int(i[1:]) % 3 for i in query.ids})
    learner.job()
    learner.accept(record)
    return query.ids


def warmed(name: str = "entropy", **options: Any) -> Learner:
    """A learner after its first round."""
    learner = make(name, **options)
    turn(learner)
    return learner


def state(learner: Learner) -> dict[str, Any]:
    """Everything about a learner that can be seen, without asking anything of it."""
    pool = learner.pool
    found: dict[str, Any] = {
        "pool": (pool.free(), pool.asked, tuple(pool.labelled.items()), pool.skipped),
        "round": learner.round,
        "records": list(learner.records),
        "stopped": learner.stopped,
        "size": learner.size(),
        "acting": learner.acting,
        "open": learner.open,
    }
    if pool.labelled:
        job = learner.job()
        found["job"] = (job.ids, job.targets.tolist(), job.seed, job.round)
    return found

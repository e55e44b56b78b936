"""What a learner does next follows from its seed and its log alone: trials are paired, and can be resumed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from toy_learner import NAMES, N, make, show, state, turn, warmed

from modicum.base.errors import StateError
from modicum.base.events import Stopped, parse_event
from modicum.base.rng import stream
from modicum.base.types import ExampleId
from modicum.loop.learner import Learner, Wanted


@pytest.mark.parametrize("warm", ["random", "kmeans", "typiclust", "subsample:kmeans"])
def test_the_first_query_depends_on_seed_and_warm_start_alone(warm: str) -> None:
    def first(name: str, seed: int) -> tuple[ExampleId, ...]:
        learner = make(name, warm=warm, seed=seed)
        show(learner)
        return learner.ask().ids

    paired = {first(name, seed=3) for name in NAMES}
    assert len(paired) == 1
    assert first("random", seed=4) not in paired


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_rounds(name: str) -> None:
    runs = [make(name, seed=seed) for seed in (0, 0, 1)]
    rounds = [[turn(learner) for _ in range(3)] for learner in runs]
    assert rounds[0] == rounds[1] != rounds[2]


def test_a_subsample_is_all_that_is_looked_at() -> None:
    learner = warmed("subsample:entropy", options={"size": 12})
    drawn = []
    for _ in range(2):
        wanted = show(learner)
        free = learner.pool.free()
        assert len(wanted.candidates) == 12 and set(wanted.candidates) <= set(free)
        assert list(wanted.candidates) == sorted(wanted.candidates, key=free.index)
        drawn.append(set(wanted.candidates))
        assert set(turn(learner)) <= drawn[-1]
    assert drawn[0] != drawn[1]


def test_a_larger_query_than_planned_is_planned_anew() -> None:
    learner = warmed("subsample:entropy", options={"size": 3})
    assert len(show(learner).candidates) == 5 and len(learner.choose(4)) == 4
    with pytest.raises(StateError, match="this strategy needs signals"):
        learner.ask(9)
    assert len(show(learner).candidates) == 9 and len(learner.ask(9).ids) == 9


def test_a_subsample_holds_at_least_the_query() -> None:
    learner = warmed("subsample:entropy", options={"size": 3}, batch=8)
    assert len(learner.plan().candidates) == 8
    assert sorted(turn(learner)) == sorted(learner.job().ids[-8:])


def decision(learner: Learner) -> tuple[Wanted, tuple[ExampleId, ...]] | None:
    """What it would ask next, if it may ask at all."""
    if learner.open or learner.stopped or not learner.size():
        return None
    wanted = show(learner)
    return wanted, learner.choose(learner.size())


def wander(learner: Learner, rng: np.random.Generator, steps: int) -> dict[int, tuple[dict[str, Any], Any]]:
    """Drive a learner as erratically as people do; what it was and would do, by the length of its log."""
    seen = {0: (state(learner), decision(learner))}
    for _ in range(steps):
        labelled = list(learner.pool.labelled)
        if labelled and rng.random() < 0.2:
            again = [*labelled, *learner.pool.skipped][:: int(rng.integers(2, 9))]
            learner.tell({i: int(rng.integers(3)) if rng.random() < 0.7 else None for i in again})
        elif learner.open:
            some = [i for i in learner.open if rng.random() < 0.6]
            learner.tell({i: None if rng.random() < 0.2 else int(rng.integers(3)) for i in some})
        elif labelled and rng.random() < 0.6:
            learner.accept({"macro_f1": float(rng.random()), "kappa": float(rng.random()), "seconds": 0.5})
        elif decision(learner):
            learner.ask(cost={"score_seconds": 0.1})
        seen[len(learner.log)] = (state(learner), decision(learner))
    return seen


@pytest.mark.parametrize("name", ["random", "badge", "coreset", "dal", "subsample:entropy"])
@pytest.mark.parametrize("seed", range(3))
def test_replaying_any_part_of_the_log_gives_the_learner_of_that_moment(name: str, seed: int) -> None:
    options = {"size": 20} if name.startswith("subsample") else {}
    settings: dict[str, Any] = {"seed": seed, "options": options, "budget": 40, "warm": "kmeans"}
    learner = make(name, **settings)
    seen = wander(learner, stream(seed, "wander", name), steps=40)
    log = [parse_event(json.loads(event.canonical())) for event in learner.log]
    assert log == learner.log and len({event.kind for event in log}) >= 3
    for length, (then, next_) in seen.items():
        again = make(name, events=log[:length], **settings)
        assert state(again) == then
        assert decision(again) == next_
        assert again.log == []


def test_a_replayed_learner_goes_on_as_the_first_would_have() -> None:
    first = make("badge", budget=40)
    for _ in range(2):
        turn(first)
    again = make("badge", budget=40, events=first.take_log())
    while not first.stopped:
        turn(first)
    while not again.stopped:
        turn(again)
    assert state(again) == state(first)
    assert again.take_log() == first.take_log()


def test_a_log_that_was_cut_between_training_and_stopping_can_be_finished() -> None:
    first = make(warm_start=10, budget=10)
    turn(first)
    log = first.take_log()
    assert isinstance(log[-1], Stopped)
    again = make(warm_start=10, budget=10, events=log[:-1])
    assert again.stopped is None and again.size() == 0
    with pytest.raises(StateError, match="nothing left to ask for"):
        again.ask()


def test_replaying_a_log_of_other_data_is_refused() -> None:
    first = make()
    turn(first)
    with pytest.raises(StateError, match="the pool has no example 'x"):
        make(ids=[f"y{i}" for i in range(N)], events=first.log)

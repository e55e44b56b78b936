"""Trials that advance together: one bank trains their models, one transaction keeps each of their rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modicum.analysis.cka import linear_cka, rbf_cka
from modicum.analysis.dynamics import forgetting
from modicum.analysis.metrics import evaluate, kappa
from modicum.base.events import Asked
from modicum.base.files import atomic_write
from modicum.base.rng import stream
from modicum.base.types import ExampleId, Signal
from modicum.engine.engine import Engine
from modicum.engine.fit import Fitted
from modicum.engine.memory import forget_peak, peak_memory_mb
from modicum.loop.learner import Learner, Wanted
from modicum.loop.oracle import GoldOracle, NoisyOracle, Oracle
from modicum.strategies import make_warm
from modicum.study.prepare import Prepared, make_strategy
from modicum.study.spec import Trial
from modicum.study.store import Store

FORGETTING = ("unforgettable", "forgettable", "often_forgotten", "never_learned")
STOP_SAMPLE = 500
"""Examples on which the change of predictions between rounds is measured."""
Progress = Callable[[Trial, Mapping[str, Any]], None]
"""Called after each durable round of each trial, with its record."""


@dataclass
class Member:
    """One trial of a gang at work. previous: its last predictions on the stop sample. spent: the last query's cost."""

    key: str
    trial: Trial
    learner: Learner
    oracle: Oracle
    previous: np.ndarray | None = None
    spent: dict[str, float] = field(default_factory=dict)


class Gang:
    """Runs trials that share data, backbone, method and training until all of them have stopped.

    arrays: the folder that keeps training dynamics; None keeps none. compared: on how many test texts every layer is
    compared with the pretrained model's.
    """

    def __init__(
        self,
        store: Store,
        keys: Sequence[str],
        prepared: Prepared,
        engine: Engine,
        on_round: Progress,
        arrays: Path | None = None,
        compared: int = 0,
    ) -> None:
        self.store, self.prepared, self.engine, self.on_round = store, prepared, engine, on_round
        self.arrays = arrays
        self.members = [self._member(key) for key in keys]
        self._truth = prepared.test.dataset.labels
        n = len(prepared.test)
        self._compared = np.sort(stream(0, "layer-similarity").choice(n, min(compared, n), replace=False))
        self._pretrained: np.ndarray | None = None

    def _member(self, key: str) -> Member:
        trial = Trial.model_validate_json(self.store.spec(key))
        train = self.prepared.train
        gold = dict(zip(train.ids, train.labels.tolist(), strict=True))
        loop = trial.loop
        oracle: Oracle = (
            NoisyOracle(gold, len(train.classes), loop.noise, trial.seed) if loop.noise else GoldOracle(gold)
        )
        events = self.store.events(key)
        learner = Learner.replay(
            train.ids,
            make_strategy(trial.strategy, train.task),
            events,
            warm=make_warm(loop.warm_strategy, train.task),
            pace=loop.pace(len(train)),
            stopping=loop.stopping(len(train)),
            seed=trial.seed,
            name=trial.strategy.name,
        )
        spent = next((event.cost for event in reversed(events) if isinstance(event, Asked)), {})
        return Member(key, trial, learner, oracle, spent=spent)

    def run(self) -> None:
        """Advance round by round; every round of all members is durable before the next begins."""
        forget_peak(self.engine.backbone.device)
        fresh = [m for m in self.members if not m.learner.stopped and not m.learner.open]
        self._ask(fresh, {})
        self._commit(fresh)
        while active := [m for m in self.members if not m.learner.stopped]:
            self._round(active)

    def _round(self, active: list[Member]) -> None:
        for member in active:
            member.learner.tell(member.oracle.answer(member.learner.open))
        fitted = self.engine.fit([m.learner.job() for m in active])
        if self.arrays is not None:
            for member, model in zip(active, fitted, strict=True):
                self._keep_dynamics(self.arrays / member.key, member.learner.round, model)
        self._accept(active, fitted)
        going = [m for m in active if not m.learner.stopped]
        models = {m.key: f for m, f in zip(active, fitted, strict=True)}
        self._ask(going, models)
        self._commit(active)
        for member in active:
            self.on_round(member.trial, member.learner.records[-1] | {"labels": len(member.learner.pool.labelled)})

    def _commit(self, members: list[Member]) -> None:
        self.store.append({m.key: m.learner.take_log() for m in members})

    # ---- training ------------------------------------------------------------------------------------------------

    @staticmethod
    def _keep_dynamics(folder: Path, round_: int, model: Fitted) -> None:
        for name in ("correct", "confidence"):
            with atomic_write(folder / f"{round_}-{name}.npy", "wb") as file:
                np.save(file, getattr(model.dynamics, name), allow_pickle=False)

    def _accept(self, members: list[Member], fitted: list[Fitted]) -> None:
        tested: dict[int, dict[str, Any]] = {}
        for member, model in zip(members, fitted, strict=True):
            if id(model) not in tested:
                start = time.perf_counter()
                scorer = self.engine.scorer(model.weights, self.prepared.test)
                outputs = scorer.outputs(np.arange(len(self.prepared.test)))
                tested[id(model)] = evaluate(self.engine.task, self._truth, outputs) | {
                    "test_seconds": time.perf_counter() - start
                }
                tested[id(model)] |= self._looked_at(model)
            record: dict[str, Any] = dict(tested[id(model)])
            record |= {
                "parameters": model.parameters,
                "steps": model.steps,
                "train_loss": model.loss,
                "fit_seconds": model.seconds,
            }
            record["peak_memory_mb"] = peak_memory_mb(self.engine.backbone.device)
            record["seconds"] = model.seconds + sum(member.spent.values())
            if member.trial.loop.plateau is not None:
                record |= self._change(member, model)
            member.learner.accept(record)

    def _looked_at(self, model: Fitted) -> dict[str, Any]:
        """What else is noted of a model: what it forgot, and how far its layers are from the pretrained ones."""
        found: dict[str, Any] = {}
        if self.engine.task == "classification":
            events = forgetting(model.dynamics.correct, model.dynamics.confidence)
            found |= {name: getattr(events, name) for name in FORGETTING}
        if model.kept is not None:
            found["kept_epoch"] = model.kept
        if model.recipe:
            found["chosen"] = model.recipe
        if model.temperature is not None:
            found["temperature"] = model.temperature
        if self.engine.training.drop_forgotten is not None:
            found["dropped"] = model.dropped
        if len(self._compared):
            if self._pretrained is None:
                self._pretrained = self.engine.layers(None, self._compared, self.prepared.test)
            tuned = self.engine.layers(model.weights, self._compared, self.prepared.test)
            pairs = list(zip(tuned, self._pretrained, strict=True))
            for name, similarity in (("cka", linear_cka), ("cka_rbf", rbf_cka)):
                found[name] = [round(similarity(a, b), 6) for a, b in pairs]
        return found

    def _change(self, member: Member, model: Fitted) -> dict[str, float]:
        """Cohen's kappa between this round's and the last round's predictions on the stop sample."""
        n = len(self.prepared.pool)
        sample = np.sort(stream(0, "stop-sample").choice(n, size=min(STOP_SAMPLE, n), replace=False))
        predicted = self.engine.scorer(model.weights).outputs(sample).argmax(1)
        previous = member.previous if member.previous is not None else self._remembered(member)
        member.previous = predicted
        found: dict[str, Any] = {"stop_predictions": predicted.tolist()}
        return found if previous is None else found | {"kappa": kappa(previous, predicted)}

    @staticmethod
    def _remembered(member: Member) -> np.ndarray | None:
        records = member.learner.records
        return np.array(records[-1]["stop_predictions"]) if records else None

    # ---- asking --------------------------------------------------------------------------------------------------

    def _ask(self, members: list[Member], models: Mapping[str, Fitted]) -> None:
        """Open each member's next query; members with the same model and candidates share one scoring pass."""
        groups: dict[tuple[int, int, int], list[tuple[Member, Wanted]]] = {}
        for member in members:
            wanted = member.learner.plan()
            same = (id(models.get(member.key)), hash((wanted.candidates, wanted.labelled)), wanted.mc_passes)
            groups.setdefault(same, []).append((member, wanted))
        for group in groups.values():
            for needs in dict.fromkeys((wanted.needs, wanted.needs_labelled) for _, wanted in group):
                alike = [(m, w) for m, w in group if (w.needs, w.needs_labelled) == needs]
                self._ask_alike(alike, models.get(alike[0][0].key))

    def _ask_alike(self, group: list[tuple[Member, Wanted]], model: Fitted | None) -> None:
        member, wanted = group[0]
        start = time.perf_counter()
        candidates = self._signals(member, model, wanted.candidates, wanted.needs, wanted)
        labelled = self._signals(member, model, wanted.labelled, wanted.needs_labelled, wanted)
        scoring = time.perf_counter() - start if wanted.needs or wanted.needs_labelled else 0.0
        for other, _ in group:
            start = time.perf_counter()
            other.learner.see(candidates, labelled)
            picked = other.learner.choose(other.learner.size())
            other.spent = {"score_seconds": scoring, "select_seconds": time.perf_counter() - start}
            other.learner.ask(len(picked), cost=other.spent)

    def _signals(
        self, member: Member, model: Fitted | None, ids: tuple[ExampleId, ...], needs: frozenset[Signal], wanted: Wanted
    ) -> Mapping[Signal, Any]:
        if not needs:
            return {}
        return self.engine.signals(
            model.weights if model else None,
            self.engine.positions(ids),
            needs,
            mc_passes=wanted.mc_passes,
            seed=member.trial.seed,
            round_=wanted.round,
        )

"""Trains and scores: jobs in, trained runs and signals out. Decides nothing about labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modicum.analysis.besov import besov_index
from modicum.analysis.dynamics import forgetting_events
from modicum.analysis.metrics import MAIN_METRIC, evaluate
from modicum.base.errors import SpecError
from modicum.base.rng import stream
from modicum.base.training import FitJob, Training, distinct
from modicum.base.types import BEFORE_TRAINING, ExampleId, Signal, Task
from modicum.engine import heads
from modicum.engine.backbone import Backbone
from modicum.engine.bank import Bank, Weights
from modicum.engine.cache import Corpus
from modicum.engine.calibration import calibrated
from modicum.engine.fit import Dynamics, Fitted, Judge, Run, Trainer
from modicum.engine.folds import out_of_fold, part
from modicum.engine.objectives import objective_of
from modicum.engine.score import Scorer, layers_of
from modicum.engine.self_training import pseudo_labels
from modicum.methods.base import Method

STEP_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Tokens a training step that a bank aims at: more runs side by side cost memory and gain nothing."""
MAX_RUNS = {"cpu": 8, "cuda": 64}


class Engine:
    """One method on one data set.

    corpus: the texts that jobs name by id. outputs: number of classes, or 1 for regression. classes: their names, for
    the signal that goes by these; the corpus's own unless set. start: an adapter's tensors
    for runs to begin from, in place of new ones. test: held-out texts with their labels; training looks at them where
    it is told to stop by the oracle, and never else.
    """

    def __init__(
        self,
        backbone: Backbone,
        corpus: Corpus,
        method: Method,
        training: Training,
        task: Task,
        outputs: int,
        *,
        start: Mapping[str, Tensor] | None = None,
        test: Corpus | None = None,
    ) -> None:
        self.backbone, self.corpus, self.method = backbone, corpus, method
        self.training, self.task, self.outputs = training, task, outputs
        self.start, self.test, self.classes = start, test, corpus.dataset.classes
        self.objective = objective_of(training, task)

    @property
    def runs_per_bank(self) -> int:
        """How many runs train side by side: a function of the machine's kind and the texts alone."""
        if not (self.method.stackable and self.backbone.stackable) or self.training.seconds is not None:
            return 1  # seconds are each run's own
        lengths = self.corpus.tokens.lengths
        kind = self.backbone.device.type
        step = self.training.batch_size * max(1.0, float(lengths.mean()) if len(lengths) else 1.0)
        return int(np.clip(STEP_TOKENS[kind] // step, 1, MAX_RUNS[kind]))

    def fit(self, jobs: Sequence[FitJob], on_fit: Callable[[int], None] | None = None) -> list[Fitted]:
        """Train all jobs, equal ones once, in banks of ``runs_per_bank``; results in the order of the jobs.

        on_fit: called with the number of runs done after each bank.
        """
        if not jobs:
            return []
        check_task(self.training, self.task)
        different, which = distinct(jobs)
        done = self._in_banks(different, on_fit)
        if self.training.calibrate:
            done = self._calibrated(different, done)
        return [done[i] for i in which]

    def _in_banks(self, jobs: Sequence[FitJob], on_fit: Callable[[int], None] | None = None) -> list[Fitted]:
        done: list[Fitted] = []
        banks = -(-len(jobs) // self.runs_per_bank)
        for chosen in np.array_split(np.arange(len(jobs)), banks):  # even banks: no lone run at the end
            done.extend(self._fit_bank([jobs[i] for i in chosen]))
            if on_fit is not None:
                on_fit(len(chosen))
        return done

    def out_of_fold(
        self, jobs: Sequence[FitJob], folds: int, repeat: int = 0, thin: int = 1
    ) -> tuple[list[np.ndarray], list[float]]:
        """What models say of labels that they were not trained on, and seconds of training, by job: see ``folds``."""

        def outputs(weights: Weights, ids: Sequence[ExampleId]) -> np.ndarray:
            return self.scorer(weights).outputs(self.positions(ids))

        return out_of_fold(jobs, folds, self._in_banks, outputs, repeat, thin)

    def _calibrated(self, jobs: Sequence[FitJob], done: Sequence[Fitted]) -> list[Fitted]:
        """The same models with temperatures that suit what cross-validation says of their labels."""
        said, spent = self.out_of_fold(jobs, self.training.calibrate)
        return [
            replace(calibrated(fitted, proba, job.targets), seconds=fitted.seconds + seconds)
            for job, fitted, proba, seconds in zip(jobs, done, said, spent, strict=True)
        ]

    def _fit_bank(self, jobs: Sequence[FitJob]) -> list[Fitted]:
        fitted, often = self._train(jobs), self.training.drop_forgotten
        if often is not None:
            kept = [_remembered(first.dynamics, often) for first in fitted]
            jobs = [part(job, keep) for job, keep in zip(jobs, kept, strict=True)]
            again = [_after(*both) for both in zip(fitted, self._train(jobs), strict=True)]
            fitted = [replace(one, dropped=int((~keep).sum())) for one, keep in zip(again, kept, strict=True)]
        if self.training.self_training is not None:
            jobs = [self._with_own(job, teacher.weights) for job, teacher in zip(jobs, fitted, strict=True)]
            fitted = [_after(*both) for both in zip(fitted, self._train(jobs), strict=True)]
        return fitted

    def _with_own(self, job: FitJob, teacher: Weights) -> FitJob:
        """The job, with what its teacher says of unlabelled texts."""
        settings = self.training.self_training
        assert settings is not None
        rng = stream(job.seed, "self-training", job.round)
        unlabelled = np.setdiff1d(np.arange(len(self.corpus)), self.positions(job.ids + job.apart))
        shown = rng.permutation(unlabelled)[: settings.texts]
        if not len(shown):
            raise SpecError("self_training needs unlabelled texts beside the labelled ones, and there is none")
        proba = self.scorer(teacher).signals(shown, frozenset({"mc_proba"}), mc_passes=settings.passes, rng=rng)
        chosen, labels = pseudo_labels(proba["mc_proba"], round(settings.ratio * len(job.ids)))
        ids = tuple(self.corpus.dataset.ids[int(i)] for i in shown[chosen])
        weights = np.ones(len(job.ids)) if job.weights is None else job.weights
        return replace(
            job,
            ids=job.ids + ids,
            targets=np.concatenate([job.targets, labels]),
            weights=np.concatenate([weights, np.full(len(ids), settings.weight)]),
        )

    def _train(self, jobs: Sequence[FitJob]) -> list[Fitted]:
        parts = self.method.parts
        if not parts:
            return self._train_by(self.method, jobs)
        return [self._mean([self._train_by(part, [job])[0] for part in parts]) for job in jobs]

    def _mean(self, trained: Sequence[Fitted]) -> Fitted:
        """One model of the mean weights of several that began from the same encoder, with the cost of all."""
        merged = [self.backbone.merged(one.weights.method, one.weights.adapter) for one in trained]
        head = _mean_of([one.weights.head for one in trained])
        weights = Weights(self.method, self.outputs, self.method.holding(_mean_of(merged)), head)
        return replace(
            trained[-1],
            weights=weights,
            steps=sum(one.steps for one in trained),
            loss=float(np.mean([one.loss for one in trained])),
            seconds=sum(one.seconds for one in trained),
            parameters=weights.parameters,
            kept=None,
        )

    def _train_by(self, method: Method, jobs: Sequence[FitJob]) -> list[Fitted]:
        seeds = [(job.seed, job.round) for job in jobs]
        bank = Bank.fresh(self.backbone, method, self.outputs, seeds, self.training.prototypes)
        if self.objective.moves_encoder and bank.frozen:
            raise SpecError(
                f"objective {self.training.recipe!r} moves the encoder's representations, and this method leaves them "
                "as they are: choose cross-entropy, or another method"
            )
        if self.start is not None:
            bank.begin_from(self.start)
        runs = [Run(job, self.positions(job.ids), self.training, self.task, self.outputs) for job in jobs]
        for r, run in enumerate(runs):
            if (start := self._head_start(bank, r, run)) is not None:
                bank.head.begin(r, start)
        features = self.corpus.features() if bank.frozen else None
        lower = self.corpus.lower(bank.lowest) if bank.lowest and not bank.frozen else None
        judge = None if bank.frozen else self._judge()
        tokens, objective = self.corpus.tokens, self.objective
        if not bank.frozen:
            tokens = bank.narrow(tokens, np.concatenate([run.positions for run in runs]))
        return Trainer(bank, tokens, self.training, self.task, objective, features, lower, judge).fit(runs)

    def _head_start(self, bank: Bank, r: int, run: Run) -> heads.Start | None:
        """Where a run's head begins, by what its encoder makes of its texts before training."""
        kind = self.training.head_start
        if kind == "new":
            return None
        features = self.scorer(bank.row(r)).signals(run.positions, frozenset({"embedding"}))["embedding"]
        targets, weights = run.targets.numpy(), None if run.weights is None else run.weights.numpy()
        if kind == "probe":
            return heads.probe(features, targets, self.task, self.outputs, weights)
        rng = stream(run.job.seed, "prototypes", run.job.round)
        return heads.prototypes(features, targets, self.outputs, self.training.prototypes, rng)

    def _judge(self) -> Judge | None:
        """How good a run is at the end of an epoch, by the rule that may end it."""
        rules: dict[str, Judge] = {
            "loss-plateau": lambda run, _: -run.loss,
            "besov": lambda run, weights: self.smoothness(weights(), run.positions, run.targets.numpy(), run.job.seed),
            "oracle-test": self._on_test,
        }
        return rules.get(self.training.until)

    def _on_test(self, _: Run, weights: Callable[[], Weights]) -> float:
        if self.test is None:
            raise SpecError("until = 'oracle-test' needs a test set: choose fixed, loss-plateau or besov")
        outputs = self.scorer(weights(), self.test).outputs(np.arange(len(self.test)))
        return evaluate(self.task, self.test.dataset.labels, outputs)[MAIN_METRIC[self.task]]

    def layers(self, weights: Weights | None, positions: np.ndarray, corpus: Corpus | None = None) -> np.ndarray:
        """(layers + 1, n, width) what the embeddings and each layer make of the texts at (n,) positions of a corpus
        (default: the engine's own), by one trained run or by the untouched backbone."""
        model = self.backbone if weights is None else Bank.stack(self.backbone, [weights]).settle()
        return layers_of(model, (corpus or self.corpus).tokens, positions)

    def smoothness(self, weights: Weights, positions: np.ndarray, targets: np.ndarray, seed: int) -> float:
        """The mean Besov index of all layers' representations of these texts with respect to their (n,) targets."""
        every = self.layers(weights, positions)
        rng = stream(seed, "besov")
        found = np.array([besov_index(states, targets, rng=rng) for states in every[1:]])
        return float(found.mean())  # NaN, the worst, where there are too few examples or a single class

    def positions(self, ids: Sequence[ExampleId]) -> np.ndarray:
        """(n,) rows of the corpus that these ids name."""
        return self.corpus.dataset.ids.positions_of(ids)

    def scorer(self, weights: Weights, corpus: Corpus | None = None) -> Scorer:
        """Scores texts of a corpus (default: the engine's own) with one trained run."""
        bank = Bank.stack(self.backbone, [weights])
        corpus = corpus or self.corpus
        features = corpus.features() if bank.frozen else None
        lower = corpus.lower(bank.lowest) if bank.lowest and not bank.frozen else None
        return Scorer(bank, corpus.tokens, self.task, features, self.training.head_dropout, lower)

    def signals(
        self,
        weights: Weights | None,
        positions: np.ndarray,
        needs: frozenset[Signal],
        *,
        mc_passes: int = 0,
        seed: int = 0,
        round_: int = 0,
        on_batch: Callable[[int], None] | None = None,
    ) -> Mapping[Signal, Any]:
        """All signals asked for at (n,) rows of the corpus; without weights only those of ``BEFORE_TRAINING``."""
        found: dict[Signal, Any] = {}
        of_model = needs - BEFORE_TRAINING
        if of_model:
            assert weights is not None, f"{sorted(of_model)} need a trained model"
            rng = stream(seed, "mc", round_)
            found.update(
                self.scorer(weights).signals(positions, of_model, mc_passes=mc_passes, rng=rng, on_batch=on_batch)
            )
        if "frozen_embedding" in needs:
            found["frozen_embedding"] = np.asarray(self.corpus.features()[positions])
        if "name_similarity" in needs:
            found["name_similarity"] = self.corpus.name_similarity(positions, self.classes)
        return found


def _mean_of(several: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([one[name] for one in several]).mean(0) for name in several[0]}


def check_task(training: Training, task: Task) -> None:
    """Refuse settings for classes where labels are values.

    Raises:
        SpecError: there is one.
    """
    if task == "classification":
        return
    for name in ("calibrate", "drop_forgotten", "self_training", "balanced"):
        if getattr(training, name):
            raise SpecError(f"{name} works on classes, and these labels are values: leave it out of [training]")
    if training.prototypes > 1 or training.head_start == "prototypes":
        raise SpecError("prototypes are of classes, and these labels are values: leave them out of [training]")


def _remembered(dynamics: Dynamics, often: int) -> np.ndarray:
    """(n,) bool, the examples that were forgotten less often; all of them where none would be left."""
    kept = forgetting_events(dynamics.correct, dynamics.confidence) < often
    return kept if kept.any() else ~kept


def _after(first: Fitted, second: Fitted) -> Fitted:
    """A second training, with the cost of both and the dynamics of the first."""
    steps, seconds = first.steps + second.steps, first.seconds + second.seconds
    return replace(second, dynamics=first.dynamics, steps=steps, seconds=seconds, dropped=first.dropped)

"""Trains and scores: jobs in, trained runs and signals out. Decides nothing about labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from modicum.base.rng import stream
from modicum.base.training import FitJob, Training
from modicum.base.types import ExampleId, Signal, Task
from modicum.engine.backbone import Backbone
from modicum.engine.bank import Bank, Weights
from modicum.engine.cache import Corpus
from modicum.engine.fit import Fitted, Run, Trainer
from modicum.engine.score import Scorer
from modicum.methods.base import Method

STEP_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Tokens a training step that a bank aims at: more runs side by side cost memory and gain nothing."""
MAX_RUNS = {"cpu": 8, "cuda": 64}


class Engine:
    """One method on one data set.

    corpus: the texts that jobs name by id. outputs: number of classes, or 1 for regression.
    """

    def __init__(
        self, backbone: Backbone, corpus: Corpus, method: Method, training: Training, task: Task, outputs: int
    ) -> None:
        self.backbone, self.corpus, self.method = backbone, corpus, method
        self.training, self.task, self.outputs = training, task, outputs

    @property
    def runs_per_bank(self) -> int:
        """How many runs train side by side: a function of the machine's kind and the texts alone."""
        if not (self.method.stackable and self.backbone.stackable):
            return 1
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
        distinct: list[FitJob] = []
        which = []
        for job in jobs:
            same = next((i for i, known in enumerate(distinct) if job.same_as(known)), len(distinct))
            if same == len(distinct):
                distinct.append(job)
            which.append(same)
        done: list[Fitted] = []
        banks = -(-len(distinct) // self.runs_per_bank)
        for chosen in np.array_split(np.arange(len(distinct)), banks):  # even banks: no lone run at the end
            done.extend(self._fit_bank([distinct[i] for i in chosen]))
            if on_fit is not None:
                on_fit(len(chosen))
        return [done[i] for i in which]

    def _fit_bank(self, jobs: Sequence[FitJob]) -> list[Fitted]:
        bank = Bank.fresh(self.backbone, self.method, self.outputs, [(job.seed, job.round) for job in jobs])
        runs = [Run(job, self.positions(job.ids), self.training, self.task, self.outputs) for job in jobs]
        features = self.corpus.features() if bank.frozen else None
        lower = self.corpus.lower(bank.lowest) if bank.lowest and not bank.frozen else None
        return Trainer(bank, self.corpus.tokens, self.training, self.task, features, lower).fit(runs)

    def positions(self, ids: Sequence[ExampleId]) -> np.ndarray:
        """(n,) rows of the corpus that these ids name."""
        return self.corpus.dataset.ids.positions_of(ids)

    def scorer(self, weights: Weights, corpus: Corpus | None = None) -> Scorer:
        """Scores texts of a corpus (default: the engine's own) with one trained run."""
        bank = Bank.stack(self.backbone, [weights])
        corpus = corpus or self.corpus
        features = corpus.features() if bank.frozen else None
        kept = bank.lowest and not bank.frozen and corpus.has_room  # else all layers are walked, to the same end
        lower = corpus.lower(bank.lowest) if kept else None
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
        """All signals asked for at (n,) rows of the corpus; without weights only ``frozen_embedding`` can be had."""
        found: dict[Signal, Any] = {}
        of_model = needs - {"frozen_embedding"}
        if of_model:
            assert weights is not None, f"{sorted(of_model)} need a trained model"
            rng = stream(seed, "mc", round_)
            found.update(
                self.scorer(weights).signals(positions, of_model, mc_passes=mc_passes, rng=rng, on_batch=on_batch)
            )
        if "frozen_embedding" in needs:
            found["frozen_embedding"] = np.asarray(self.corpus.features()[positions])
        return found

"""The one training loop: a bank of runs, each with its own order, dropout, length and clipping."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from modicum.base.errors import SpecError
from modicum.base.rng import stream
from modicum.base.training import FitJob, Training
from modicum.base.types import Task
from modicum.engine.bank import Bank, Output, Weights
from modicum.engine.early_stopping import EarlyStopping
from modicum.engine.noise import Noise
from modicum.engine.objectives.base import Objective, Seen, balanced_weights, majority_margin, sum_of_run_means
from modicum.engine.optimizer import BankOptimizer, rate_factor
from modicum.engine.score import Lowered
from modicum.engine.tiles import SIZES, Batch, pack, tile_size
from modicum.engine.tokens import Tokens

TRAINING_COST = {
    "cpu": {32: 1.2, 64: 1.3, 128: 1.6, 256: 2.2},
    "cuda": {32: 1.0, 64: 1.02, 128: 1.05, 256: 1.1},
}
"""What a place costs by its tile's size, relative to its linear maps: estimates, attention growing with the size."""


@dataclass(frozen=True)
class Dynamics:
    """How each example fared while it was trained on, one row an epoch.

    correct: (epochs, n) bool, the prediction when the example came up. confidence: (epochs, n) float16, the
    probability of its label then. Of an epoch that was cut short only the examples that came up count;
    the others are False and NaN. For regression, correct is all False and confidence is the squared error, in units
    of the labels' variance.
    """

    correct: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class Fitted:
    """A trained run. loss: its mean over the last epoch. seconds: its share of its bank's time in training alone.

    kept: the epoch, from 1, whose model this is, where a rule chose it. dropped: labels left out, forgotten too often.
    temperature: what its logits were divided by, where it was calibrated. recipe: what ``auto`` chose.
    """

    weights: Weights
    steps: int
    loss: float
    seconds: float
    parameters: int
    dynamics: Dynamics
    kept: int | None = None
    dropped: int = 0
    temperature: float | None = None
    recipe: str = ""


class Judge(Protocol):
    """How good a run is, by what it has learned so far: higher is better."""

    def __call__(self, run: Run, weights: Callable[[], Weights]) -> float: ...


class Run:
    """One run's place in the loop: what comes next, and what was seen."""

    def __init__(self, job: FitJob, positions: np.ndarray, training: Training, task: Task, outputs: int) -> None:
        if not len(positions):
            raise SpecError("a run needs labelled examples to train on, got none: label some first")
        self.job, self.positions, self.training = job, positions, training
        self.steps = training.total_steps(len(positions))
        self.per_epoch = -(-len(positions) // training.batch_size)
        self.mean, self.std = 0.0, 1.0
        if task == "regression":  # learned on a common scale, whatever the user's
            self.mean, self.std = float(np.mean(job.targets)), float(np.std(job.targets)) or 1.0
        kind = torch.int64 if task == "classification" else torch.float32
        self.targets = torch.from_numpy((np.asarray(job.targets) - self.mean) / self.std).to(kind)
        self.weights = None if job.weights is None else torch.from_numpy(np.asarray(job.weights, np.float32))
        self.margin = torch.zeros(outputs)
        if training.balanced:
            if job.sought:
                self.margin = majority_margin(self.targets, outputs)
            of_class = balanced_weights(self.targets, outputs)[self.targets]
            self.weights = of_class if self.weights is None else self.weights * of_class
        self.dropout = stream(job.seed, "dropout", job.round)
        self._batches = self._shuffled()
        self.correct: list[np.ndarray] = []
        self.confidence: list[np.ndarray] = []
        self.losses: list[float] = []
        self.watch = EarlyStopping(training)

    @property
    def epoch(self) -> int | None:
        """How many epochs are over, at the end of one; None within one."""
        done, rest = divmod(len(self.losses), self.per_epoch)
        return None if rest else done

    @property
    def loss(self) -> float:
        """The mean over the last epoch."""
        return float(np.mean(self.losses[-self.per_epoch :]))

    def _shuffled(self) -> Iterator[np.ndarray]:
        rng, n, size = stream(self.job.seed, "order", self.job.round), len(self.positions), self.training.batch_size
        while True:
            self.correct.append(np.zeros(n, dtype=bool))
            self.confidence.append(np.full(n, np.nan, dtype=np.float16))
            order = rng.permutation(n)
            yield from (order[start : start + size] for start in range(0, n, size))

    def next(self) -> np.ndarray:
        """Indices, into this run's labels, of the next batch."""
        return next(self._batches)

    def saw(self, indices: np.ndarray, correct: np.ndarray, confidence: np.ndarray) -> None:
        """Note how a batch fared."""
        self.correct[-1][indices] = correct
        self.confidence[-1][indices] = confidence


@dataclass
class Trainer:
    """Trains one bank.

    objective: what its runs minimise. features: (n, width) of the frozen backbone, for methods that leave it as it is.
    lower: what the layers below the bank's lowest make of the texts, if that is known. judge: how good a run is at the
    end of an epoch, for the rule that may end it. size: of the tiles, which the texts decide. margins: (runs, outputs),
    what each run's logits are raised by.
    """

    bank: Bank
    tokens: Tokens
    training: Training
    task: Task
    objective: Objective
    features: np.ndarray | None = None
    lower: Lowered | None = None
    judge: Judge | None = None
    size: int = SIZES[0]
    margins: Tensor = field(default_factory=lambda: torch.zeros(0))

    def fit(self, runs: Sequence[Run]) -> list[Fitted]:
        """Train all runs to their ends; a run that ends early is left alone from then on."""
        optimizer = BankOptimizer(self.bank, weight_decay=self.training.weight_decay, clip=self.training.clip)
        self.size = tile_size(self.tokens.lengths, TRAINING_COST[self.bank.backbone.device.type])
        self.margins = torch.stack([run.margin for run in runs]).to(self.bank.backbone.device)
        spent, step = 0.0, 0
        while any(factors := [self._factor(run, step, spent) for run in runs]):
            started = time.perf_counter()
            active = [r for r, factor in enumerate(factors) if factor]
            self._step(runs, active)
            optimizer.step(factors)
            spent += time.perf_counter() - started
            step += 1
            self._judge([(r, runs[r]) for r in active])
        for r, run in enumerate(runs):
            if run.watch.best is not None:
                self.bank.put(r, run.watch.best)
        if self.task == "regression":
            self.bank.head.rescale([run.mean for run in runs], [run.std for run in runs])
        share = spent / len(runs)
        return [
            Fitted(weights, len(run.losses), run.loss, share, weights.parameters, _dynamics(run), run.watch.kept)
            for weights, run in zip(self.bank.unstack(), runs, strict=True)
        ]

    def _judge(self, active: Sequence[tuple[int, Run]]) -> None:
        """Look at the runs that have ended an epoch."""
        for r, run in active:
            if self.judge is not None and (epoch := run.epoch) is not None:
                weights = functools.partial(self.bank.row, r)
                run.watch.see(epoch, self.judge(run, weights), weights)

    def _factor(self, run: Run, step: int, elapsed: float) -> float:
        """The share of the peak rate at this step; 0 when the run is over."""
        length = self.training.seconds
        if length is not None:
            done, ahead = elapsed / length if step else 0.0, 0.0  # one step at least
        else:
            done, ahead = step / run.steps, 1 / run.steps
        if done >= 1 or run.watch.over:
            return 0.0
        return rate_factor(done, ahead, self.training.warmup, decays=self.training.until == "fixed")

    def _step(self, runs: Sequence[Run], active: list[int]) -> None:
        picked = {r: runs[r].next() for r in active}
        views = self.objective.views
        positions = np.concatenate([runs[r].positions[picked[r]] for r in active]).repeat(views)
        owners = np.repeat(active, [len(picked[r]) * views for r in active])
        device, first = self.bank.backbone.device, self.bank.backbone.first_position
        batch = pack(self.tokens, positions, owners, size=self.size, first_position=first)
        noise = Noise(batch, [run.dropout for run in runs], device)
        of_text = batch.order // views
        targets = torch.cat([runs[r].targets[picked[r]] for r in active])[of_text].to(device)
        output = self._output(batch, positions[batch.order], noise)
        owner = torch.from_numpy(batch.run_of_text).to(device)
        text = torch.from_numpy(of_text).to(device)
        losses = self.objective.losses(Seen(output.pooled, output.logits + self.margins[owner], targets, owner, text))
        if any(runs[r].weights is not None for r in active):
            losses = losses * torch.cat([_weights(runs[r], picked[r]) for r in active])[of_text].to(device)
        loss, means = sum_of_run_means(losses, owner, len(runs))
        with warnings.catch_warnings():
            # gradients are views into one buffer on purpose, and contiguous copies of them would be waste
            warnings.filterwarnings("ignore", message="grad and param do not obey")
            loss.backward()
        self._note(runs, picked, batch, output.logits.detach(), targets, means)

    def _output(self, batch: Batch, positions: np.ndarray, noise: Noise) -> Output:
        if self.features is None:
            lower = self.lower.of(batch) if self.lower else None
            return self.bank(batch, noise, self.training.head_dropout, lower)
        pooled = torch.from_numpy(self.features[positions]).to(self.bank.backbone.device)
        return Output(pooled, self.bank.classify(pooled, batch, noise, self.training.head_dropout))

    def _note(
        self,
        runs: Sequence[Run],
        picked: dict[int, np.ndarray],
        batch: Batch,
        logits: Tensor,
        targets: Tensor,
        means: Tensor,
    ) -> None:
        if not bool(torch.isfinite(means).all()):
            lost = runs[int(torch.argmin(torch.isfinite(means).int()))]
            rate = self.bank.method.learning_rate
            raise SpecError(
                f"training diverged (loss is not finite) for seed {lost.job.seed}: lower learning_rate (now {rate})"
            )
        if self.task == "classification":
            right = (logits.argmax(1) == targets).cpu().numpy()
            sure = logits.softmax(1).gather(1, targets[:, None])[:, 0].cpu().numpy()
        else:
            right, sure = np.zeros(len(targets), dtype=bool), ((logits[:, 0] - targets) ** 2).cpu().numpy()
        back = np.argsort(batch.order)[:: self.objective.views]
        right, sure, start = right[back], sure[back], 0
        for r, indices in picked.items():
            runs[r].saw(indices, right[start : start + len(indices)], sure[start : start + len(indices)])
            runs[r].losses.append(float(means[r]))
            start += len(indices)


def _weights(run: Run, indices: np.ndarray) -> Tensor:
    return torch.ones(len(indices)) if run.weights is None else run.weights[indices]


def _dynamics(run: Run) -> Dynamics:
    return Dynamics(np.stack(run.correct), np.stack(run.confidence))

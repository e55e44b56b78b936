"""How a model is trained: settings that are part of a trial's identity, and the jobs that loops hand to engines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from modicum.base.spec import Record
from modicum.base.types import ExampleId


class Training(Record):
    """AdamW with linear warm-up and decay, clipped per run.

    A run takes ``epochs`` passes over its labels, but never fewer than ``min_steps`` steps, so that 50 labels are
    trained as well as 1,000; ``steps`` or ``seconds`` set the length outright.

    batch_size: texts a step. warmup: share of the steps. weight_decay: AdamW's. clip: largest gradient norm.
    seconds: stop after so many seconds of training (the result then depends on the machine).
    balanced: weight each class by 1 / its frequency. head_dropout: before the head.
    """

    epochs: int = Field(default=15, ge=1)
    min_steps: int = Field(default=100, ge=1)
    batch_size: int = Field(default=32, ge=1)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    steps: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0)
    balanced: bool = False
    head_dropout: float = Field(default=0.1, ge=0, lt=1)

    def total_steps(self, labels: int) -> int:
        """Steps of a run with so many labels."""
        if self.steps is not None:
            return self.steps
        return max(self.min_steps, self.epochs * -(-labels // self.batch_size))


@dataclass(frozen=True)
class FitJob:
    """What to train: a new model on these labels. targets: (n,) int64 classes or float32 values."""

    ids: tuple[ExampleId, ...]
    targets: np.ndarray
    seed: int
    round: int

    def same_as(self, other: FitJob) -> bool:
        """Whether both would train the very same model."""
        mine, theirs = (self.ids, self.seed, self.round), (other.ids, other.seed, other.round)
        return mine == theirs and np.array_equal(self.targets, other.targets)

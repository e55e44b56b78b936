"""What an objective is: a model's outputs and their targets in, a loss for each text out.

A run's loss is the mean over its own texts, and no text may feel another run's, so that stacked runs end where they
would have ended alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from modicum.base.spec import Record
from modicum.base.types import Task

MAJORITY = 0.8
"""Share of the labels from which a class counts as a majority: milder ones were not seen to need a margin."""


@dataclass(frozen=True)
class Seen:
    """A batch of texts as an objective sees it.

    pooled: (texts, width) fp32 representations. logits: (texts, outputs) fp32, a majority's raised by its margin.
    targets: (texts,) int64 classes, or fp32 values. run: (texts,) int64, whose text it is. text: (texts,) int64, the
    same number for each view of a text.
    """

    pooled: Tensor
    logits: Tensor
    targets: Tensor
    run: Tensor
    text: Tensor


class Objective(Record, ABC):
    """A frozen record of an objective's settings; part of a trial's identity.

    views: how often each text stands in a batch, every time with dropout of its own. moves_encoder: whether it has
    something to say about representations, so that a method that leaves the encoder as it is gains nothing by it.
    """

    tasks: ClassVar[frozenset[Task]] = frozenset({"classification"})
    views: ClassVar[int] = 1
    moves_encoder: ClassVar[bool] = False

    @abstractmethod
    def losses(self, seen: Seen) -> Tensor:
        """(texts,), differentiable; texts of one run feel no other run's."""


def sum_of_run_means(loss: Tensor, run_of_text: Tensor, runs: int) -> tuple[Tensor, Tensor]:
    """(texts,) -> the scalar to differentiate, and each run's own mean (runs,)."""
    counts = torch.bincount(run_of_text, minlength=runs).clamp(min=1)
    means = torch.zeros(runs, device=loss.device).index_add(0, run_of_text, loss) / counts
    return means.sum(), means.detach()


def balanced_weights(targets: Tensor, classes: int) -> Tensor:
    """(n,) -> (classes,): n / (classes seen · count), so that the mean weight over the examples is 1."""
    counts = torch.bincount(targets, minlength=classes)
    return len(targets) / ((counts > 0).sum() * counts.clamp(min=1))


def majority(targets: np.ndarray, classes: int) -> np.ndarray:
    """(n,) -> (classes,) bool, the class that four fifths of the examples or more are of; one that is alone is none."""
    share = np.bincount(targets, minlength=classes) / len(targets)
    return (share >= MAJORITY) & (share < 1)


def majority_margin(targets: Tensor, classes: int) -> Tensor:
    """(n,) -> (classes,): for a ``majority`` its log-odds among the examples, 0 for all other classes.

    Added to logits while training, it is by how much the others have to beat the majority: with two classes the
    logit-adjusted loss (Menon et al. 2021, τ = 1).
    """
    share = torch.bincount(targets, minlength=classes) / len(targets)
    return torch.logit(share).where(torch.from_numpy(majority(targets.numpy(), classes)), 0.0)

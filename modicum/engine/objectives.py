"""What a run minimises: a mean over its own texts, so that stacked runs do not feel each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def cross_entropy(logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """(texts, classes), (texts,) int64, weights (texts, classes) -> (texts,)."""
    loss = nn.functional.cross_entropy(logits, targets, reduction="none")
    return loss if class_weights is None else loss * class_weights.gather(1, targets[:, None])[:, 0]


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """(texts, 1), (texts,) float -> (texts,)."""
    return (logits[:, 0] - targets) ** 2


def sum_of_run_means(loss: Tensor, run_of_text: Tensor, runs: int) -> tuple[Tensor, Tensor]:
    """(texts,) -> the scalar to differentiate, and each run's own mean (runs,)."""
    counts = torch.bincount(run_of_text, minlength=runs).clamp(min=1)
    means = torch.zeros(runs, device=loss.device).index_add(0, run_of_text, loss) / counts
    return means.sum(), means.detach()


def balanced_weights(targets: Tensor, classes: int) -> Tensor:
    """(n,) -> (classes,): n / (classes seen · count), so that the mean weight over the examples is 1."""
    counts = torch.bincount(targets, minlength=classes)
    return len(targets) / ((counts > 0).sum() * counts.clamp(min=1))

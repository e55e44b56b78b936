"""Classification heads, and where they may start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor, nn

from modicum.base.types import Task
from modicum.methods.base import normal, zeros

HEAD_STD = 0.02


class Head(nn.Module):
    """A linear map per run: weight (runs, outputs · prototypes, width), bias (runs, outputs · prototypes).

    With several prototypes an output is the log-sum-exp over its own, so that a class may lie in several places.
    """

    def __init__(self, width: int, outputs: int, rngs: Sequence[np.random.Generator], prototypes: int = 1) -> None:
        super().__init__()
        self.prototypes = prototypes
        self.weight = nn.Parameter(normal(rngs, outputs * prototypes, width, std=HEAD_STD))
        self.bias = nn.Parameter(zeros(rngs, outputs * prototypes))

    def forward(self, pooled: Tensor, run_of_text: Tensor) -> Tensor:
        """(texts, width) -> (texts, outputs), each text through its own run's map."""
        if len(self.weight) == 1:
            found = nn.functional.linear(pooled, self.weight[0], self.bias[0])
        else:
            every = torch.einsum("tw,row->tro", pooled, self.weight) + self.bias
            found = every[torch.arange(len(pooled), device=pooled.device), run_of_text]
        return found if self.prototypes == 1 else found.unflatten(1, (-1, self.prototypes)).logsumexp(2)

    def rescale(self, means: Sequence[float], stds: Sequence[float]) -> None:
        """Fold each run's target scale into its map, so that outputs are in the user's units."""
        mean, std = (torch.tensor(values, device=self.bias.device)[:, None] for values in (means, stds))
        with torch.no_grad():
            self.weight.mul_(std[..., None])
            self.bias.mul_(std).add_(mean)

    def begin(self, run: int, start: Start) -> None:
        """Let one run's map be this one."""
        with torch.no_grad():
            self.weight[run].copy_(torch.from_numpy(start.weight))
            self.bias[run].copy_(torch.from_numpy(start.bias))


class Start(NamedTuple):
    """Where a head starts. weight: (outputs · prototypes, width). bias: (outputs · prototypes,)."""

    weight: np.ndarray
    bias: np.ndarray


def probe(features: np.ndarray, targets: np.ndarray, task: Task, outputs: int, weights: np.ndarray | None) -> Start:
    """The linear probe of (n, width) features, which fine-tuning may go on from (LP-FT, Kumar et al. 2022).

    targets: (n,) classes, or values on the scale on which training learns them. weights: (n,) of the examples.
    """
    if task == "regression":
        ridge = Ridge().fit(features, targets, weights)
        return Start(np.atleast_2d(ridge.coef_).astype(np.float32), np.atleast_1d(ridge.intercept_).astype(np.float32))
    found = np.unique(targets)
    weight, bias = np.zeros((outputs, features.shape[1]), np.float32), np.zeros(outputs, np.float32)
    if len(found) > 1:
        made = LogisticRegression(max_iter=1000).fit(features, targets, weights)
        both = len(found) == 2  # one row, of the second class against the first
        weight[found] = np.concatenate([-made.coef_, made.coef_]) / 2 if both else made.coef_
        bias[found] = np.concatenate([-made.intercept_, made.intercept_]) / 2 if both else made.intercept_
    return Start(weight, _unseen(bias, found))


def prototypes(features: np.ndarray, targets: np.ndarray, outputs: int, each: int, rng: np.random.Generator) -> Start:
    """A head whose logits are minus the squared distances to prototypes (Snell et al. 2017), ``each`` a class: its
    mean, or the centres of its clusters. A distance is measured in the mean distance of a text to its own prototype.

    -|x - p|² is 2 p·x - |p|² and what all classes share, so the head is a linear map. A class with fewer texts than
    prototypes has the same one several times.
    """
    centres = np.zeros((outputs, each, features.shape[1]), np.float32)
    spread, found = 0.0, np.unique(targets)
    for c in found:
        own = features[targets == c]
        k = min(each, len(own))
        if k == 1:
            made = own.mean(0, keepdims=True)
        else:
            made = KMeans(k, n_init=3, random_state=int(rng.integers(2**31))).fit(own).cluster_centers_
        spread += float(((own[:, None] - made) ** 2).sum(2).min(1).sum())
        centres[c] = made[np.arange(each) % k]
    scale = spread / len(features)
    if scale <= 1e-6 * float((features**2).sum(1).mean()):  # each text is its own prototype, but for rounding
        scale = 1.0
    bias = -(centres**2).sum(2) / scale - np.log(each)
    bias[np.setdiff1d(np.arange(outputs), found)] = bias[found].min() if len(found) else 0.0
    return Start((2 / scale * centres).reshape(outputs * each, -1), bias.reshape(-1).astype(np.float32))


def _unseen(bias: np.ndarray, found: np.ndarray) -> np.ndarray:
    """A class without a label begins less likely than one with labels is by its bias alone."""
    absent = np.setdiff1d(np.arange(len(bias)), found)
    bias[absent] = bias[found].min() - 1 if len(found) else 0.0
    return bias

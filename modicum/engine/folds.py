"""What a training does to labels that it does not see: cross-validation within the labels given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from modicum.base.errors import SpecError
from modicum.base.rng import stream
from modicum.base.training import FitJob
from modicum.base.types import ExampleId
from modicum.engine.bank import Weights
from modicum.engine.fit import Fitted

Fit = Callable[[Sequence[FitJob]], list[Fitted]]
Outputs = Callable[[Weights, Sequence[ExampleId]], np.ndarray]


def deal(targets: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) the fold of each example: of every class, or of the values in order, as evenly as can be.

    Raises:
        SpecError: there are fewer examples than folds.
    """
    if not 2 <= folds <= len(targets):
        raise SpecError(f"cross-validation needs 2 folds or more and as many labels, got {folds} and {len(targets)}")
    shuffled = rng.permutation(len(targets))
    by_class = shuffled[np.argsort(targets[shuffled], kind="stable")]
    found = np.empty(len(targets), np.int64)
    found[by_class] = np.arange(len(targets)) % folds
    return found


def out_of_fold(
    jobs: Sequence[FitJob], folds: int, fit: Fit, outputs: Outputs, repeat: int = 0, thin: int = 1
) -> tuple[list[np.ndarray], list[float]]:
    """What models say of labels that they were not trained on, and the seconds that training took, by job.

    A model is trained on all folds but one, all of them side by side. The outputs are (n, classes) probabilities or
    (n,) values, in the job's order. repeat: other numbers deal other folds. thin: of the other folds' labels one in so
    many is trained on.
    """
    dealt = [deal(job.targets, folds, stream(job.seed, "folds", job.round, repeat)) for job in jobs]
    parts = [part(job, own != fold) for job, own in zip(jobs, dealt, strict=True) for fold in range(folds)]
    if thin > 1:
        rngs = (stream(one.seed, "thin", one.round, repeat, i % folds) for i, one in enumerate(parts))
        parts = [part(one, deal(one.targets, thin, rng) == 0) for one, rng in zip(parts, rngs, strict=True)]
    fitted = fit(parts)
    found, seconds = [], []
    for i, (job, own) in enumerate(zip(jobs, dealt, strict=True)):
        models = fitted[i * folds : (i + 1) * folds]
        said: np.ndarray | None = None
        for fold, model in enumerate(models):
            held = np.flatnonzero(own == fold)
            told = outputs(model.weights, [job.ids[j] for j in held])
            said = np.empty((len(own), *told.shape[1:]), told.dtype) if said is None else said
            said[held] = told
        assert said is not None
        found.append(said)
        seconds.append(sum(model.seconds for model in models))
    return found, seconds


def part(job: FitJob, keep: np.ndarray) -> FitJob:
    """The job with those of its examples alone that are to be kept, (n,) bool; the others are set apart."""
    marked = list(zip(job.ids, keep.tolist(), strict=True))
    ids = tuple(example for example, kept in marked if kept)
    left = tuple(example for example, kept in marked if not kept)
    weights = None if job.weights is None else job.weights[keep]
    return replace(job, ids=ids, targets=job.targets[keep], weights=weights, apart=job.apart + left)

"""Floor 2, east: which examples to label next. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modicum.base.errors import SpecError
from modicum.base.registry import Registry
from modicum.base.spec import Choice
from modicum.base.types import Task

if TYPE_CHECKING:
    from modicum.strategies.base import Strategy

STRATEGIES = Registry(
    "strategy",
    "modicum.strategies",
    {
        "random": "modicum.strategies.random:Random",
        "entropy": "modicum.strategies.uncertainty:Entropy",
        "margin": "modicum.strategies.uncertainty:Margin",
        "least-confidence": "modicum.strategies.uncertainty:LeastConfidence",
        "mc-entropy": "modicum.strategies.uncertainty:MCEntropy",
        "bald": "modicum.strategies.uncertainty:BALD",
        "diverse-margin": "modicum.strategies.diverse:DiverseMargin",
        "coreset": "modicum.strategies.coreset:CoreSet",
        "dal": "modicum.strategies.discriminative:Discriminative",
        "badge": "modicum.strategies.badge:BADGE",
        "class-balanced": "modicum.strategies.balanced:Balanced",
        "kmeans": "modicum.strategies.clustering:KMeans",
        "typiclust": "modicum.strategies.clustering:TypiClust",
        "zero-shot": "modicum.strategies.zero_shot:ZeroShot",
        "subsample:": "modicum.strategies.subsample:Subsample",
    },
)


USUAL: dict[Task, str] = {"classification": "class-balanced", "regression": "coreset"}
"""The strategy to take where none is asked for."""


def make_warm(named: str | Mapping[str, Any] | Choice, task: Task = "classification") -> Strategy:
    """The strategy of the first query, which must work before there is a model. named: as ``Choice.of`` takes it.

    Raises:
        SpecError: it needs one, or is not for this task. UnknownName: there is no such strategy.
    """
    choice = Choice.of(named, "warm_strategy")
    warm: Strategy = STRATEGIES.create(choice.name, **choice.options)
    said = f"warm_strategy = {choice.label!r}"
    if warm.asks_model:
        raise SpecError(f"{said} needs a trained model: use random, kmeans, typiclust or zero-shot")
    if task not in warm.tasks:
        raise SpecError(f"{said} works for {' and '.join(sorted(warm.tasks))}, not for {task}")
    return warm

"""Who answers queries in a study: the known labels, or a labeller who errs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from modicum.base.errors import SpecError
from modicum.base.rng import stream
from modicum.base.types import ExampleId, Label


class Oracle(Protocol):
    """Anything that can be asked for labels."""

    def answer(self, ids: Sequence[ExampleId]) -> dict[ExampleId, Label | None]:
        """A label for each id; None where it cannot tell."""


class GoldOracle:
    """Tells the known labels."""

    def __init__(self, gold: Mapping[ExampleId, Label]) -> None:
        self._gold = gold

    def answer(self, ids: Sequence[ExampleId]) -> dict[ExampleId, Label | None]:
        return {i: self._gold[i] for i in ids}


class NoisyOracle:
    """Errs on a share of the examples, the same ones whenever and in whatever order it is asked.

    rate: the chance that an example gets a wrong class, drawn evenly from the others.
    """

    def __init__(self, gold: Mapping[ExampleId, Label], classes: int, rate: float, seed: int) -> None:
        if not 0 <= rate <= 1:
            raise SpecError(f"label noise must be between 0 and 1, got {rate}")
        if classes < 2:
            raise SpecError(f"label noise needs at least 2 classes to confuse, got {classes}")
        self._gold, self._classes, self._rate, self._seed = gold, classes, rate, seed

    def answer(self, ids: Sequence[ExampleId]) -> dict[ExampleId, Label | None]:
        return {i: self._perceived(i) for i in ids}

    def _perceived(self, example: ExampleId) -> Label:
        truth = int(self._gold[example])
        rng = stream(self._seed, "noise", example)
        if rng.random() >= self._rate:
            return truth
        return (truth + int(rng.integers(1, self._classes))) % self._classes

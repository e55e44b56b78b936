"""Squared error, for values."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from modicum.base.types import Task
from modicum.engine.objectives.base import Objective, Seen


class SquaredError(Objective):
    """The squared difference from a text's value, in units of the labels' variance."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"regression"})

    def losses(self, seen: Seen) -> Tensor:
        return (seen.logits[:, 0] - seen.targets) ** 2

"""Cross-entropy."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from modicum.engine.objectives.base import Objective, Seen


class CrossEntropy(Objective):
    """The negative log-probability of a text's class.

    smoothing: share of each target that is spread over all classes (label smoothing, Szegedy et al. 2016).
    """

    smoothing: float = Field(default=0.0, ge=0, lt=1)

    def losses(self, seen: Seen) -> Tensor:
        return nn.functional.cross_entropy(seen.logits, seen.targets, reduction="none", label_smoothing=self.smoothing)

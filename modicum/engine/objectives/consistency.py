"""Two views of a text, and a model that should say the same of both."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from modicum.engine.objectives.base import Seen
from modicum.engine.objectives.cross_entropy import CrossEntropy


class Consistency(CrossEntropy):
    """Cross-entropy on two views of each text under dropout, and their divergence (R-Drop, Liang et al. 2021).

    weight: of the divergence, the mean of both Kullback-Leibler divergences between the views.
    """

    views: ClassVar[int] = 2

    weight: float = Field(default=1.0, gt=0)

    def losses(self, seen: Seen) -> Tensor:
        order = torch.argsort(seen.text, stable=True)
        first, second = order[0::2], order[1::2]
        logs = seen.logits.log_softmax(1)
        gap = logs[first] - logs[second]
        apart = ((logs[first].exp() - logs[second].exp()) * gap).sum(1) / 2
        return super().losses(seen) + self.weight * torch.zeros_like(seen.logits[:, 0]).index_put(
            (torch.cat([first, second]),), torch.cat([apart, apart])
        )

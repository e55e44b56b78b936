"""Supervised contrastive learning beside cross-entropy."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from modicum.engine.objectives.base import Seen
from modicum.engine.objectives.cross_entropy import CrossEntropy


class Contrastive(CrossEntropy):
    """Cross-entropy, and texts of one class draw near each other while those of others part.

    The second term is the supervised contrastive loss over the texts of a batch (Khosla et al. 2020, L_out), as beside
    cross-entropy in Gunel et al. 2021. weight: of the second term; the first has 1. temperature: divides the cosines.
    """

    moves_encoder: ClassVar[bool] = True

    weight: float = Field(default=1.0, gt=0)
    temperature: float = Field(default=0.1, gt=0)

    def losses(self, seen: Seen) -> Tensor:
        return super().losses(seen) + self.weight * contrast(seen, self.temperature)


def contrast(seen: Seen, temperature: float) -> Tensor:
    """(texts,): minus the mean log-share that a text's companions, of its run and class, have of its attention to its
    run; 0 for a text without companions."""
    unit = nn.functional.normalize(seen.pooled, dim=1)
    others = (seen.run[:, None] == seen.run) & ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    companions = others & (seen.targets[:, None] == seen.targets)
    nearness = (unit @ unit.T / temperature).masked_fill(~others, float("-inf"))
    shares = nearness - nearness.logsumexp(1, keepdim=True).nan_to_num(neginf=0.0)  # a text may be alone in its run
    found = shares.masked_fill(~companions, 0.0).sum(1)
    return -found / companions.sum(1).clamp(min=1)

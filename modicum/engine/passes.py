"""One walk through an encoder: what it works on, and what steps in on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

from modicum.engine.attention import Masks
from modicum.engine.linear import Maps
from modicum.engine.noise import Noise
from modicum.engine.tiles import Batch
from modicum.methods.base import Adapter, Host, Rows, Site


class Changed(NamedTuple):
    """An encoder with a run's change written into its weights, for scoring: those that differ, and all linear maps."""

    weights: Mapping[str, Tensor]
    maps: Maps


@dataclass(frozen=True)
class Upper:
    """The backbone as a method sees it that stands in its upper layers alone."""

    backbone: Host
    sites: list[Site]
    weights: list[str]

    @property
    def model(self) -> nn.Module:
        return self.backbone.model

    def plain_copy(self) -> nn.Module:
        return self.backbone.plain_copy()

    def drop_in(self, model: nn.Module) -> None:
        self.backbone.drop_in(model)


@dataclass
class Pass:
    """One walk through the encoder: the batch, who stands around its sites, and what is dropped."""

    batch: Batch
    rows: Rows
    adapter: Adapter | None
    noise: Noise | None
    masks: Masks
    packed: bool
    maps: Maps | None
    changed: Changed | None = None
    lower: Tensor | None = None
    """(1, places, width): what the layers below ``layer`` made of the batch; None where all layers are to be walked."""
    layer: int = 0
    reached: Tensor | None = None
    together: dict[str, tuple[Tensor, dict[str, Tensor]]] = field(default_factory=dict)

"""Bottleneck adapters: Houlsby et al. 2019 and Pfeiffer et al. 2021."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from modicum.methods.base import Adapter, Method, ParameterTree, Rate, Role, Rows, Site, pick, uniform, zeros

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swish": nn.functional.silu,
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
}


class BottleneckAdapter(Adapter):
    """``y + up(act(down(y)))`` with ``y = frozen(x)``; ``up`` starts at zero, so the adapter starts as the identity."""

    def __init__(
        self, sites: Sequence[Site], rngs: Sequence[np.random.Generator], reduction: float, activation: str
    ) -> None:
        super().__init__(len(rngs))
        self.act = ACTIVATIONS[activation]
        size = {site.name: max(1, round(site.outputs / reduction)) for site in sites}
        self.down = ParameterTree(
            {s.name: uniform(rngs, size[s.name], s.outputs, bound=1 / math.sqrt(s.outputs)) for s in sites}
        )
        self.down_bias = ParameterTree({s.name: zeros(rngs, size[s.name]) for s in sites})
        self.up = ParameterTree({s.name: zeros(rngs, s.outputs, size[s.name]) for s in sites})
        self.up_bias = ParameterTree({s.name: zeros(rngs, s.outputs) for s in sites})
        self._sites = frozenset(site.name for site in sites)

    @property
    def sites(self) -> frozenset[str]:
        return self._sites

    def add(self, site: Site, y: Tensor, rows: Rows, gate: Tensor | None = None) -> Tensor:
        """(..., outputs) plus its change, gated where (..., 1) gates are given."""
        bias = self.down_bias[site.name].to(y.dtype).flatten()
        hidden = rows.mask(self.act(rows.down(y, self.down[site.name]) + bias))
        offset = rows.own(self.up_bias[site.name], y)
        if gate is not None:
            hidden, offset = gate * hidden, gate * offset
        return rows.up(hidden, self.up[site.name], y + offset)

    def around(self, site: Site, frozen: Callable[..., Tensor], *inputs: Tensor, rows: Rows) -> Tensor:
        return self.add(site, frozen(*inputs), rows)


class Bottleneck(Method):
    """Settings of both variants.

    reduction: the hidden size is the backbone's width divided by this. activation: between the two maps.
    """

    roles: ClassVar[tuple[Role, ...]]
    learning_rate: Rate = 2e-3
    reduction: float = Field(default=16.0, gt=0)
    activation: Literal["swish", "relu", "gelu"] = "swish"

    def build(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator]) -> Adapter:
        chosen = pick(sites, *self.roles, method=type(self).__name__.lower())
        return BottleneckAdapter(chosen, rngs, self.reduction, self.activation)


class Houlsby(Bottleneck):
    """Trains a bottleneck after attention and one after the feed-forward map of every layer, and the head."""

    roles: ClassVar[tuple[Role, ...]] = ("attention_output", "ffn_out")


class Pfeiffer(Bottleneck):
    """Trains one bottleneck after the feed-forward map of every layer, and the head."""

    roles: ClassVar[tuple[Role, ...]] = ("ffn_out",)

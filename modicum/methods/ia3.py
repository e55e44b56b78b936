"""IA3: learned rescaling of keys, values and feed-forward activations (Liu et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from modicum.methods.base import Adapter, Method, ParameterTree, Role, Rows, Site, pick

SCALED_OUTPUTS: tuple[Role, ...] = ("key", "value", "qkv")
SCALED_INPUTS: tuple[Role, ...] = ("ffn_out",)


class ScaleAdapter(Adapter):
    """``frozen(x) * l`` at keys and values, ``frozen(x * l)`` at the second feed-forward map; l starts at one."""

    def __init__(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator]) -> None:
        super().__init__(len(rngs))
        width = {site.name: site.inputs if site.role in SCALED_INPUTS else site.outputs for site in sites}
        self.scale = ParameterTree({name: torch.ones(len(rngs), n) for name, n in width.items()})
        self._sites = frozenset(site.name for site in sites)

    @property
    def sites(self) -> frozenset[str]:
        return self._sites

    def around(self, site: Site, frozen: Callable[..., Tensor], *inputs: Tensor, rows: Rows) -> Tensor:
        scale = self.scale[site.name]
        if site.role in SCALED_INPUTS:
            return frozen(inputs[0] * rows.own(scale, inputs[0]))
        y = frozen(*inputs)
        return y * rows.own(scale, y)


class IA3(Method):
    """Trains one scale per key, value and feed-forward unit, and the head: the fewest parameters."""

    learning_rate: float = 1e-2

    def build(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator]) -> Adapter:
        return ScaleAdapter(pick(sites, *SCALED_OUTPUTS, *SCALED_INPUTS, method="ia3"), rngs)

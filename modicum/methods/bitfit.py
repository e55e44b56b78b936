"""BitFit: only biases move (Ben Zaken, Ravfogel & Goldberg 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from modicum.base.errors import SpecError
from modicum.methods.base import Adapter, Method, ParameterTree, Rate, Rows, Site, slashed, zeros


class BiasAdapter(Adapter):
    """Adds a learned offset, zero at the start, to every output that has a bias."""

    def __init__(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator]) -> None:
        super().__init__(len(rngs))
        self.offset = ParameterTree({site.name: zeros(rngs, site.outputs) for site in sites})
        self._sites = frozenset(site.name for site in sites)

    @property
    def sites(self) -> frozenset[str]:
        return self._sites

    def around(self, site: Site, frozen: Callable[..., Tensor], *inputs: Tensor, rows: Rows) -> Tensor:
        y = frozen(*inputs)
        return y + rows.own(self.offset[site.name], y)


class BitFit(Method):
    """Trains all bias terms of the backbone (linear maps and layer norms), and the head."""

    learning_rate: Rate = 2e-3

    def build(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator]) -> Adapter:
        biased = [site for site in sites if site.bias and site.role != "attention"]
        if not biased:
            raise SpecError("bitfit trains bias terms, and this backbone has none; choose lora or adapter instead")
        return BiasAdapter(biased, rngs)

    def merge(self, sites: Sequence[Site], adapter: Mapping[str, Tensor], state: dict[str, Tensor]) -> bool:
        for site in sites:
            if (offset := adapter.get(f"offset.{slashed(site.name)}")) is not None:
                state[f"{site.name}.bias"] = state[f"{site.name}.bias"] + offset
        return True

"""IA3: learned rescaling of keys, values and feed-forward activations (Liu et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from modicum.methods.base import Adapter, Method, ParameterTree, PeftParts, Rate, Role, Rows, Site, pick, slashed

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

    learning_rate: Rate = 1e-2

    def build(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator]) -> Adapter:
        return ScaleAdapter(pick(sites, *SCALED_OUTPUTS, *SCALED_INPUTS, method="ia3"), rngs)

    def to_peft(self, sites: Sequence[Site], adapter: Mapping[str, Tensor]) -> PeftParts:
        chosen = pick(sites, *SCALED_OUTPUTS, *SCALED_INPUTS, method="ia3")
        inputs = [site.name for site in chosen if site.role in SCALED_INPUTS]
        tensors = {}
        for site in chosen:
            scale = adapter[f"scale.{slashed(site.name)}"]
            tensors[f"{site.name}.ia3_l"] = scale[None] if site.name in inputs else scale[:, None]
        names = [site.name for site in chosen]
        return PeftParts({"peft_type": "IA3", "target_modules": names, "feedforward_modules": inputs}, tensors)

    def merge(self, sites: Sequence[Site], adapter: Mapping[str, Tensor], state: dict[str, Tensor]) -> bool:
        for site in pick(sites, *SCALED_OUTPUTS, *SCALED_INPUTS, method="ia3"):
            scale = adapter[f"scale.{slashed(site.name)}"]
            if site.role in SCALED_INPUTS:
                state[f"{site.name}.weight"] = state[f"{site.name}.weight"] * scale[None]
                continue
            state[f"{site.name}.weight"] = state[f"{site.name}.weight"] * scale[:, None]
            if site.bias:
                state[f"{site.name}.bias"] = state[f"{site.name}.bias"] * scale
        return True

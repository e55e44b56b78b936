"""LoRA: a low-rank update beside frozen maps (Hu et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from modicum.methods.base import (
    ATTENTION_INPUTS,
    Adapter,
    Frozen,
    Method,
    ParameterTree,
    PeftParts,
    Rate,
    Role,
    Rows,
    Site,
    pick,
    slashed,
    uniform,
    zeros,
)
from modicum.methods.low_rank import LowRank

TARGETS: dict[str, tuple[Role, ...]] = {
    "query-value": ("query", "value", "qkv"),
    "attention": (*ATTENTION_INPUTS, "attention_output"),
    "all": (*ATTENTION_INPUTS, "attention_output", "ffn_in", "ffn_out"),
}


class LoRAAdapter(Adapter):
    """``frozen(x) + scale · B(A x)``, with A (runs, rank, inputs) and B (runs, outputs, rank)."""

    def __init__(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator], rank: int, scale: float) -> None:
        super().__init__(len(rngs))
        self.scale = scale
        # Kaiming-uniform with a = sqrt(5), the initialisation of Hu et al.'s code and of PEFT, is ±1/sqrt(inputs)
        self.down = ParameterTree({s.name: uniform(rngs, rank, s.inputs, bound=1 / math.sqrt(s.inputs)) for s in sites})
        self.up = ParameterTree({s.name: zeros(rngs, s.outputs, rank) for s in sites})
        self._sites = frozenset(site.name for site in sites)

    @property
    def sites(self) -> frozenset[str]:
        return self._sites

    def add(self, site: Site, x: Tensor, onto: Tensor, rows: Rows, gate: Tensor | None = None) -> Tensor:
        """``onto`` plus the update of (..., inputs), gated where (..., 1) gates are given."""
        hidden = rows.mask(rows.down(x, self.down[site.name]))
        return rows.up(hidden if gate is None else gate * hidden, self.scale * self.up[site.name], onto)

    def around(self, site: Site, frozen: Callable[..., Tensor], *inputs: Tensor, rows: Rows) -> Tensor:
        if not hasattr(frozen, "product"):
            return self.add(site, inputs[0], frozen(*inputs), rows)
        maps = self.down[site.name], self.up[site.name]
        return LowRank.apply(inputs[0], frozen, rows, self.scale, *maps)

    def around_all(self, sites: Sequence[Site], frozen: Frozen, x: Tensor, rows: Rows) -> Sequence[Tensor]:
        names = [site.name for site in sites]
        if not self._sites.issuperset(names):
            return super().around_all(sites, frozen, x, rows)
        maps = [tree[name] for tree in (self.down, self.up) for name in names]
        together = LowRank.apply(x, frozen, rows, self.scale, *maps)
        return together.split([site.outputs for site in sites], -1)


class LoRA(Method):
    """Trains a low-rank update of the chosen linear maps, and the head.

    rank: the update's rank r. alpha: the update is scaled by alpha / rank. targets: which maps are updated.
    """

    learning_rate: Rate = 1e-3
    rank: int = Field(default=8, ge=1)
    alpha: float = 8.0
    targets: Literal["query-value", "attention", "all"] = "all"

    def build(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator]) -> Adapter:
        chosen = pick(sites, *TARGETS[self.targets], method="lora")
        return LoRAAdapter(chosen, rngs, self.rank, self.alpha / self.rank)

    def to_peft(self, sites: Sequence[Site], adapter: Mapping[str, Tensor]) -> PeftParts:
        chosen = pick(sites, *TARGETS[self.targets], method="lora")
        tensors = {f"{s.name}.lora_A.weight": adapter[f"down.{slashed(s.name)}"] for s in chosen}
        tensors |= {f"{s.name}.lora_B.weight": adapter[f"up.{slashed(s.name)}"] for s in chosen}
        names = [site.name for site in chosen]
        config = {"peft_type": "LORA", "r": self.rank, "lora_alpha": self.alpha, "target_modules": names}
        return PeftParts(config, tensors)

    def merge(self, sites: Sequence[Site], adapter: Mapping[str, Tensor], state: dict[str, Tensor]) -> bool:
        for site in pick(sites, *TARGETS[self.targets], method="lora"):
            down, up = adapter[f"down.{slashed(site.name)}"], adapter[f"up.{slashed(site.name)}"]
            state[f"{site.name}.weight"] = state[f"{site.name}.weight"] + self.alpha / self.rank * up @ down
        return True

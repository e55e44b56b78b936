"""UniPELT: prefix, bottleneck and LoRA, each behind a learned gate (Mao et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from modicum.methods.base import ATTENTION_INPUTS, Adapter, Method, ParameterTree, Rate, Rows, Site, normal, pick
from modicum.methods.bottleneck import BottleneckAdapter
from modicum.methods.lora import TARGETS, LoRAAdapter
from modicum.methods.prefix import PrefixAdapter


class UniPELTAdapter(Adapter):
    """Gates are per text and layer: the mean over the text's tokens of sigmoid(w · x), from the map's own input."""

    def __init__(
        self,
        rngs: Sequence[np.random.Generator],
        attention: Sequence[Site],
        readers: Sequence[Site],
        prefix: PrefixAdapter,
        lora: LoRAAdapter,
        bottleneck: BottleneckAdapter,
        width: int,
    ) -> None:
        super().__init__(len(rngs))
        self.prefix, self.lora, self.bottleneck = prefix, lora, bottleneck
        self.position_shift = prefix.position_shift
        # the first map to read a layer's input also computes that layer's gates for the prefix
        self._reader = {min((s for s in readers if s.layer == a.layer), key=readers.index).name for a in attention}
        gated = {f"prefix/{a.layer}" for a in attention}
        gated |= {f"lora/{name}" for name in lora.sites} | {f"bottleneck/{name}" for name in bottleneck.sites}
        self.gate = ParameterTree({name: normal(rngs, width, std=0.02) for name in sorted(gated)})
        self._sites = prefix.sites | lora.sites | bottleneck.sites | self._reader

    @property
    def sites(self) -> frozenset[str]:
        return self._sites

    def open(self, name: str, x: Tensor, rows: Rows) -> Tensor:
        """(..., width) -> (texts, 1) in (0, 1)."""
        return rows.mean_over_text(torch.sigmoid((x * rows.own(self.gate[name], x)).sum(-1, keepdim=True)))

    def around(self, site: Site, frozen: Callable[..., Tensor], *inputs: Tensor, rows: Rows) -> Tensor:
        x = inputs[0]
        if site.role == "attention":
            gate = rows.spread(rows.memo["gate", site.layer]).to(x.dtype)
            return frozen(*inputs, self.prefix.at(site, rows), gate)
        if site.name in self._reader:
            rows.memo["gate", site.layer] = self.open(f"prefix/{site.layer}", x, rows)
        y = frozen(*inputs)
        if site.name in self.lora.sites:
            y = self.lora.add(site, x, y, rows, rows.spread(self.open(f"lora/{site.name}", x, rows)).to(y.dtype))
        if site.name in self.bottleneck.sites:
            gate = rows.spread(self.open(f"bottleneck/{site.name}", y, rows)).to(y.dtype)
            y = self.bottleneck.add(site, y, rows, gate)
        return y


class UniPELT(Method):
    """Trains a gated prefix, a gated bottleneck after feed-forward and gated LoRA on query and value, and the head."""

    identity_at_init: ClassVar[bool] = False
    needs_packed: ClassVar[bool] = True
    learning_rate: Rate = 2e-3
    length: int = Field(default=10, ge=1)
    rank: int = Field(default=8, ge=1)
    alpha: float = 8.0
    reduction: float = Field(default=16.0, gt=0)
    std: float = Field(default=0.02, ge=0)

    def build(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator]) -> Adapter:
        attention = pick(sites, "attention", method="unipelt")
        return UniPELTAdapter(
            rngs,
            attention,
            pick(sites, *ATTENTION_INPUTS, method="unipelt"),
            PrefixAdapter(attention, rngs, self.length, None, self.std),
            LoRAAdapter(
                pick(sites, *TARGETS["query-value"], method="unipelt"), rngs, self.rank, self.alpha / self.rank
            ),
            BottleneckAdapter(pick(sites, "ffn_out", method="unipelt"), rngs, self.reduction, "swish"),
            attention[0].outputs,
        )

"""Prefix-tuning: learned keys and values before each text's own (Li & Liang 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from modicum.methods.base import Adapter, Method, PeftParts, Rate, Rows, Site, normal, pick, uniform, zeros


class PrefixAdapter(Adapter):
    """``frozen(q, k, v, (pk, pv))`` at every attention site, which attends to cat(pk, k) and cat(pv, v).

    The prefix is (runs, length, layers * 2 * width), keys then values layer by layer as in PEFT, either learned
    itself or the output of a learned two-layer map of (runs, length, width).
    """

    def __init__(
        self, sites: Sequence[Site], rngs: Sequence[np.random.Generator], length: int, hidden: int | None, std: float
    ) -> None:
        super().__init__(len(rngs))
        self.position_shift = length
        self.length, self.heads, self.width = length, sites[0].heads, sites[0].outputs
        self._index = {site.name: i for i, site in enumerate(sites)}
        total = len(sites) * 2 * self.width
        if hidden is None:
            self.prefix = nn.Parameter(normal(rngs, length, total, std=std))
        else:
            self.source = nn.Parameter(normal(rngs, length, self.width, std=1.0))
            self.map_in = nn.Parameter(uniform(rngs, hidden, self.width, bound=1 / math.sqrt(self.width)))
            self.bias_in = nn.Parameter(zeros(rngs, hidden))
            self.map_out = nn.Parameter(uniform(rngs, total, hidden, bound=1 / math.sqrt(hidden)))
            self.bias_out = nn.Parameter(zeros(rngs, total))
        self.reparametrised = hidden is not None

    @property
    def sites(self) -> frozenset[str]:
        return frozenset(self._index)

    def keys_values(self) -> Tensor:
        """(runs, length, layers * 2 * width)."""
        if not self.reparametrised:
            return self.prefix
        hidden = torch.tanh(torch.baddbmm(self.bias_in[:, None], self.source, self.map_in.transpose(1, 2)))
        return torch.baddbmm(self.bias_out[:, None], hidden, self.map_out.transpose(1, 2))

    def at(self, site: Site, rows: Rows) -> tuple[Tensor, Tensor]:
        """The prefix keys and values at one site, each (runs, heads, length, head_dim)."""
        if "prefix" not in rows.memo:
            layers = self.keys_values().unflatten(2, (len(self._index), 2, self.heads, -1))
            rows.memo["prefix"] = layers.permute(2, 3, 0, 4, 1, 5)  # layers, 2, runs, heads, length, head_dim
        keys, values = rows.memo["prefix"][self._index[site.name]]
        return keys, values

    def around(self, site: Site, frozen: Callable[..., Tensor], *inputs: Tensor, rows: Rows) -> Tensor:
        return frozen(*inputs, self.at(site, rows))


class Prefix(Method):
    """Trains keys and values that stand before every text in every layer, and the head.

    length: how many. hidden: size of the reparametrisation map (512 in Li & Liang), None to learn the prefix itself.
    std: its spread at the start.
    """

    identity_at_init: ClassVar[bool] = False
    needs_packed: ClassVar[bool] = True
    learning_rate: Rate = 4e-2
    length: int = Field(default=10, ge=1)
    hidden: int | None = Field(default=None, ge=1)
    std: float = Field(default=0.02, ge=0)

    def build(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator]) -> Adapter:
        return PrefixAdapter(pick(sites, "attention", method="prefix"), rngs, self.length, self.hidden, self.std)

    def to_peft(self, sites: Sequence[Site], adapter: Mapping[str, Tensor]) -> PeftParts:
        attention = pick(sites, "attention", method="prefix")
        built = PrefixAdapter(attention, [np.random.default_rng(0)], self.length, self.hidden, self.std)
        built.load_state_dict({name: tensor[None] for name, tensor in adapter.items()})
        config = {
            "peft_type": "PREFIX_TUNING",
            "num_virtual_tokens": self.length,
            "token_dim": attention[0].outputs,
            "num_attention_heads": attention[0].heads,
            "num_layers": len(attention),
            "num_transformer_submodules": 1,
        }
        return PeftParts(config, {"prompt_embeddings": built.keys_values()[0].detach()})

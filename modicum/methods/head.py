"""The linear probe: a frozen backbone and a trained head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from modicum.methods.base import Adapter, Method, Rate, Site


class NoAdapter(Adapter):
    """Changes nothing."""

    @property
    def sites(self) -> frozenset[str]:
        return frozenset()


class Head(Method):
    """Only the classification head is trained: the cheapest method, and a floor for all others."""

    learning_rate: Rate = 5e-3

    def build(self, sites: Sequence[Site], rngs: Sequence[np.random.Generator]) -> Adapter:
        return NoAdapter(len(rngs))

    def merge(self, sites: Sequence[Site], adapter: Mapping[str, Tensor], state: dict[str, Tensor]) -> bool:
        return True

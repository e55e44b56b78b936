"""What is tried out on an encoder before it is trusted: small texts, and an adapter that only looks on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from modicum.engine.tokens import Tokens
from modicum.methods.base import Adapter, Rows, Site


def three_texts(config: Any) -> Tokens:
    """Texts of 3, 5 and 8 tokens of a model with this configuration, none of them padding."""
    usable = [i for i in range(5, min(200, config.vocab_size)) if i != config.pad_token_id][:40]
    lengths = np.array([3, 5, 8])
    ids = np.resize(np.array(usable, dtype=np.int32), lengths.sum())
    return Tokens(ids, None, np.concatenate([[0], np.cumsum(lengths)]))


class Watch(Adapter):
    """Looks on, and notes whether all that passes a site belongs to one of so many texts."""

    def __init__(self, sites: Sequence[Site], texts: int) -> None:
        super().__init__(runs=1)
        self._sites, self.texts, self.texts_alone = frozenset(site.name for site in sites), texts, True

    @property
    def sites(self) -> frozenset[str]:
        return self._sites

    def around(self, site: Site, frozen: Callable[..., Tensor], *inputs: Tensor, rows: Rows) -> Tensor:
        self.texts_alone &= len(inputs[0]) == self.texts
        return frozen(*inputs)

"""Dropout from named streams: each run draws its own, the same whether it runs alone or in a bank.

On a CPU a byte per element decides, so rates are multiples of 1/256 (0.1 becomes 26/256, scaled back exactly):
bytes come ten times faster than floats.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from modicum.engine.attention import Drop
from modicum.engine.tokens import Batch


class Noise:
    """The dropout of one pass. rngs: one generator per run."""

    def __init__(self, batch: Batch, rngs: Sequence[np.random.Generator], device: torch.device) -> None:
        self.batch, self.rngs, self.device = batch, rngs, device
        self._cuda = None if device.type == "cpu" else _seeded(rngs, device)

    def tokens(self, x: Tensor, p: float) -> Tensor:
        """Dropout on hidden states, (1, tokens, width) or (texts, longest, width)."""
        padding = 0 if x.shape[0] == 1 else x.shape[1]
        sizes = [block.texts * (padding or block.length) * x.shape[-1] for block in self.batch.blocks]
        keep, scale = self._keep(sizes, p)
        return x * (keep.view_as(x) * torch.tensor(scale, dtype=x.dtype))

    def texts(self, x: Tensor, p: float) -> Tensor:
        """Dropout on pooled representations, (texts, width)."""
        keep, scale = self._keep([block.texts * x.shape[-1] for block in self.batch.blocks], p)
        return x * (keep.view_as(x) * scale)

    def attention(self, heads: int, prefix: int, p: float) -> Drop:
        """What to drop of all attention weights of a layer, in the order of spans."""
        sizes = [b.texts * heads * b.length * (b.length + prefix) for b in self.batch.blocks]
        return Drop(*self._keep(sizes, p))

    def _keep(self, sizes: list[int], p: float) -> tuple[Tensor, float]:
        if self._cuda is not None:
            keep = torch.rand(sum(sizes), device=self.device, generator=self._cuda) >= p
            return keep, 1 / (1 - p)
        threshold = max(1, round(p * 256))
        if len(self.rngs) == 1:
            drawn = _bytes(self.rngs[0], sum(sizes))
        else:
            drawn = self._by_run(sizes)
        return torch.from_numpy(drawn >= threshold), 256 / (256 - threshold)

    def _by_run(self, sizes: list[int]) -> np.ndarray:
        runs = [block.run for block in self.batch.blocks]
        totals = np.bincount(runs, weights=sizes, minlength=len(self.rngs)).astype(np.int64)
        own = [_bytes(rng, int(total)) for rng, total in zip(self.rngs, totals, strict=True)]
        cursor = [0] * len(own)
        pieces = []
        for run, size in zip(runs, sizes, strict=True):
            pieces.append(own[run][cursor[run] : cursor[run] + size])
            cursor[run] += size
        return np.concatenate(pieces)


def _bytes(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.frombuffer(rng.bytes(n), dtype=np.uint8)


def _seeded(rngs: Sequence[np.random.Generator], device: torch.device) -> torch.Generator:
    seed = int(np.bitwise_xor.reduce([rng.integers(2**62) for rng in rngs]))
    return torch.Generator(device).manual_seed(seed)

"""Dropout from named streams: each run draws its own, the same whether it runs alone or in a bank.

On a CPU a byte per element decides, so rates are multiples of 1/256 (0.1 becomes 26/256, scaled back exactly).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modicum.engine.tokens import Batch


class Noise:
    """The dropout of one pass. rngs: one generator per run."""

    def __init__(self, batch: Batch, rngs: Sequence[np.random.Generator], device: torch.device) -> None:
        self.batch, self.rngs, self.device = batch, rngs, device
        self._cuda = None if device.type == "cpu" else [_seeded(rng, device) for rng in rngs]

    def tokens(self, x: Tensor, p: float) -> Tensor:
        """Dropout on hidden states, (1, tokens, width) or padded (texts, longest, width), and on padded attention
        weights, (texts, heads, longest, longest). What belongs to no text, as relative positions do, stays."""
        lengths = self.batch.lengths
        spare = x.shape[1] - int(lengths.sum()) if x.dim() == 3 else -1
        if len(x) == 1 and spare in (0, self.batch.spare):
            factors = self._factors([b.tokens * x.shape[2] for b in self.batch.blocks], p, x.dtype)
            return x * torch.cat([factors, factors.new_ones(spare * x.shape[2])]).view_as(x)
        if x.dim() < 3 or len(x) != len(lengths):
            return x
        return x * (self._padded_states(x, p) if x.dim() == 3 else self._padded_weights(x, p))

    def _padded_states(self, x: Tensor, p: float) -> Tensor:
        """Factors as of packed rows, so that they do not depend on the longest text, and 1 at padding and prompts."""
        longest, width = int(self.batch.lengths.max()), x.shape[2]
        drawn = self._factors([block.tokens * width for block in self.batch.blocks], p, x.dtype)
        mask = torch.from_numpy(np.arange(longest)[None] < self.batch.lengths[:, None]).to(x.device)
        factors = torch.ones_like(x)
        factors[:, x.shape[1] - longest :][mask] = drawn.view(-1, width)
        return factors

    def _padded_weights(self, x: Tensor, p: float) -> Tensor:
        """Factors of each block's rung, cut to the longest text; 1 at padding and prompts."""
        heads, longest = x.shape[1], int(self.batch.lengths.max())
        drawn, factors, first, start = self.attention(heads, 0, p, x.dtype), torch.ones_like(x), 0, 0
        for block in self.batch.blocks:
            size, seen = block.texts * heads * block.rung**2, min(block.rung, longest)
            own = drawn[start : (start := start + size)].view(block.texts, heads, block.rung, block.rung)
            corner = factors[first : (first := first + block.texts), :, x.shape[2] - longest :, x.shape[3] - longest :]
            corner[:, :, :seen, :seen] = own[:, :, :seen, :seen]
        return factors

    def texts(self, x: Tensor, p: float) -> Tensor:
        """Dropout on pooled representations, (texts, width)."""
        return x * self._factors([block.texts * x.shape[-1] for block in self.batch.blocks], p, x.dtype).view_as(x)

    def attention(self, heads: int, prefix: int, p: float, dtype: torch.dtype) -> Tensor:
        """(weights,) factors for all attention weights of a layer, in the order of spans."""
        return self._factors([b.texts * heads * b.rung * (b.rung + prefix) for b in self.batch.blocks], p, dtype)

    def _factors(self, sizes: list[int], p: float, dtype: torch.dtype) -> Tensor:
        """(sum of sizes,) 0 with chance p, else 1 / (1 - p)."""
        if self._cuda is not None:
            keep = torch.cat(self._by_run(sizes, functools.partial(self._rolled, p=p)))
            return keep.to(dtype).mul_(1 / (1 - p))
        threshold = min(max(1, round(p * 256)), 255)
        drawn = self._by_run(sizes, self._bytes)
        keep = torch.from_numpy((drawn[0] if len(drawn) == 1 else np.concatenate(drawn)) >= threshold)
        return keep.to(dtype).mul_(256 / (256 - threshold))

    def _by_run(self, sizes: list[int], draw: Callable[[int, int], Any]) -> list[Any]:
        """Each block's piece of what its run draws, in the order of blocks; ``draw(run, n)`` gives n elements."""
        if len(self.rngs) == 1:
            return [draw(0, sum(sizes))]
        runs = [block.run for block in self.batch.blocks]
        totals = np.bincount(runs, weights=sizes, minlength=len(self.rngs)).astype(np.int64)
        own = [draw(run, int(total)) for run, total in enumerate(totals)]
        cursor = [0] * len(own)
        pieces = []
        for run, size in zip(runs, sizes, strict=True):
            pieces.append(own[run][cursor[run] : cursor[run] + size])
            cursor[run] += size
        return pieces

    def _bytes(self, run: int, n: int) -> np.ndarray:
        return np.frombuffer(self.rngs[run].bytes(n), dtype=np.uint8)

    def _rolled(self, run: int, n: int, *, p: float) -> Tensor:
        assert self._cuda is not None
        return torch.rand(n, device=self.device, generator=self._cuda[run]) >= p


def _seeded(rng: np.random.Generator, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(int(rng.integers(2**62)))

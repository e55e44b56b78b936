"""Dropout from named streams: each run draws its own, the same whether it runs alone or in a bank.

On a CPU a byte per element decides, so rates are multiples of 1/256 (0.1 becomes 26/256, scaled back exactly).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modicum.engine.tiles import Batch

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers as wide as a number of so many bytes."""


class Kept:
    """Which elements of a tensor dropout keeps, and by how much it scales them.

    keep: (elements,) uint8, 0 where dropped. scale: one number, or one an element. An element is dropped by a bitwise
    AND, many times cheaper on a CPU than a product of two precisions.
    """

    def __init__(self, keep: Tensor, scale: float | Tensor) -> None:
        self.keep, self.scale = keep, scale
        self._bits: dict[torch.dtype, Tensor] = {}

    def of(self, x: Tensor) -> Tensor:
        """``x``, which has as many elements in this order, with the dropped ones 0 and the others scaled."""
        return self.cut(x).mul_(self.scale)

    def cut(self, x: Tensor) -> Tensor:
        """As ``of``, but nothing is scaled."""
        integer = INTEGERS[x.element_size()]
        if integer not in self._bits:
            self._bits[integer] = self.keep.view(torch.int8).to(integer).neg_()
        bits = self._bits[integer].view(x.shape)
        return torch.bitwise_and(x.contiguous().view(integer), bits).view(x.dtype)


class Dropped(torch.autograd.Function):
    """``kept.of(x)``, whose gradient is dropped and scaled alike."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Kept) -> Tensor:  # type: ignore[override]
        ctx.kept = kept
        return kept.of(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.kept.of(grad), None


class Noise:
    """The dropout of one pass. rngs: one generator per run."""

    def __init__(self, batch: Batch, rngs: Sequence[np.random.Generator], device: torch.device) -> None:
        self.batch, self.rngs, self.device = batch, rngs, device
        self._cuda = None if device.type == "cpu" else [_seeded(rng, device) for rng in rngs]

    def tokens(self, x: Tensor, p: float, *, packed: bool = True) -> Tensor:
        """Dropout on hidden states, (1, places, width) or padded (texts, longest, width), and on padded attention
        weights, (texts, heads, longest, longest). What belongs to no text, as relative positions do, stays."""
        if packed and x.dim() == 3 and x.shape[:2] == self.batch.ids.shape:
            return Dropped.apply(x, self._kept([group.places * x.shape[2] for group in self.batch.groups], p))
        if x.dim() < 3 or len(x) != len(self.batch.lengths):
            return x
        return Dropped.apply(x, self._padded_states(x, p) if x.dim() == 3 else self._padded_weights(x, p))

    def texts(self, x: Tensor, p: float) -> Tensor:
        """Dropout on pooled representations, (texts, width)."""
        return Dropped.apply(x, self._kept([group.texts * x.shape[-1] for group in self.batch.groups], p))

    def attention(self, heads: int, prefix: int, p: float) -> list[Kept]:
        """What a layer's attention weights keep, for each size of tiles, (tiles, heads, size, prefix + size) each."""
        groups = self.batch.groups
        every = self._kept([g.places * heads * (g.size + prefix) for g in groups], p)
        counts = [tiles * heads * size * (size + prefix) for _, tiles, size in self.batch.sizes]
        return [Kept(part, every.scale) for part in every.keep.split(counts)]

    def _padded_states(self, x: Tensor, p: float) -> Kept:
        """As of rows of tiles, so that it does not depend on the longest text; all is kept at padding and prompts."""
        longest, width = self.batch.mask.shape[1], x.shape[2]
        drawn = self._kept([group.places * width for group in self.batch.groups], p)
        mask = torch.from_numpy(self.batch.mask).to(x.device)
        keep, scale = torch.ones(x.shape, dtype=torch.uint8, device=x.device), torch.ones_like(x)
        keep[:, x.shape[1] - longest :][mask] = drawn.keep.view(-1, width)[torch.from_numpy(self.batch.places)]
        scale[:, x.shape[1] - longest :][mask] = drawn.scale
        return Kept(keep.flatten(), scale)

    def _padded_weights(self, x: Tensor, p: float) -> Kept:
        """Each text's own corner of its tile's weights; all is kept at padding and prompts."""
        heads, longest = x.shape[1], self.batch.mask.shape[1]
        keep, scale = torch.ones(x.shape, dtype=torch.uint8, device=x.device), torch.ones_like(x)
        corners = [t[:, :, x.shape[2] - longest :, x.shape[3] - longest :] for t in (keep, scale)]
        for kept, (start, tiles, size) in zip(self.attention(heads, 0, p), self.batch.sizes, strict=True):
            drawn = kept.keep.view(tiles, heads, size, size)
            for text in np.flatnonzero((self.batch.starts >= start) & (self.batch.starts < start + tiles * size)):
                tile, offset = divmod(int(self.batch.starts[text]) - start, size)
                length = int(self.batch.lengths[text])
                own = slice(offset, offset + length)
                corners[0][text, :, :length, :length] = drawn[tile, :, own, own]
                corners[1][text, :, :length, :length] = kept.scale
        return Kept(keep.flatten(), scale)

    def _kept(self, sizes: list[int], p: float) -> Kept:
        """What is kept of groups of so many elements, each run's drawn from its own stream."""
        if self._cuda is not None:
            return Kept(torch.cat(self._by_run(sizes, p)), 1 / (1 - p))
        threshold = min(max(1, round(p * 256)), 255)
        drawn = self._by_run(sizes, threshold)
        keep = drawn[0] if len(drawn) == 1 else np.concatenate(drawn)
        return Kept(torch.from_numpy(keep.view(np.uint8)), 256 / (256 - threshold))

    def _by_run(self, sizes: list[int], rate: float) -> list[Any]:
        """Each group's piece of what its run draws, in the order of groups."""
        draw = self._bytes if self._cuda is None else self._rolled
        if len(self.rngs) == 1:
            return [draw(0, sum(sizes), rate)]
        runs = [group.run for group in self.batch.groups]
        totals = np.bincount(runs, weights=sizes, minlength=len(self.rngs)).astype(np.int64)
        own = [draw(run, int(total), rate) for run, total in enumerate(totals)]
        cursor = [0] * len(own)
        pieces = []
        for run, size in zip(runs, sizes, strict=True):
            pieces.append(own[run][cursor[run] : cursor[run] + size])
            cursor[run] += size
        return pieces

    def _bytes(self, run: int, n: int, threshold: float) -> np.ndarray:
        words = self.rngs[run].integers(0, 2**64, -(-n // 8), dtype=np.uint64)  # twice as fast as its bytes()
        return words.view(np.uint8)[:n] >= threshold

    def _rolled(self, run: int, n: int, p: float) -> Tensor:
        assert self._cuda is not None
        return (torch.rand(n, device=self.device, generator=self._cuda[run]) >= p).view(torch.uint8)


def _seeded(rng: np.random.Generator, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(int(rng.integers(2**62)))

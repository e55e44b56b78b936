"""Attention over rows of tiles: each text attends to itself, and to its run's prefix.

Registered with transformers under the name ``modicum``. The function that transformers calls knows only the
module, q, k and v; what else it needs (where the texts are, who stands around attention) is the present ``Pass``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from modicum.engine.noise import Dropped, Kept
from modicum.engine.tiles import Batch

IMPLEMENTATION = "modicum"

Attend = Callable[..., Tensor]
"""(module, q, k, v, scale, window) -> (places, heads, head_dim): set by the backbone for the length of a pass."""

current: ContextVar[Attend | None] = ContextVar("modicum_attention", default=None)


class Masks:
    """Which places of a tile see which others, as numbers to add to scores; made once a pass for all layers."""

    def __init__(self, batch: Batch, device: torch.device, dtype: torch.dtype) -> None:
        self.sizes = batch.sizes
        self._text = torch.from_numpy(batch.text_of_place).to(device)
        self._dtype = dtype
        self._known: dict[tuple[int, int | None], Tensor] = {}
        self.runs = [
            torch.from_numpy(batch.run_of_place[start : start + tiles * size : size].astype(np.int64)).to(device)
            for start, tiles, size in self.sizes
        ]

    def of(self, start: int, tiles: int, size: int, window: int | None) -> Tensor:
        """(tiles, 1, size, size): 0 within a text and nearer than ``window``, minus infinity elsewhere."""
        if (start, window) not in self._known:
            text = self._text[start : start + tiles * size].view(tiles, size)
            hidden = text[:, :, None] != text[:, None]
            if window is not None and size > window:
                place = torch.arange(size, device=text.device)
                hidden |= (place[:, None] - place[None]).abs() >= window
            mask = torch.zeros(hidden.shape, dtype=self._dtype, device=text.device)
            self._known[start, window] = mask.masked_fill_(hidden, float("-inf"))[:, None]
        return self._known[start, window]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prefix: tuple[Tensor, Tensor] | None,
    gate: Tensor | None,
    masks: Masks,
    scale: float,
    window: int | None,
    kept: list[Kept] | None,
) -> Tensor:
    """softmax(q kᵀ · scale) v within each text, (places, heads, dim) like q, k and v.

    prefix: keys and values before every text, each (runs, heads, length, dim). gate: (places, 1), by which a text sees
    its prefix scaled. kept: dropout of the attention weights, for each size of tiles.
    """
    sizes = [tiles * size for _, tiles, size in masks.sizes]
    rows = [t.split(sizes) if len(sizes) > 1 else (t,) for t in (q, k, v)]
    out = []
    for i, (start, tiles, size) in enumerate(masks.sizes):
        tiled = [row[i].unflatten(0, (tiles, size)).transpose(1, 2) for row in rows]  # (tiles, heads, size, dim)
        mask = masks.of(start, tiles, size, window)
        own = None if prefix is None else [t[masks.runs[i]].to(q.dtype) for t in prefix]
        opened = None if gate is None else gate[start : start + tiles * size].view(tiles, 1, size, 1)
        found = _attend(tiled, mask, scale, own, opened, None if kept is None else kept[i])
        out.append(found.transpose(1, 2).flatten(0, 1))
    return out[0] if len(out) == 1 else torch.cat(out)


def _attend(
    tiled: list[Tensor], mask: Tensor, scale: float, prefix: list[Tensor] | None, gate: Tensor | None, kept: Kept | None
) -> Tensor:
    """One size of tiles; q, k, v and the result are (tiles, heads, size, dim)."""
    q, k, v = tiled
    length = 0
    if prefix is not None:
        length = prefix[0].shape[2]
        k, v = torch.cat([prefix[0], k], 2), torch.cat([prefix[1], v], 2)
        mask = nn.functional.pad(mask, (length, 0))
    if gate is None and kept is None and not (torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v))):
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    if gate is None:
        return TileAttention.apply(q, k, v, mask, scale, kept)
    own = gate.new_ones(()).expand(*gate.shape[:3], k.shape[2] - length)
    opened = torch.cat([gate.expand(-1, -1, -1, length), own], 3)  # scales scores and values of the prefix alone
    weights = (q @ k.transpose(2, 3) * (scale * opened) + mask).softmax(-1)
    if kept is not None:
        weights = Dropped.apply(weights, kept)
    return (weights * opened) @ v


class TileAttention(torch.autograd.Function):
    """softmax(q kᵀ · scale + mask) v, with as few passes over memory as its gradient allows."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, kept: Kept | None
    ) -> Tensor:
        """q: (tiles, heads, size, dim). k, v: (tiles, heads, keys, dim). mask: (tiles, 1, size, keys)."""
        heads = q.shape[:2]
        queries, keys, values = (_flat(t) for t in (q, k, v))
        scores = _product(queries, keys.transpose(1, 2), scale)
        scores.unflatten(0, heads).add_(mask)
        weights = scores.softmax(-1)
        ctx.save_for_backward(queries, keys, values, weights)
        ctx.scale, ctx.kept, ctx.heads = scale, kept, heads
        out = torch.bmm(weights, values) if kept is None else _product(kept.cut(weights), values, kept.scale)
        return _like_rows(out.unflatten(0, heads))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        queries, keys, values, weights = ctx.saved_tensors
        grad, kept = _flat(grad), ctx.kept
        if kept is None:
            dvalues, dweights = torch.bmm(weights.transpose(1, 2), grad), torch.bmm(grad, values.transpose(1, 2))
        else:
            dvalues = _product(kept.cut(weights).transpose(1, 2), grad, kept.scale)
            dweights = kept.cut(_product(grad, values.transpose(1, 2), kept.scale))
        dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
        dqueries, dkeys = _product(dscores, keys, ctx.scale), _product(dscores.transpose(1, 2), queries, ctx.scale)
        return *(_like_rows(t.unflatten(0, ctx.heads)) for t in (dqueries, dkeys, dvalues)), None, None, None


def _product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale · a b of (n, i, j) and (n, j, k), in one pass."""
    return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=scale)


def _flat(tiled: Tensor) -> Tensor:
    """(tiles, heads, size, dim) -> (tiles * heads, size, dim), contiguous."""
    return tiled.contiguous().flatten(0, 1)


def _like_rows(tiled: Tensor) -> Tensor:
    """The same (tiles, heads, size, dim), laid out in memory as rows are: (tiles, size, heads, dim)."""
    return tiled.transpose(1, 2).contiguous().transpose(1, 2)


def _interface(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: q, k, v are (1, heads, places, dim); returns (1, places, heads, dim)."""
    attend_now = current.get()
    if attend_now is None:
        raise RuntimeError("modicum attention works only inside a pass over rows of tiles")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return attend_now(module, query, key, value, scale, sliding_window)[None], None


AttentionInterface.register(IMPLEMENTATION, _interface)
AttentionMaskInterface.register(IMPLEMENTATION, lambda *args, **kwargs: None)

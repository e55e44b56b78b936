"""The product that LoRA stands on, with a gradient written by hand: a third of a step's small operations otherwise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modicum.methods.base import Frozen, Rows


class LowRank(torch.autograd.Function):
    """``frozen(x) + scale · up(mask(down(x)))`` for one map or several that read the same input, all runs side by side.

    Products are in the precision of x; parameters and their gradients stay in theirs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: Frozen, rows: Rows, scale: float, *maps: Tensor) -> Tensor:  # type: ignore[override]
        """x: (..., inputs). maps: down (runs, rank, inputs) of each map, then up (runs, outputs, rank) of each.

        Returns the maps' outputs side by side, (..., sum of outputs).
        """
        downs, ups = maps[: len(maps) // 2], maps[len(maps) // 2 :]
        flat = x.flatten(0, -2)
        down = (downs[0] if len(downs) == 1 else torch.stack(downs)).to(x.dtype).reshape(-1, x.shape[-1])
        wide = [up.to(x.dtype).transpose(0, 1).reshape(up.shape[1], -1) for up in ups]  # (outputs, runs * rank)
        own = rows.columns(len(downs), downs[0].shape[1], x)
        hidden = _own(flat @ down.t(), own, scale)
        out = frozen.product(x).flatten(0, -2)
        start = 0
        for part, up in zip(hidden.chunk(len(ups), 1), wide, strict=True):
            out[:, start : (start := start + len(up))].addmm_(part, up.t())
        ctx.save_for_backward(flat, hidden, down, *wide)
        ctx.frozen, ctx.own, ctx.scale, ctx.runs, ctx.shape = frozen, own, scale, rows.runs, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        flat, hidden, down, *wide = ctx.saved_tensors
        grad = grad.flatten(0, -2)
        parts = grad.split([len(up) for up in wide], 1)
        before = [part @ up for part, up in zip(parts, wide, strict=True)]
        dhidden = _own(before[0] if len(before) == 1 else torch.cat(before, 1), ctx.own, ctx.scale)
        ddowns = (dhidden.t() @ flat).float().view(len(wide), ctx.runs, -1, flat.shape[1])
        dups = [
            (part.t() @ h).float().view(part.shape[1], ctx.runs, -1).transpose(0, 1)
            for h, part in zip(hidden.chunk(len(wide), 1), parts, strict=True)
        ]
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (grad @ ctx.frozen.weight).addmm_(dhidden, down).view(ctx.shape)
        return dx, None, None, None, *ddowns, *dups


def _own(hidden: Tensor, own: Tensor | None, scale: float) -> Tensor:
    """Each row's own run's columns of (rows, maps * runs * rank), scaled."""
    if own is not None:
        hidden = hidden.mul_(own)
    return hidden if scale == 1 else hidden.mul_(scale)

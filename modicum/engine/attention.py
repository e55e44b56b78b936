"""Attention over packed rows: each text attends to itself (and to its prefix), and nothing is padded.

Registered with transformers under the name ``modicum``. The function that transformers calls knows only the
module, q, k and v; what else it needs (where the texts are, who stands around attention) is the present ``Pass``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from modicum.engine.tokens import Span

IMPLEMENTATION = "modicum"


class Drop(NamedTuple):
    """A dropout mask over all attention weights of a pass: (weights,) bool in span order, and 1 / (1 - p)."""

    keep: Tensor
    scale: float


Attend = Callable[..., Tensor]
"""(module, packed attention, q, k, v) -> (tokens, heads, head_dim): set by the backbone for the length of a pass."""

current: ContextVar[Attend | None] = ContextVar("modicum_attention", default=None)


class PackedAttention(torch.autograd.Function):
    """softmax(q kᵀ · scale) v per text, by groups of equal length, each gradient written once.

    Slicing q, k, v in autograd instead would write one full-size tensor of zeros per group.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        prefix_k: Tensor | None,
        prefix_v: Tensor | None,
        spans: list[Span],
        scale: float,
        window: int | None,
        drop: Drop | None,
    ) -> Tensor:
        """q, k, v: (tokens, heads, dim). prefix_k, prefix_v: (texts, heads, length, dim). Returns (tokens, heads, dim)."""
        out = torch.empty_like(q)
        kept, first, cursor = [], 0, 0
        for span in spans:
            keys, values = _group(k, span), _group(v, span)
            if prefix_k is not None and prefix_v is not None:
                keys = torch.cat([prefix_k[first : first + span.texts], keys], 2)
                values = torch.cat([prefix_v[first : first + span.texts], values], 2)
            scores = (_group(q, span) @ keys.transpose(-1, -2)).mul_(scale)
            if window is not None and span.length > window:
                scores[..., -span.length :].masked_fill_(_far(span.length, window, q.device), float("-inf"))
            weights = scores.softmax(-1)
            mask = None
            if drop is not None:
                mask = drop.keep[cursor : cursor + weights.numel()].view_as(weights)
                cursor += weights.numel()
            _cut(out, span).copy_(((weights if mask is None else weights * mask * drop.scale) @ values).transpose(1, 2))  # type: ignore[union-attr]
            kept.append((weights, mask))
            first += span.texts
        if any(ctx.needs_input_grad[:5]):
            ctx.save_for_backward(q, k, v, prefix_k, prefix_v, *(t for pair in kept for t in pair))
            ctx.spans, ctx.scale, ctx.drop_scale = spans, scale, drop.scale if drop else 1.0
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, prefix_k, prefix_v, *kept = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        dpk = None if prefix_k is None else torch.empty_like(prefix_k)
        dpv = None if prefix_v is None else torch.empty_like(prefix_v)
        length = 0 if prefix_k is None else prefix_k.shape[2]
        first = 0
        for i, span in enumerate(ctx.spans):
            weights, mask = kept[2 * i], kept[2 * i + 1]
            keys, values, g = _group(k, span), _group(v, span), _group(grad, span)
            texts = slice(first, first + span.texts)
            if length:
                keys, values = torch.cat([prefix_k[texts], keys], 2), torch.cat([prefix_v[texts], values], 2)
            dweights = g @ values.transpose(-1, -2)
            dropped = weights
            if mask is not None:
                dropped = weights * mask * ctx.drop_scale
                dweights = dweights * mask * ctx.drop_scale
            dvalues = dropped.transpose(-1, -2) @ g
            dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype).mul_(ctx.scale)
            _cut(dq, span).copy_((dscores @ keys).transpose(1, 2))
            dkeys = dscores.transpose(-1, -2) @ _group(q, span)
            _cut(dk, span).copy_(dkeys[:, :, length:].transpose(1, 2))
            _cut(dv, span).copy_(dvalues[:, :, length:].transpose(1, 2))
            if dpk is not None and dpv is not None:
                dpk[texts], dpv[texts] = dkeys[:, :, :length], dvalues[:, :, :length]
            first += span.texts
        return dq, dk, dv, dpk, dpv, None, None, None, None


def _cut(t: Tensor, span: Span) -> Tensor:
    """(tokens, heads, dim) -> the span's (texts, length, heads, dim), a view."""
    return t[span.start : span.start + span.texts * span.length].unflatten(0, (span.texts, span.length))


def _group(t: Tensor, span: Span) -> Tensor:
    """(tokens, heads, dim) -> the span's (texts, heads, length, dim)."""
    return _cut(t, span).transpose(1, 2)


def _far(length: int, window: int, device: torch.device) -> Tensor:
    """(length, length) True where two positions are ``window`` or more apart."""
    place = torch.arange(length, device=device)
    return (place[:, None] - place[None]).abs() >= window


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
    """What transformers calls: q, k, v are (1, heads, tokens, dim); returns (1, tokens, heads, dim)."""
    attend = current.get()
    if attend is None:
        raise RuntimeError("modicum attention works only inside a pass over packed rows")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return attend(module, query, key, value, scale, sliding_window)[None], None


AttentionInterface.register(IMPLEMENTATION, _interface)
AttentionMaskInterface.register(IMPLEMENTATION, lambda *args, **kwargs: None)

"""Attention over packed rows: each text attends to itself (and to its prefix), and nothing is padded.

Registered with transformers under the name ``modicum``. The function that transformers calls knows only the
module, q, k and v; what else it needs (where the texts are, who stands around attention) is the present ``Pass``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from modicum.engine.tokens import Lift, Span

IMPLEMENTATION = "modicum"
SHORT = 32
"""Rungs up to which attention's products are fp32 on a CPU: bf16 kernels are made anew for every number of texts."""


Attend = Callable[..., Tensor]
"""(module, q, k, v, scale, window) -> (tokens, heads, head_dim): set by the backbone for the length of a pass."""

current: ContextVar[Attend | None] = ContextVar("modicum_attention", default=None)


class PackedAttention(torch.autograd.Function):
    """softmax(q kᵀ · scale) v per text, by groups of one rung, each gradient written once.

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
        lift: Lift | None,
        spare: int,
        scale: float,
        window: int | None,
        drop: Tensor | None,
    ) -> Tensor:
        """q, k, v: (tokens + spare, heads, dim), as is the result. prefix_k, prefix_v: (texts, heads, length, dim).

        drop: (weights,) factors for all attention weights in span order, 0 where dropped.
        """
        training = any(ctx.needs_input_grad[:5])
        rows = [_lifted(t, lift, spare) for t in (q * scale, k, v)]
        out = torch.empty_like(rows[0])
        kept: list[Tensor | None] = []
        first = cursor = 0
        for span in spans:
            queries, keys, values = (_group(t, span) for t in rows)
            texts = slice(first, first := first + span.texts)
            keys, values = _with_prefix(prefix_k, keys, texts), _with_prefix(prefix_v, values, texts)
            scores = torch.bmm(queries, keys.transpose(1, 2))
            _mask(scores, span, lift, window, q.shape[1])
            weights = scores.softmax(-1)
            factors = None
            if drop is not None:
                factors = drop[cursor : (cursor := cursor + weights.numel())].view_as(weights)
            _ungroup(torch.bmm(weights if factors is None else weights * factors, values), out, span)
            if training:
                kept += [queries, keys, values, weights, factors]
        if training:
            ctx.save_for_backward(*kept)
            ctx.spans, ctx.lift, ctx.spare, ctx.scale, ctx.shape = spans, lift, spare, scale, rows[0].shape
            ctx.prefix = None if prefix_k is None else prefix_k.shape
        return _lowered(out, lift, spare)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        kept, lift, spare = ctx.saved_tensors, ctx.lift, ctx.spare
        grad = grad[: len(grad) - spare]
        if lift is not None:
            grad = grad.new_zeros(ctx.shape).index_copy_(0, lift.back, grad)
        dq, dk, dv = (torch.empty(ctx.shape, dtype=grad.dtype, device=grad.device) for _ in range(3))
        dpk, dpv = (None if ctx.prefix is None else grad.new_empty(ctx.prefix) for _ in range(2))
        length = 0 if ctx.prefix is None else ctx.prefix[2]
        first = 0
        for i, span in enumerate(ctx.spans):
            queries, keys, values, weights, factors = kept[5 * i : 5 * i + 5]
            g = _group(grad, span)
            dvalues = torch.bmm((weights if factors is None else weights * factors).transpose(1, 2), g)
            dweights = torch.bmm(g, values.transpose(1, 2))
            if factors is not None:
                dweights = dweights * factors
            dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
            dkeys = torch.bmm(dscores.transpose(1, 2), queries)
            _ungroup(torch.bmm(dscores, keys), dq, span)
            _ungroup(dkeys[:, length:], dk, span)
            _ungroup(dvalues[:, length:], dv, span)
            if dpk is not None and dpv is not None:
                texts = slice(first, first := first + span.texts)
                dpk[texts] = dkeys[:, :length].view_as(dpk[texts])
                dpv[texts] = dvalues[:, :length].view_as(dpv[texts])
        dq, dk, dv = (_lowered(t, lift, spare) for t in (dq, dk, dv))
        return dq * ctx.scale, dk, dv, dpk, dpv, None, None, None, None, None, None


def _lifted(row: Tensor, lift: Lift | None, spare: int) -> Tensor:
    return row[: len(row) - spare] if lift is None else row.index_select(0, lift.take)


def _lowered(row: Tensor, lift: Lift | None, spare: int) -> Tensor:
    """Back to the flat row, with zeros for its spare tokens."""
    if lift is not None:
        row = row.index_select(0, lift.back)
    return torch.cat([row, row.new_zeros(spare, *row.shape[1:])]) if spare else row


def _group(row: Tensor, span: Span) -> Tensor:
    """(lifted, heads, dim) -> the span's (texts * heads, rung, dim), contiguous, in the precision of its products."""
    cut = row[span.start : span.start + span.texts * span.rung].unflatten(0, (span.texts, span.rung))
    dtype = (
        torch.float32 if (row.device.type, row.dtype) == ("cpu", torch.bfloat16) and span.rung <= SHORT else row.dtype
    )
    return cut.transpose(1, 2).to(dtype, memory_format=torch.contiguous_format).reshape(-1, span.rung, row.shape[2])


def _ungroup(group: Tensor, row: Tensor, span: Span) -> None:
    """Write the span's (texts * heads, rung, dim) into (lifted, heads, dim)."""
    cut = row[span.start : span.start + span.texts * span.rung].unflatten(0, (span.texts, span.rung))
    cut.copy_(group.unflatten(0, (span.texts, -1)).transpose(1, 2))


def _with_prefix(prefix: Tensor | None, own: Tensor, texts: slice) -> Tensor:
    return own if prefix is None else torch.cat([prefix[texts].flatten(0, 1).to(own.dtype), own], 1)


def _mask(scores: Tensor, span: Span, lift: Lift | None, window: int | None, heads: int) -> None:
    """Hide empty places, and for local attention all that is ``window`` or farther away; a prefix is always seen."""
    own = scores[..., -span.rung :]
    if lift is not None:
        empty = lift.empty[span.start : span.start + span.texts * span.rung].view(span.texts, 1, 1, span.rung)
        own.unflatten(0, (span.texts, heads)).masked_fill_(empty, float("-inf"))
    if window is not None and span.rung > window:
        place = torch.arange(span.rung, device=scores.device)
        far = (place[:, None] - place[None]).abs() >= window
        own.masked_fill_(far, torch.finfo(scores.dtype).min)  # finite: an empty place may see nothing but empty ones


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
